"""Keep beside the outputs what the cluster says of an attempt."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from eoray.errors import ClusterError

if TYPE_CHECKING:
    from eoray.k8s.job import Job


def keep_view(job: Job, *, waits: bool = False) -> None:
    """Keep the end of an attempt, or why its pods wait; where that cannot be, nothing fails.

    Of a run that goes on, the driver itself keeps the record.

    Args:
        job: The attempt.
        waits: Its pods are known to wait, though it runs.
    """
    from eoray.buckets import known_buckets, use_buckets
    from eoray.masking import secrets_of
    from eoray.run import last_seen

    try:
        view = job.view()
        folder, buckets = job.record()
    except ClusterError:
        return
    waits = waits or view["state"] != "running"
    tells = view["finished"] or (view["warnings"] and waits)
    if folder and tells:
        use_buckets({**known_buckets(), **buckets})
        last_seen.keep_view(folder, view, at=time.time(), secrets=secrets_of(os.environ))
