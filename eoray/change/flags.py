"""Bits of the change product's ``qa_flags``; stored values, so none is ever given a new meaning."""

from __future__ import annotations

from enum import IntFlag


class ChangeFlag(IntFlag):
    """Why a pixel's record deserves care; several can be set at once."""

    INSUFFICIENT_RECORD = 1
    """Too few clear observations or days to learn the season and then to watch: never monitored."""
    NEVER_STABLE = 2
    """No window of the record fits one curve, so monitoring never began."""
    LONG_GAP = 4
    """More than the allowed days without a clear observation inside a segment."""
    SNOW = 8
    """More than half of the cloud-free observations are snow."""
    WATER = 16
    """More than half of the clear observations are water (green above SWIR)."""
    RECORD_END = 32
    """A break so near to the end of the record that it could not be seen whether it lasts."""
    LINEAGE_STEP = 64
    """A break within 60 days of a change of satellite fleet, baseline or refinement."""
    REJECTED = 128
    """More than a tenth of the clear observations was dropped as spikes."""
    MAX_BREAKS = 256
    """As many breaks as can be stored: later ones are lost."""
    TRANSIENT = 2048
    """An anomaly as long as a change came and went: drought, flood, harvest, undetected haze."""


FLAG_MASKS = [int(flag) for flag in ChangeFlag]
"""CF ``flag_masks``."""

FLAG_MEANINGS = " ".join(str(flag.name).lower() for flag in ChangeFlag)
"""CF ``flag_meanings``."""
