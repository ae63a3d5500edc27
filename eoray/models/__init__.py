"""Networks by name, and trained models as packages that say what they expect."""

from __future__ import annotations

import os

# Read by OpenMP when torch is first imported, hence here. Threads that spin while they wait make
# a training step 14 times slower when other processes want the cores (2 threads on 2 busy cores:
# 1 chip/s spinning, 19 sleeping); on idle cores the two policies cost the same.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
