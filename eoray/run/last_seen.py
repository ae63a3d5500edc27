"""What a cluster said last of an attempt, kept beside its driver's record.

A driver sees neither its RayJob nor its pods; one that was killed, or never started, says nothing.
So whoever asks the cluster and may write the store leaves there what it saw: ``cluster.json``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from eoray import storage
from eoray.masking import mask

VIEW = "cluster.json"

_MOST_WARNINGS = 20


def keep_view(
    folder: str,
    view: Mapping[str, Any],
    *,
    at: float,
    secrets: Sequence[str] = (),
    timeout_s: float = 5.0,
) -> str:
    """Keep what the cluster says of an attempt, as far as the store is reached from here.

    Warnings and images that were kept before stay: a cluster forgets its events within hours, and
    its pods are gone in a minute.

    Args:
        folder: Of the attempt's record.
        view: State, ``warnings`` and ``images``, as ``eoray.k8s.job.Job.view`` gives them.
        at: When it was seen, Unix seconds.
        secrets: Values that must not be written.
        timeout_s: Credentials and routes of pods are often missing here, which takes minutes to
            find out; after this time the attempt is given up.

    Returns:
        Why it could not be kept; "" where it is.
    """
    if storage.is_local(folder):
        return "a folder of the pods is not seen from here"
    why = [f"no answer within {timeout_s:g} s"]

    def write() -> None:
        try:
            _merge(storage.join(folder, VIEW), view, at, secrets)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run itself is not touched
            why[0] = " ".join(str(error).split())[:160] or type(error).__name__
        else:
            why[0] = ""

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return why[0]


def _merge(url: str, view: Mapping[str, Any], at: float, secrets: Sequence[str]) -> None:
    kept: dict[str, Any] = storage.read_json(url) if storage.exists(url) else {}
    seen: dict[str, Any] = json.loads(mask(json.dumps(view), secrets))
    warnings = sorted({*kept.get("warnings", ()), *seen["warnings"]})
    images = sorted({*kept.get("images", ()), *seen.get("images", ())})
    content = {**seen, "warnings": warnings[-_MOST_WARNINGS:], "images": images}
    if any(kept.get(name) != value for name, value in content.items()):
        storage.write_json(url, {**content, "seen_at": at})
