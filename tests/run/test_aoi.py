from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pytest
import shapely

from eoray.errors import ConfigError
from eoray.run.aoi import resolve_aoi
from eoray.testing.http import archive_server


def test_a_place_behind_an_address_is_that_of_the_file(tmp_path: Path) -> None:
    frame = gpd.GeoDataFrame(geometry=[shapely.box(14.0, 46.0, 14.1, 46.1)], crs=4326)
    frame.to_file(tmp_path / "aoi.geojson", driver="GeoJSON")
    with archive_server(tmp_path) as server:
        found = resolve_aoi(f"{server.url}/aoi.geojson", Path("/nowhere"))
        with pytest.raises(ConfigError, match=r"absent\.geojson' does not exist"):
            resolve_aoi(f"{server.url}/absent.geojson", Path("/nowhere"))
    assert found == resolve_aoi("aoi.geojson", tmp_path)
