"""Names and labels: a run has a key, its submissions are numbered attempts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eoray.config import config_key
from eoray.errors import ConfigError

if TYPE_CHECKING:
    from eoray.config import RunConfig

PART_OF = "app.kubernetes.io/part-of"
RUN = "eoray.dev/run"
"""Label: key of the run."""
ATTEMPT = "eoray.dev/attempt"
"""Label: number of the attempt."""
NAME = "eoray.dev/name"
"""Label: name that the run file gives."""
SCHEDULE = "eoray.dev/schedule"
"""Label: the schedule that a run belongs to."""
QUEUE = "kueue.x-k8s.io/queue-name"
"""Label: Kueue's local queue, which alone may suspend the run."""
LIFE = "eoray.dev/life-seconds"
"""Annotation of a disruption budget: how long its run may last."""
CANCELLED = "eoray.dev/cancelled"
"""Annotation: when and by whom the run was cancelled."""
RECORD = "eoray.dev/record"
"""Annotation: where the attempt's record lies, beside the outputs."""
SUBMISSION = "eoray.dev/submission"
"""Annotation: tells an attempt from one that had its name before and was deleted."""
STORAGE = "eoray.dev/storage"
"""Annotation: how that bucket is reached, where the run file says it."""

MAX_NAME = 47
"""Of a RayJob: KubeRay adds five random letters for cluster, service and Secret."""

_SLUG = 33
"""Letters of a run's own name: eight of the hash, three of the number and two dashes follow."""

_ATTEMPT = re.compile(r"(?P<key>[a-z][-a-z0-9]*-[0-9a-f]{8})-(?P<number>\d{1,3})")


def run_key(config: RunConfig, image: str, stages: Sequence[str] = (), *, work: str = "") -> str:
    """Name a run by what decides its results: run file, image, and the stages that were asked for.

    Args:
        config: The run.
        image: Of its pods.
        stages: What was asked for; () for all.
        work: What is done, where it is not the run itself.

    Returns:
        At most 42 characters, a letter first.
    """
    name = config.name if config.name[0].isalpha() else f"r{config.name}"
    content = "\n".join((config_key(config), image, *([work] if work else []), *stages))
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    end = f"-{work}" if work else ""
    return f"{name[: _SLUG - len(end)].rstrip('-')}{end}-{digest}"


def attempts_folder(config: RunConfig) -> str:
    """Where the attempts of a run leave their records; the layout is ``RunPaths.attempts``'s."""
    return f"{config.store.rstrip('/')}/_eoray/runs/{config_key(config)}/attempts"


def attempt_name(key: str, number: int) -> str:
    """The RayJob of an attempt.

    Raises:
        ConfigError: A run was tried a thousand times.
    """
    if not 1 <= number <= 999:
        raise ConfigError(
            f"attempt {number} of run {key!r} has no name, they end at 999; delete old ones with "
            f"`eoray delete {key}`"
        )
    return f"{key}-{number}"


def split_attempt(name: str) -> tuple[str, int] | None:
    """(key, number) of an attempt's name; None where it is another name."""
    found = _ATTEMPT.fullmatch(name)
    return None if found is None else (found["key"], int(found["number"]))
