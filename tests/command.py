"""Runs the command `tokamak` as a user would: its own process, its own pipes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"


def environment(**extra: str) -> dict[str, str]:
    """The environment without TOKAMAK_* and with this checkout first, where it is built in place."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("TOKAMAK_")}
    if list((SOURCE / "tokamak").glob("_native*.so")):
        env["PYTHONPATH"] = str(SOURCE)
    return env | extra


def tokamak(*words: object, stdin: str = "", **extra: str) -> subprocess.CompletedProcess[str]:
    """Run `tokamak WORDS`; extra: environment variables."""
    return subprocess.run(
        [sys.executable, "-m", "tokamak", *map(str, words)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment(**extra),
    )
