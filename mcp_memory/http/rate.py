"""How many requests a token may send: so many at once, filled up evenly over a minute.

Pure arithmetic: the caller has the clock.
"""

from __future__ import annotations

from typing import Final

_MINUTE_SECONDS: Final = 60.0


class Rate:
    """The requests of one token.

    The generic cell rate algorithm: one number a token, no thread, and the time
    to wait comes out exactly, for `Retry-After`.

    Args:
        per_minute: Requests that are taken at once, and in a minute on average.
    """

    def __init__(self, per_minute: int) -> None:
        self._interval = _MINUTE_SECONDS / per_minute
        self._paid_until = 0.0

    def wait_seconds(self, now_seconds: float) -> float:
        """Count a request and return 0, or the seconds after which it would be taken.

        A request that has to wait is not counted.
        """
        paid_until = max(self._paid_until, now_seconds) + self._interval
        over = paid_until - now_seconds - _MINUTE_SECONDS
        # Less than a microsecond is what adding up has rounded away.
        if over > 1e-6:
            return over
        self._paid_until = paid_until
        return 0.0
