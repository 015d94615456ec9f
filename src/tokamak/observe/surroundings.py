"""What around a program decides its speed: caches, memory nodes, huge pages, clocks, swap, limits of the process.

Read from the system when asked; what it does not tell is None.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from tokamak import _native

SYS, PROC = Path("/sys"), Path("/proc")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_LIMITS = {  # names in /proc/self/limits
    "address_space_nbytes": "Max address space",
    "locked_nbytes": "Max locked memory",
    "open_files": "Max open files",
    "threads": "Max processes",
}


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _chosen(text: str | None) -> str | None:
    """The word in brackets of "always [madvise] never"."""
    found = re.search(r"\[(.+?)\]", text or "")
    return found[1] if found else None


def _meminfo(text: str | None, name: str, unit: int = 1024) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+)", text or "", re.MULTILINE)
    return int(found[1]) * unit if found else None


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache of CPU 0."""

    level: int
    kind: str  # Data, Instruction, Unified
    nbytes: int
    cpus: int  # that share it

    @classmethod
    def at(cls, folder: Path) -> Cache | None:
        """From /sys/devices/system/cpu/cpu0/cache/indexN, None if it says too little."""
        level, kind, size = (_read(folder / name) for name in ("level", "type", "size"))
        found = re.fullmatch(r"(\d+)([KMG]?)", size or "")
        if not (level and level.isdigit() and kind and found):
            return None
        shared = _native.cpu_list(_read(folder / "shared_cpu_list") or "")
        return cls(int(level), kind, int(found[1]) * _UNITS[found[2]], max(1, len(shared)))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """See the module."""

    caches: tuple[Cache, ...]
    memory_nodes: tuple[int, ...]  # (0,): a single node
    huge_pages: str | None  # transparent ones: always, madvise, never
    huge_page_defrag: str | None
    huge_page_nbytes: int | None  # of the whole system in transparent huge pages now
    reserved_huge_pages: int | None  # of the pool that mmap(MAP_HUGETLB) draws from; tokamak does not
    governor: str | None  # of CPU 0's clock; None where the hypervisor keeps it to itself
    swap_nbytes: int | None
    swap_free_nbytes: int | None
    swappiness: int | None
    overcommit: int | None  # 0 heuristic, 1 always, 2 never beyond the limit
    limits: dict[str, int | None]  # of this process; None: unlimited

    @classmethod
    def here(cls, sys: Path = SYS, proc: Path = PROC) -> Surroundings:
        """Those of this process, now."""
        cpu0, pages = sys / "devices/system/cpu/cpu0", sys / "kernel/mm/transparent_hugepage"
        found = (Cache.at(folder) for folder in sorted((cpu0 / "cache").glob("index*")))
        meminfo = _read(proc / "meminfo")
        swappiness, overcommit = (_read(proc / "sys/vm" / n) for n in ("swappiness", "overcommit_memory"))
        return cls(
            caches=tuple(cache for cache in found if cache is not None),
            memory_nodes=tuple(_native.memory_nodes()),
            huge_pages=_chosen(_read(pages / "enabled")),
            huge_page_defrag=_chosen(_read(pages / "defrag")),
            huge_page_nbytes=_meminfo(meminfo, "AnonHugePages"),
            reserved_huge_pages=_meminfo(meminfo, "HugePages_Total", 1),
            governor=_read(cpu0 / "cpufreq/scaling_governor"),
            swap_nbytes=_meminfo(meminfo, "SwapTotal"),
            swap_free_nbytes=_meminfo(meminfo, "SwapFree"),
            swappiness=int(swappiness) if swappiness and swappiness.isdigit() else None,
            overcommit=int(overcommit) if overcommit and overcommit.isdigit() else None,
            limits=_limits(_read(proc / "self/limits") or ""),
        )

    def facts(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """(what, in words) for people."""
        caches = [
            f"L{c.level} {c.kind.lower()} {c.nbytes >> 10} KiB for {c.cpus} CPU(s)" for c in self.caches
        ]
        nodes = (
            "a single node"
            if len(self.memory_nodes) == 1
            else f"{len(self.memory_nodes)}; weights are spread over them"
        )
        swap = f"{self.swap_nbytes >> 20} MiB, swappiness {self.swappiness}" if self.swap_nbytes else "none"
        held = f", {self.huge_page_nbytes >> 20} MiB in use" if self.huge_page_nbytes is not None else ""
        limits = ", ".join(f"{name} {'unlimited' if v is None else v}" for name, v in self.limits.items())
        return [
            ("caches", "; ".join(caches) or "unknown"),
            ("memory nodes", nodes),
            (
                "huge pages",
                f"{self.huge_pages or 'unknown'} (defrag {self.huge_page_defrag or 'unknown'}){held}",
            ),
            ("governor", self.governor or "not told by the system"),
            ("swap", swap),
            ("limits", limits or "unknown"),
        ]


def _limits(text: str) -> dict[str, int | None]:
    """Soft limits by our names; those the text lacks are left out."""
    found = {}
    for name, label in _LIMITS.items():
        match = re.search(rf"^{label}\s+(\S+)", text, re.MULTILINE)
        if match and (match[1] == "unlimited" or match[1].isdigit()):
            found[name] = None if match[1] == "unlimited" else int(match[1])
    return found
