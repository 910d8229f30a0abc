"""Models behind two small protocols, one file per family, and the prompts they take."""
