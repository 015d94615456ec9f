"""How much memory there is, and how much a cache takes: what bounds the default context."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

from tokamak.engine.recent import recent_blocks
from tokamak.errors import InvalidParams
from tokamak.ir.graph import Graph, Type, cache_dtype
from tokamak.types import KV_DTYPES

# bytes and elements of the smallest piece of a cache row
_PIECES = {"f32": (4, 1), "f16": (2, 1), "bf16": (2, 1), "q8_0": (34, 32), "q4_0": (18, 32)}


def kv_nbytes_per_token(graph: Graph, kv_dtype: str, block_size: int = 32) -> int:
    """Bytes of cache of one position in all layers, each in the format of `ir.graph.cache_dtype`.

    K and V of an attention are 2 x heads x head_dim numbers; a recurrent state, in float32, is kept once per block of
    `block_size` positions.
    Raises: InvalidParams for a format that is not one of KV_DTYPES.
    """
    if kv_dtype not in KV_DTYPES:
        raise InvalidParams(f"kv_dtype is {kv_dtype!r}; it must be one of {', '.join(KV_DTYPES)}")
    kinds = [v.type for v in graph.states.values()]
    return sum(_position_nbytes(t, kv_dtype, block_size) for t in kinds)


def recent_nbytes_per_token(graph: Graph, kv_dtype: str, block_size: int = 32) -> int:
    """Of those the bytes in layers that keep the latest part of a text only."""
    return sum(_position_nbytes(v.type, kv_dtype, block_size) for v in graph.recent_states())


def _position_nbytes(kind: Type, kv_dtype: str, block_size: int) -> int:
    if kind.dtype != "kv":
        return -(-4 * prod(kind.tail) // block_size)
    nbytes, elements = _PIECES[cache_dtype(kind, kv_dtype)]
    return kind.nrows * -(-prod(kind.tail) // elements) * nbytes


@dataclass(frozen=True, slots=True)
class CacheSize:
    """What texts take in a cache: `whole` bytes per position in layers that keep all of it, `recent` in the others.

    least: positions of the others that one text needs, most: with which no sequence ever lacks any.
    """

    whole: int
    recent: int = 0
    least: int = 0
    most: int = 0

    @classmethod
    def of(cls, graph: Graph, kv_dtype: str, block_size: int, sequences: int, rows: int) -> CacheSize:
        """Of a graph whose steps have at most so many sequences and rows."""
        reach, every = graph.reach(), kv_nbytes_per_token(graph, kv_dtype)
        if reach is None:
            return cls(every)
        recent = recent_nbytes_per_token(graph, kv_dtype)
        least, most = (recent_blocks(reach, block_size, n, rows) * block_size for n in (1, sequences))
        return cls(every - recent, recent, least, most)

    @property
    def nbytes_per_token(self) -> int:
        """Bytes of one position that all layers keep."""
        return self.whole + self.recent

    def nbytes(self, tokens: int) -> int:
        """Bytes of one text."""
        return self.whole * tokens + self.recent * min(tokens, self.least)

    def fits(self, spare: int) -> int:
        """Positions of the longest text that takes at most so many bytes."""
        short = max(0, spare) // self.nbytes_per_token
        if short <= self.least or not self.recent:
            return short
        return (spare - self.recent * self.least) // self.whole if self.whole else 1 << 31

    def recent_tokens(self, tokens: int, spare: int | None) -> int:
        """Positions for layers that look back a limited way beside `tokens` of the others, in so many bytes where it can be."""
        if not self.recent:
            return 0
        most = min(tokens, self.most)
        if spare is not None:
            most = min(most, (spare - self.whole * tokens) // self.recent)
        return max(most, min(tokens, self.least))


def available_nbytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Memory this process may still use: what the system has and the control group leaves, None if unknown.

    Pages of files that the group holds count as free: they are given back when needed.
    """
    candidates = [_meminfo(proc / "meminfo"), _version_2(proc, cgroup), _version_1(cgroup)]
    known = [nbytes for nbytes in candidates if nbytes is not None]
    return max(0, min(known)) if known else None


def total_nbytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Memory this process may use at most: the machine's or its control group's limit, None if unknown."""
    limits = [_meminfo(proc / "meminfo", "MemTotal:"), _number(cgroup / "memory.max")]
    limits.append(_number(cgroup / "memory" / "memory.limit_in_bytes"))
    known = [nbytes for nbytes in limits if nbytes is not None]
    return min(known) if known else None


def _meminfo(path: Path, name: str = "MemAvailable:") -> int | None:
    for line in _lines(path):
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return None


def _version_2(proc: Path, root: Path) -> int | None:
    """Every group from this process's up to the root has a limit of its own; the tightest counts."""
    name = next((line[3:] for line in _lines(proc / "self" / "cgroup") if line.startswith("0::")), "/")
    left = None
    folder = root / name.lstrip("/")
    for group in (folder, *folder.parents):
        if not group.is_relative_to(root):
            break
        limit, used = _number(group / "memory.max"), _number(group / "memory.current")
        if limit is not None and used is not None:
            here = limit - used + _stat(group / "memory.stat", "inactive_file")
            left = here if left is None else min(left, here)
    return left


def _version_1(root: Path) -> int | None:
    group = root / "memory"
    limit, used = _number(group / "memory.limit_in_bytes"), _number(group / "memory.usage_in_bytes")
    if limit is None or used is None or limit >= 2**60:  # how version 1 writes "no limit"
        return None
    return limit - used + _stat(group / "memory.stat", "total_inactive_file")


def _stat(path: Path, name: str) -> int:
    return next((int(line.split()[1]) for line in _lines(path) if line.split()[0] == name), 0)


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
