"""Synthetic data for the demo, tests and benchmarks. See ``docs/`` for what is in an archive."""
