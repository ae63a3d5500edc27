"""Work in a process of its own, which ends with the one that started it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_BOOT = """
import json, sys
order = json.loads({order!r})
sys.path[:] = order.pop("sys.path")
from eoray.run.beside import end_with
end_with({me})
from {module} import {function}
found = {function}(**order)
print(json.dumps(found))
"""


def start_beside(
    module: str, function: str, order: Mapping[str, Any], log: Path
) -> subprocess.Popen[str]:
    """Call a function in another interpreter.

    Args:
        module: Where the function lies.
        function: Its name; it is called with the order.
        order: Keyword arguments of plain values.
        log: What the process says on stderr.

    Returns:
        The process; the last line of its stdout is the answer as JSON.
    """
    boot = _BOOT.format(
        order=json.dumps({**order, "sys.path": sys.path}),
        me=os.getpid(),
        module=module,
        function=function,
    )
    with log.open("w") as sink:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", boot],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
        )


def end_with(parent: int) -> None:
    """End this process as soon as it has another parent than this one."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
