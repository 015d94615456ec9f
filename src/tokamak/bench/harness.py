"""How a measurement is taken: warm up, repeat, keep every sample, state median and spread.

Nothing here knows what is measured; suites.py does.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from tokamak.errors import InvalidParams


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition: how much was done in how long."""

    amount: float  # tokens, bytes, ...: counted by the code under test
    seconds: float

    @property
    def rate(self) -> float:
        """Amount per second."""
        return self.amount / self.seconds


@dataclass(frozen=True, slots=True)
class Series:
    """All repetitions of one measurement, in order."""

    name: str
    unit: str  # of the rate: "tok/s"
    samples: tuple[Sample, ...]

    @property
    def median(self) -> float:
        """Median of the rates."""
        return statistics.median(s.rate for s in self.samples)

    @property
    def spread(self) -> float:
        """(fastest - slowest) / median: what one more run may differ by."""
        rates = [s.rate for s in self.samples]
        return (max(rates) - min(rates)) / self.median

    def facts(self) -> dict[str, object]:
        """Plain data for JSON: the summary and every sample."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "spread": self.spread,
            "samples": [{"amount": s.amount, "seconds": s.seconds} for s in self.samples],
        }


def repeat(
    name: str,
    work: Callable[[], Sample],
    *,
    repeats: int,
    warmups: int = 1,
    unit: str = "tok/s",
    watch: Callable[[str, int, int], None] | None = None,
) -> Series:
    """Run `work` `warmups` times for nothing, then `repeats` times for the record.

    work: does the thing once and says how much it did in how long (it times only what counts).
    watch: called as watch(name, done, repeats). Raises: InvalidParams for repeats below 1 or work without time.
    """
    if repeats < 1 or warmups < 0:
        raise InvalidParams(f"{name}: repeats is {repeats} and warmups {warmups}; at least 1 and 0")
    for _ in range(warmups):
        work()
    samples = []
    for done in range(repeats):
        sample = work()
        if not (sample.seconds > 0 and sample.amount > 0):
            raise InvalidParams(f"{name}: {sample.amount} in {sample.seconds} s cannot be a rate")
        samples.append(sample)
        if watch is not None:
            watch(name, done + 1, repeats)
    return Series(name, unit, tuple(samples))


def timed(work: Callable[[], float]) -> Sample:
    """Time `work`, which returns the amount it did."""
    start = perf_counter()
    amount = work()
    return Sample(amount, perf_counter() - start)
