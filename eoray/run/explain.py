"""Why a tile costs what it costs: each file that it reads, from the headers alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eoray.errors import ConfigError
from eoray.reading.explain import explain_tile

if TYPE_CHECKING:
    from eoray.cube.plan import SceneRow


def explain_reads(
    rows: Sequence[SceneRow], bands: Sequence[str], tile_id: str, day: str
) -> list[dict[str, Any]]:
    """Describe the reads of one tile; see ``Run.explain``."""
    of_tile = [(row, tile) for row in rows for tile in row.tiles if tile.id == tile_id]
    if not of_tile:
        known = sorted({tile.id for row in rows for tile in row.tiles})
        raise ConfigError(
            f"the run reads no tile {tile_id!r}; it reads {', '.join(known[:5])}"
            + (f" and {len(known) - 5} more" if len(known) > 5 else "")
        )
    found = [
        (row, tile) for row, tile in of_tile if day in (row.entry, row.scenes[0].sensing_time[:10])
    ]
    if not found:
        days = sorted({row.scenes[0].sensing_time[:10] for row, _ in of_tile})
        near = ([one for one in days if one > day] or days)[:3]
        raise ConfigError(
            f"tile {tile_id} has no scene on {day!r} (UTC); the run reads {len(days)} days of it, "
            f"such as {', '.join(near)}"
        )
    return [
        {
            "entry": row.entry,
            "time": row.scenes[0].sensing_time,
            "tile": tile.id,
            "files": [one.to_dict() for one in explain_tile(row.scenes, tile, bands)],
        }
        for row, tile in found
    ]
