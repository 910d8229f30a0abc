"""Drive models over volumes: propagation through the slices."""
