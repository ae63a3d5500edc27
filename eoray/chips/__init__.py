"""Training chips: where they lie, what their labels say, how they are split and read."""
