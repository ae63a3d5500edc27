"""What a store remembers of a run's attempts: a cluster forgets what is deleted."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eoray.buckets import known_buckets, obstore_options, use_buckets
from eoray.k8s.names import attempts_folder, split_attempt

if TYPE_CHECKING:
    from eoray.config import RunConfig

_SCHEMES = ("s3", "gs", "az")


@dataclass(frozen=True, slots=True)
class Recorded:
    """The last attempt of a run that its store knows."""

    number: int
    is_done: bool
    """Its driver has said that it succeeded."""


def find_recorded(config: RunConfig, key: str, *, timeout_s: float = 3.0) -> Recorded | None:
    """Look for the last attempt of a run beside its outputs, as far as that is seen from here.

    Args:
        config: The run, with paths as pods see them.
        key: Of the run.
        timeout_s: Credentials and routes of pods are often missing here, which takes minutes to
            find out; after this time the look is given up.

    Returns:
        None where there is none, or where nothing can be seen: folders of the pods, no right, no
        route, an image without obstore. The driver then keeps both records under one name.
    """
    if config.store.partition("://")[0] not in _SCHEMES:
        return None
    described = {url: section.bucket() for url, section in config.storage.items()}
    use_buckets({**known_buckets(), **described})
    found: list[Recorded | None] = []

    def look() -> None:
        with suppress(Exception):  # whatever it is, the run can be submitted
            found.append(_last_of(attempts_folder(config), key))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return found[0] if found else None


def _last_of(folder: str, key: str) -> Recorded | None:
    from obstore.store import from_url

    options: dict[str, Any] = obstore_options(folder) if folder.startswith("s3://") else {}
    store = from_url(folder, **options)
    names = [
        str(path).rpartition("/")[2] for path in store.list_with_delimiter()["common_prefixes"]
    ]
    attempts = {
        found[1]: name for name in names if (found := split_attempt(name)) and found[0] == key
    }
    if not attempts:
        return None
    last = max(attempts)
    try:
        record = json.loads(bytes(store.get(f"{attempts[last]}/record.json").bytes()))
    except FileNotFoundError:  # its driver never started
        return Recorded(last, is_done=False)
    return Recorded(last, is_done=record.get("status") == "succeeded")
