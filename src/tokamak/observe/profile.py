"""Where the time of a run went: per op and kernel, with bytes, multiply-adds and shares of the machine's limits.

Times come from `Program.records()`, counted around every instruction by the code that ran it. What is left of the
wall time is the engine: scheduling, batches, sampling, text. So the rows add up to all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tokamak.errors import InvalidParams
from tokamak.types import KernelRecord

ENGINE = "engine"


@dataclass(frozen=True, slots=True)
class Row:
    """One op with one kernel."""

    op: str  # "linear"; "engine" for what is no instruction
    kernel: str  # "linear.q4_k.avx2"
    calls: int
    seconds: float
    share: float  # of the wall time
    nbytes: int  # weights and cache read
    macs: int  # multiply-adds with weight matrices
    bandwidth: float  # bytes per second as a share of the measured read bandwidth
    arithmetic: float  # multiply-adds per second as a share of the measured int8 peak

    def facts(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)


def profile(
    records: Sequence[KernelRecord], wall_s: float, read_bytes_s: float, int8_macs_s: float
) -> tuple[Row, ...]:
    """Rows by falling time, the engine's last; their shares add up to 1.

    records: of one measurement that took `wall_s`. Raises: InvalidParams if the instructions took longer than that,
    which means that the two were not measured together.
    """
    sums: dict[tuple[str, str], list[int]] = {}
    for r in records:
        entry = sums.setdefault((r.op, r.kernel), [0, 0, 0, 0])
        for i, value in enumerate((r.calls, r.nanoseconds, r.nbytes, r.macs)):
            entry[i] += value
    spent = sum(entry[1] for entry in sums.values()) * 1e-9
    if wall_s <= 0 or spent > wall_s:
        raise InvalidParams(f"instructions took {spent:.6f} s of {wall_s:.6f} s; that is not one measurement")

    def row(op: str, kernel: str, calls: int, ns: int, nbytes: int, macs: int) -> Row:
        seconds = ns * 1e-9
        per_s = 1 / seconds if seconds else 0.0
        shares = (nbytes * per_s / read_bytes_s, macs * per_s / int8_macs_s)
        return Row(op, kernel, calls, seconds, seconds / wall_s, nbytes, macs, *shares)

    rows = [row(op, kernel, *entry) for (op, kernel), entry in sums.items()]
    rows.sort(key=lambda r: -r.seconds)
    left = wall_s - spent
    return (*rows, Row(ENGINE, "schedule, batch, sample, text", 0, left, left / wall_s, 0, 0, 0.0, 0.0))
