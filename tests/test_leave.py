"""How the command line's process ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_HEAD = """\
import sys
from eoray.cli.leave import leave_whole
with leave_whole():
"""

_WRITES_IN_FLIGHT = """\
    import asyncio
    import icechunk, zarr
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import _get_loop
    storage = icechunk.local_filesystem_storage(sys.argv[1])
    store = icechunk.Repository.create(storage).writable_session("main").store
    zarr.create_array(store, name="x", shape=(4000, 100), chunks=(1, 100), dtype="f8")
    data = default_buffer_prototype().buffer.from_bytes(bytes(80_000))
    for i in range(400):
        asyncio.run_coroutine_threadsafe(store.set(f"x/c/{i}/0", data), _get_loop())
    sys.exit(5)
"""


def leave(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _HEAD + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("    pass", 0),
        ("    sys.exit()", 0),
        ("    sys.exit(3)", 3),
        ("    sys.exit('said')", 1),
        ("    raise ValueError('defect')", 1),
    ],
)
def test_the_code_is_the_block_s(code: str, expected: int) -> None:
    assert leave(code).returncode == expected


def test_what_others_registered_still_happens_and_all_is_said() -> None:
    ended = leave("    import atexit; atexit.register(print, 'theirs'); print('ours'); sys.exit(4)")
    assert (ended.returncode, ended.stdout) == (4, "ours\ntheirs\n")


def test_an_error_is_told_in_full() -> None:
    assert "ValueError: defect" in leave("    raise ValueError('defect')").stderr


def test_writes_in_flight_do_not_take_the_exit_code_away(tmp_path: Path) -> None:
    # without the end of our own, one of four such processes dies by a signal
    codes = [leave(_WRITES_IN_FLIGHT, str(tmp_path / f"{i}")).returncode for i in range(6)]
    assert codes == [5] * 6
