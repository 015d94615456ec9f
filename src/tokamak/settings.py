"""Every setting of tokamak, once: an argument wins over the environment, the environment over the default.

The environment is read when `Settings.load` is called, never at import. Only the variables of `VARIABLES`
exist; a value that is not understood is an error, not a default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokamak.errors import InvalidParams

VARIABLES = {
    "TOKAMAK_ISA": "instruction set of the CPU kernels: scalar, avx2, avx512vnni, ... (default: the best here)",
    "TOKAMAK_THREADS": "threads of a program (default: the CPUs this process may use)",
    "TOKAMAK_CACHE_DIR": "where downloads and caches live (default: ~/.cache/tokamak)",
    "TOKAMAK_OFFLINE": "1: never touch the network",
    "TOKAMAK_LOG": "debug, info, warning or error (default: warning)",
    "HF_TOKEN": "token for a hub",
    "HF_ENDPOINT": "address of a hub (default: https://huggingface.co)",
}
LOG_LEVELS = ("debug", "info", "warning", "error")
MAX_THREADS = 1024

_TRUE = ("1", "true", "yes")
_FALSE = ("0", "false", "no")


def truth(text: str, name: str) -> bool:
    """1, true and yes are True; 0, false and no are False, in any case of letters.

    Raises: InvalidParams for everything else, the empty string too; the message has `name`.
    """
    lowered = text.lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise InvalidParams(f"{name}={text!r} is neither yes nor no; use 1, true, yes, 0, false or no")


def thread_count(text: str, name: str) -> int:
    """A decimal number of threads in [1, 1024].

    Raises: InvalidParams naming `name`.
    """
    count = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 1 <= count <= MAX_THREADS:
        raise InvalidParams(f"{name}={text!r} is not a number of threads from 1 to {MAX_THREADS}")
    return count


def cgroup_cpus(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """CPUs that the control group of this process grants (quota / period), None for no limit.

    root: where the control groups are mounted; version 2 is asked first, then version 1.
    """
    try:
        quota, period = (root / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None  # "max" in version 2, -1 in version 1
    return int(quota) / int(period)


def available_cpus() -> int:
    """CPUs this process may run on: the affinity mask, cut to the whole CPUs of the control group; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_cpus()
    return max(1, allowed if quota is None else min(allowed, int(quota)))


@dataclass(frozen=True, slots=True)
class Settings:
    """What an argument or the environment said, checked."""

    threads: int  # in [1, 1024]
    isa: str | None  # forced instruction set, None: the best that runs here
    cache_dir: Path
    offline: bool
    log: str  # one of LOG_LEVELS
    hf_token: str | None
    hf_endpoint: str  # without a trailing slash

    @classmethod
    def load(
        cls,
        *,
        threads: int | None = None,
        isa: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        offline: bool | None = None,
        log: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        """Settings from arguments (None: not given), then from `environ` (default: os.environ), then defaults.

        An empty variable counts as absent, as `FOO= command` means it. Raises: InvalidParams.
        """
        env = os.environ if environ is None else environ
        if threads is not None:
            num_threads = thread_count(str(threads), "threads")
        elif env.get("TOKAMAK_THREADS"):
            num_threads = thread_count(env["TOKAMAK_THREADS"], "TOKAMAK_THREADS")
        else:
            num_threads = available_cpus()
        level = log or env.get("TOKAMAK_LOG") or "warning"
        if level not in LOG_LEVELS:
            raise InvalidParams(f"TOKAMAK_LOG={level!r} is none of {', '.join(LOG_LEVELS)}")
        if offline is None:
            text = env.get("TOKAMAK_OFFLINE")
            offline = truth(text, "TOKAMAK_OFFLINE") if text else False
        folder = cache_dir or env.get("TOKAMAK_CACHE_DIR") or Path.home() / ".cache" / "tokamak"
        return cls(
            threads=num_threads,
            isa=isa or env.get("TOKAMAK_ISA") or None,
            cache_dir=Path(folder),
            offline=offline,
            log=level,
            hf_token=env.get("HF_TOKEN") or None,
            hf_endpoint=(env.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/"),
        )
