"""Reading: from scenes to the pixels of a block of tiles."""
