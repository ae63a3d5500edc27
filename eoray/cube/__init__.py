"""Cubes: where tiles are stored, how they are written and read back."""
