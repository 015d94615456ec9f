"""Runs the command `tokamak` as a user would: its own process, its own pipes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import tokamak as package

SITE = (
    Path(package.__file__).resolve().parents[1]
)  # installed, built in place or instrumented: the same as here

CACHE = tempfile.TemporaryDirectory(prefix="tokamak-tests-")  # nobody's own caches and histories are touched


def environment(**extra: str) -> dict[str, str]:
    """The environment without TOKAMAK_* and with the package under test first."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("TOKAMAK_")}
    return env | {"PYTHONPATH": str(SITE), "TOKAMAK_CACHE_DIR": CACHE.name} | extra


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
