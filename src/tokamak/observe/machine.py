"""What this machine is: the facts that belong beside every measurement.

Read from the system when asked, never cached, never guessed: what a system does not tell is None.
"""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from tokamak import __version__
from tokamak.settings import available_cpus, cgroup_cpus

# Features that decide which kernels can run, as /proc/cpuinfo spells them.
CPU_FEATURES = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_int8", "asimd", "asimddp", "i8mm", "sve", "sve2"),
)


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _field(text: str, name: str) -> str | None:
    """First value of `name : value` lines."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _kilobytes(text: str, name: str) -> int | None:
    value = _field(text, name)
    return int(value.split()[0]) * 1024 if value else None


def _limit(path: str) -> int | None:
    """A control group limit in bytes; None for "max" and for absent files."""
    text = _read(path).strip()
    return int(text) if text.isdigit() and int(text) < 1 << 60 else None


@cache
def commit() -> str | None:
    """The git commit of a source checkout with "+" for local changes; None for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists() or not (root / "pyproject.toml").exists():
        return None

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 fixed words
        return done.stdout.strip()

    try:
        dirty = "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "--short=12", "HEAD") + dirty
    except (OSError, subprocess.SubprocessError):
        return None


@dataclass(frozen=True, slots=True)
class Machine:
    """The fingerprint of a machine and of this build."""

    system: str  # "Linux-6.1-x86_64"
    cpu: str | None  # brand
    features: tuple[str, ...]  # of CPU_FEATURES
    cpus: int  # that the system has
    allowed_cpus: int  # that this process may use: affinity cut by quota
    cpu_quota: float | None  # of the control group, None: none
    memory_nbytes: int | None
    memory_limit_nbytes: int | None  # of the control group
    huge_pages: str | None  # transparent huge pages: always, madvise, never
    python: str
    tokamak: str
    commit: str | None

    @classmethod
    def here(cls) -> Machine:
        """The facts of this machine, now."""
        cpuinfo, meminfo = _read("/proc/cpuinfo"), _read("/proc/meminfo")
        flags = set((_field(cpuinfo, "flags") or _field(cpuinfo, "Features") or "").split())
        choices = _read("/sys/kernel/mm/transparent_hugepage/enabled")
        return cls(
            system=platform.platform(terse=True) + "-" + platform.machine(),
            cpu=_field(cpuinfo, "model name") or platform.processor() or None,
            features=tuple(name for name in CPU_FEATURES if name in flags),
            cpus=os.cpu_count() or 1,
            allowed_cpus=available_cpus(),
            cpu_quota=cgroup_cpus(),
            memory_nbytes=_kilobytes(meminfo, "MemTotal"),
            memory_limit_nbytes=_limit("/sys/fs/cgroup/memory.max"),
            huge_pages=choices.partition("[")[2].partition("]")[0] or None,
            python=platform.python_version(),
            tokamak=__version__,
            commit=commit(),
        )

    def facts(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)

    def line(self) -> str:
        """One line for the head of a table."""
        build = f"tokamak {self.tokamak}" + (f" ({self.commit})" if self.commit else "")
        return f"{self.cpu}, {self.allowed_cpus} of {self.cpus} CPUs, {self.system}, {build}"


def peak_nbytes() -> int | None:
    """The most that was resident of this process, in bytes."""
    return _kilobytes(_read("/proc/self/status"), "VmHWM")


def memory_now() -> dict[str, int | None]:
    """Bytes of this process: resident, peak resident, and of them in transparent huge pages; and free memory."""
    status, smaps = _read("/proc/self/status"), _read("/proc/self/smaps_rollup")
    return {
        "resident_nbytes": _kilobytes(status, "VmRSS"),
        "peak_nbytes": _kilobytes(status, "VmHWM"),
        "huge_page_nbytes": _kilobytes(smaps, "AnonHugePages"),
        "available_nbytes": _kilobytes(_read("/proc/meminfo"), "MemAvailable"),
    }
