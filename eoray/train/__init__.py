"""Fit a model: one loop, run in process or by Ray Train."""
