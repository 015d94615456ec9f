"""Where two programs of the same graph part: every intermediate of both, compared in the order of execution.

The programs may come from different executors or cache types. The graph is the one both were compiled from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from tokamak.errors import InvalidParams
from tokamak.ir.graph import Graph
from tokamak.types import Batch, Floats, Program


@dataclass(frozen=True, slots=True)
class Difference:
    """One value of the graph in both programs.

    error: rms(a - b) / rms(b), 0 where both are zero everywhere. worst: max|a - b| / rms(b).
    """

    name: str
    op: str
    error: float
    worst: float

    def facts(self) -> dict[str, object]:
        """Plain data for JSON; what is not finite becomes None."""
        return {k: v if isinstance(v, str) or np.isfinite(v) else None for k, v in asdict(self).items()}


def one_sequence(token_ids: Sequence[int], block_size: int) -> Batch:
    """A step that reads `token_ids` from position 0 into blocks 0, 1, ... and wants every row's logits.

    Raises: InvalidParams for no tokens.
    """
    if not token_ids:
        raise InvalidParams("no tokens to compare on; give a text of at least one token")
    n = len(token_ids)
    rows = np.arange(n, dtype=np.int32)
    blocks = np.arange(-(-n // block_size), dtype=np.int32)
    return Batch(
        token_ids=np.asarray(token_ids, dtype=np.int32),
        positions=rows,
        slots=rows,
        starts=np.array([0, n], dtype=np.int32),
        lengths=np.array([n], dtype=np.int32),
        tables=blocks[None, :],
        logit_rows=rows,
    )


def difference(a: Floats, b: Floats) -> tuple[float, float]:
    """(rms(a - b) / rms(b), max|a - b| / rms(b)); infinite where only one of them is finite or zero."""
    wide_a, wide_b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    if not (np.isfinite(wide_a).all() and np.isfinite(wide_b).all()):
        return (0.0, 0.0) if np.array_equal(wide_a, wide_b, equal_nan=True) else (np.inf, np.inf)
    gap = np.abs(wide_a - wide_b)
    scale = float(np.sqrt(np.mean(wide_b * wide_b)))
    if not gap.any():
        return 0.0, 0.0
    if scale == 0.0:
        return np.inf, np.inf
    return float(np.sqrt(np.mean(gap * gap))) / scale, float(gap.max()) / scale


def compare(graph: Graph, a: Program, b: Program, token_ids: Sequence[int]) -> list[Difference]:
    """Every value that both programs tap, in the order of execution. Raises: InvalidParams for no tokens."""
    batch = one_sequence(token_ids, a.limits.block_size)
    taps_a, taps_b = a.taps(batch), b.taps(batch)
    found = []
    for node in graph.nodes:
        for value in node.outputs:
            if value.name in taps_a and value.name in taps_b:
                error, worst = difference(taps_a[value.name], taps_b[value.name])
                found.append(Difference(value.name, node.op, error, worst))
    return found
