"""Map a cube with a trained model."""
