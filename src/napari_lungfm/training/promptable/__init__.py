"""Training of promptable models on sequences of slices with simulated prompts."""
