"""What the soak calls a leak."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from command import environment

FILE = Path(__file__).resolve().parents[3] / "benchmarks" / "soak.py"
MB = 1 << 20


@pytest.fixture(scope="module")
def soak():
    spec = importlib.util.spec_from_file_location("soak", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module  # where its dataclasses look their names up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["soak"]


def memory(seed: int, leak_nbytes: float, num: int = 400) -> tuple[list[float], list[float]]:
    """Seconds and bytes of a server of 100 MB whose allocator takes and gives back pages, and that loses so much over all."""
    rng = np.random.default_rng(seed)
    pages = np.repeat(rng.integers(-30, 30, num // 10), 10) * 4096.0
    peaks = (rng.random(num) < 0.02) * 8.0 * MB
    return list(np.arange(num) * 3.0), list(100.0 * MB + pages + peaks + np.linspace(0, leak_nbytes, num))


def test_a_leak_of_a_megabyte_is_found_among_steps_and_peaks(soak):
    found = [soak.growth(*memory(seed, 1.5 * MB)) for seed in range(20)]
    assert sum(growth.leaks(MB) for growth in found) >= 18
    assert all(growth.low <= growth.slope <= growth.high for growth in found)


def test_what_stays_where_it_is_does_not_leak(soak):
    assert not any(soak.growth(*memory(seed, 0.0)).leaks(MB / 4) for seed in range(50))


def test_the_interval_of_the_slope_holds_what_was_put_in(soak):
    true = MB / (399 * 3.0)
    found = [soak.growth(*memory(seed, MB)) for seed in range(60)]
    inside = sum(growth.low <= true <= growth.high for growth in found)
    assert inside >= 54  # 57 expected of independent samples


@pytest.mark.skipif(not os.environ.get("TOKAMAK_SLOW_TESTS"), reason="uses servers for a minute")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize(("planted", "code"), [(1 << 18, 5), (0, 0)], ids=["planted", "as it is"])
def test_a_leak_that_is_planted_in_a_server_is_caught(planted, code):
    words = [
        sys.executable,
        FILE,
        "--minutes",
        "0.5",
        "--every",
        "0.1",
        "--limit",
        4 * MB,
        "--plant",
        planted,
    ]
    done = subprocess.run(
        list(map(str, words)), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
