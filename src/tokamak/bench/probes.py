"""The limits of this machine, measured: memory bandwidth and int8 multiply-adds per second.

Both are native loops over what a kernel would touch, with nothing else in them, so that a share of them says
how much is left. They are measured in the run whose results they scale, because clocks and neighbours change.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass

from tokamak import _native

# Larger than any cache that one process has to itself; small machines still have it free.
READ_NBYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What the machine could do in this run."""

    threads: int
    isa: str  # instruction set of the int8 probe
    read_bytes_s: float  # median over passes
    int8_macs_s: float  # median over passes; one multiply-add counts once
    read_samples: tuple[float, ...]  # bytes per second of each pass
    int8_samples: tuple[float, ...]  # multiply-adds per second of each pass

    def facts(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)


def isas() -> list[str]:
    """Instruction sets with a probe that runs here, weakest first."""
    return list(_native.probe_isas())


def measure(threads: int, isa: str | None = None, repeats: int = 5, nbytes: int | None = None) -> Limits:
    """Measure both limits with `threads` threads; about half a second.

    isa: None for the best that runs here. nbytes: memory read per pass, None for READ_NBYTES.
    Raises: InvalidParams, UnavailableError (the processor lacks `isa`), CapacityError.
    """
    name = isa or isas()[-1]
    size = READ_NBYTES if nbytes is None else nbytes
    reads = tuple(size / s for s in _native.probe_read_seconds(threads, size, repeats))
    rates = tuple(_native.probe_int8_rates(name, threads, repeats))
    return Limits(threads, name, statistics.median(reads), statistics.median(rates), reads, rates)
