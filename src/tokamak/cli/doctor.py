"""`tokamak doctor`: what this machine has, and what tokamak makes of it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from tokamak.cli.console import human_nbytes, print_json
from tokamak.observe.machine import Machine, memory_now
from tokamak.observe.surroundings import Surroundings
from tokamak.settings import VARIABLES, Settings

SUMMARY = "Say what this machine has (CPU, memory, limits, accelerators) and what tokamak chose and why."
EXAMPLES = """  tokamak doctor
  tokamak doctor --json
"""
SECRET = ("HF_TOKEN",)


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """Nothing beyond the common options."""


def accelerators() -> list[dict[str, object]]:
    """Devices that a model could run on besides the CPU, each with whether it is used and why not."""
    device = Path("/dev/nvidia0").exists()
    seen = "an NVIDIA device is present" if device else "no NVIDIA device (/dev/nvidia0 is absent)"
    return [{"name": "cuda", "available": False, "why": f"this version has no CUDA executor; {seen}"}]


def variables(environ: Mapping[str, str]) -> dict[str, str | None]:
    """The variables tokamak reads, as they are set; secrets are shown as set or not."""
    values = {name: environ.get(name) for name in VARIABLES}
    return {name: "(set)" if value and name in SECRET else value for name, value in values.items()}


def kernels(settings: Settings) -> dict[str, object]:
    """Instruction sets with kernels that run here, the one in use and why."""
    from tokamak import _native

    here = list(_native.isas())
    if settings.isa is None:
        why = "the best that this processor and its operating system run"
    else:
        why = f"TOKAMAK_ISA={settings.isa}"
    return {"isa": _native.isa(), "why": why, "available": here}


def findings(threads: int) -> dict[str, object]:
    """Everything doctor knows, as plain data."""
    return {
        "machine": Machine.here().facts(),
        "surroundings": Surroundings.here().facts(),
        "memory": memory_now(),
        "threads": threads,
        "kernels": kernels(Settings.load()),
        "accelerators": accelerators(),
        "cache_dir": str(Settings.load().cache_dir),
        "environment": variables(os.environ),
    }


def lines(found: Mapping[str, object], machine: Machine) -> list[str]:
    """The findings for people."""
    quota = "no quota" if machine.cpu_quota is None else f"a quota of {machine.cpu_quota:g}"
    total, now = machine.memory_nbytes, memory_now()
    limit = machine.memory_limit_nbytes
    memory = f"{human_nbytes(total)} in all" if total else "unknown"
    memory += f", {human_nbytes(now['available_nbytes'])} free" if now["available_nbytes"] else ""
    memory += f", limited to {human_nbytes(limit)} by the control group" if limit else ""
    rows = [
        ("system", machine.system),
        ("cpu", machine.cpu or "unknown"),
        ("features", " ".join(machine.features) or "unknown"),
        ("cpus", f"{machine.allowed_cpus} usable of {machine.cpus}, {quota}"),
        ("threads", f"{found['threads']} (--threads, TOKAMAK_THREADS, else the usable CPUs)"),
        ("memory", memory),
        *Surroundings.here().lines(),
    ]
    chosen = kernels(Settings.load())
    rows.append(("kernels", f"{chosen['isa']}: {chosen['why']}"))
    rows.append(("instruction sets", " ".join(map(str, cast("list[str]", chosen["available"])))))
    rows += [(str(a["name"]), f"not used: {a['why']}") for a in accelerators()]
    rows += [
        (
            "versions",
            f"tokamak {machine.tokamak}, commit {machine.commit or 'unknown'}, Python {machine.python}",
        ),
        ("cache", str(found["cache_dir"])),
    ]
    rows += [(name, value) for name, value in variables(os.environ).items() if value]
    return [f"{name:<18}{value}" for name, value in rows]


def execute(args: argparse.Namespace) -> int:
    """Print the findings."""
    found = findings(args.threads)
    if args.json:
        print_json(found)
    else:
        print("\n".join(lines(found, Machine.here())))
    return 0
