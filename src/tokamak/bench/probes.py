"""The limits of this machine, measured: memory bandwidth and int8 multiply-adds per second.

Memory is read where it counts, in the pages that hold the weights: how fast pages are depends on where the system put
them, by a fifth from one process to the next on a virtual machine. Without a program a buffer stands for them.

Both are native loops over what a kernel would touch, with nothing else in them, so that a share of them says
how much is left. They are measured in the run whose results they scale, because clocks and neighbours change.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass

from tokamak import _native
from tokamak.types import Program

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
    read_from: str = "a buffer"  # or "the weights"

    def facts(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)


def isas() -> list[str]:
    """Instruction sets with a probe that runs here, weakest first."""
    return list(_native.probe_isas())


def measure(
    threads: int,
    isa: str | None = None,
    repeats: int = 5,
    nbytes: int | None = None,
    program: Program | None = None,
) -> Limits:
    """Measure both limits with `threads` threads; about half a second.

    isa: None for the best that runs here. nbytes: of the buffer, None for READ_NBYTES. program: whose weights are read
    instead, if they lie in memory of its own and fill a quarter of READ_NBYTES, so that no cache holds them.
    Raises: InvalidParams, UnavailableError (the processor lacks `isa`), CapacityError.
    """
    name = isa or isas()[-1]
    size = READ_NBYTES if nbytes is None else nbytes
    reads = weights_rates(program, threads, repeats)
    place = "the weights" if reads else "a buffer"
    reads = reads or tuple(size / s for s in _native.probe_read_seconds(threads, size, repeats))
    rates = tuple(_native.probe_int8_rates(name, threads, repeats))
    return Limits(threads, name, statistics.median(reads), statistics.median(rates), reads, rates, place)


def weights_rates(program: Program | None, threads: int, repeats: int) -> tuple[float, ...]:
    """Bytes per second of each pass over a program's own weights; none where that says nothing about memory."""
    read_rates = getattr(program, "read_rates", None)  # of the cpu executor
    if program is None or read_rates is None or program.memory()["weights"] < READ_NBYTES // 4:
        return ()
    rates: tuple[float, ...] = read_rates(threads, repeats)
    return rates
