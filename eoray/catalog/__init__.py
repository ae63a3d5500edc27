"""STAC catalogues: search, freeze, resolve to scenes, and say what a lineage holds and lacks."""
