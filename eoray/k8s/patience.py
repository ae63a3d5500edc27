"""Follow a run though the server is away for a while: nobody's rights, no answer, another login."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from eoray.errors import ClusterError
from eoray.k8s.client import ForbiddenError, UnknownCallerError, UnreachableError

_RIGHTS_S = 60.0
"""A right that was there is missed for this long before it is said to be gone."""

_AWAY_S = 1800.0
"""So long a server may not answer or not know the caller: an upgrade, an expired login."""

_POLL_S = 2.0
_MOST_S = 16.0
"""Between two questions, as a rule and at most: a login program is not called all the time."""

_GOES_ON = "the run goes on, and so does this when there is an answer"


class Patience:
    """Bears with a server that has answered before."""

    def __init__(
        self, tell: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with a server that has not answered yet.

        Args:
            tell: Called once when answers stay away, and once when they are back.
            clock: Seconds.
        """
        self._tell, self._clock = tell, clock
        self._answered: float | None = None
        self._misses = 0
        self._told: type[ClusterError] | None = None

    @property
    def pause_s(self) -> float:
        """Until the next question."""
        return min(_MOST_S, _POLL_S * 2.0 ** max(0, self._misses - 1))

    @contextmanager
    def bear(self) -> Iterator[None]:
        """Pass over what is no answer; whoever asks looks again later.

        Raises:
            ClusterError: There has been no answer at all, or none for too long.
        """
        try:
            yield
        except (ForbiddenError, UnknownCallerError, UnreachableError) as error:
            # an API server that starts again knows nobody's rights at first
            limit = _RIGHTS_S if isinstance(error, ForbiddenError) else _AWAY_S
            if self._answered is None or self._clock() - self._answered > limit:
                raise
            self._miss(error)
        else:
            self._answer()

    def _miss(self, error: ClusterError) -> None:
        self._misses += 1
        line = f"{error}; {_GOES_ON}"
        # a server that restarts within seconds is not worth a word
        if self._misses > 1 and self._told is not type(error):
            self._tell(line)
            self._told = type(error)

    def _answer(self) -> None:
        now = self._clock()
        if self._told and self._answered is not None:
            self._tell(f"the Kubernetes API answers again after {now - self._answered:.0f} s")
        self._answered, self._misses, self._told = now, 0, None
