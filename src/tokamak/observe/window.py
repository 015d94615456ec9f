"""Values of the last so many seconds, for percentiles that a person can act on."""

from __future__ import annotations

import math
from collections import deque

MOST = 65_536  # values held; beyond, the oldest go before their time


class Window:
    """A sliding window over (time, value), times rising."""

    def __init__(self, length_s: float = 300.0) -> None:
        self.length_s = length_s
        self._values: deque[tuple[float, float]] = deque(maxlen=MOST)

    def add(self, value: float, now: float) -> None:
        """One more at `now`."""
        self._values.append((now, value))

    def values(self, now: float) -> list[float]:
        """What is not too old at `now`, in order of arrival."""
        while self._values and self._values[0][0] < now - self.length_s:
            self._values.popleft()
        return [value for _, value in self._values]

    def percentile(self, share: float, now: float) -> float | None:
        """The least value that at least `share` (0..1) of the values are no greater than; None without values."""
        values = sorted(self.values(now))
        return values[max(0, math.ceil(share * len(values)) - 1)] if values else None

    def mean(self, now: float) -> float | None:
        """None without values."""
        values = self.values(now)
        return sum(values) / len(values) if values else None
