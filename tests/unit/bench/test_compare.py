"""A comparison finds what got slower and nothing else."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from command import tokamak
from tokamak.bench import compare
from tokamak.errors import CheckFailed

MACHINE = {"cpu": "c", "cpus": 2, "allowed_cpus": 2, "cpu_quota": None, "features": ["avx2"]}


def receipt(rates, case="decode 32 x 1"):
    return {
        "environment": MACHINE,
        "samples": [{"case": case, "tokens": 32, "seconds": 32 / r} for r in rates],
    }


def noisy(rng, level, n=7):
    return list(level * (1 + 0.02 * rng.standard_normal(n)))


def test_a_tenth_lost_is_found_and_nothing_lost_is_not():
    rng = np.random.default_rng(1)
    for _ in range(20):
        base = noisy(rng, 100)
        verdicts = [
            compare.compare(receipt(base), receipt(noisy(rng, level)))[0].verdict for level in (100, 89, 112)
        ]
        assert verdicts == ["same", "slower", "faster"]


def test_a_fall_within_the_noise_is_no_regression():
    wild = [60, 140, 100, 80, 120]
    assert compare.compare(receipt(wild), receipt([r * 0.9 for r in wild]))[0].verdict == "same"


def test_the_chance_is_exact_for_few_samples():
    assert compare.chance([6, 7, 8, 9, 10], [1, 2, 3, 4, 5]) == pytest.approx(1 / 252)  # 10 choose 5 splits
    assert compare.chance([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == 1
    assert compare.chance([1, 1, 1], [1, 1, 1]) == 1
    assert compare.chance(range(100, 150), range(50)) <= 1e-4  # too many splits: drawn


def test_other_machines_and_other_cases_are_refused():
    other = receipt([1, 2, 3]) | {"environment": MACHINE | {"cpus": 8}}
    with pytest.raises(CheckFailed, match="cpus: 2 and 8"):
        compare.compare(receipt([1, 2, 3]), other)
    with pytest.raises(CheckFailed, match="no case in common"):
        compare.compare(receipt([1]), receipt([1], case="prompt 8 x 1"))


def test_reports_can_be_read_by_what_reads_them():
    rows = compare.compare(receipt([100] * 6), receipt([80] * 6))
    suite = ET.fromstring(compare.junit(rows))
    assert suite.attrib["failures"] == "1"
    assert suite.find("testcase/failure") is not None
    assert json.loads(compare.as_json(rows))[0]["verdict"] == "slower"
    assert compare.markdown(rows).count("\n") == 3


def test_the_command_exits_with_5_when_something_got_slower(tmp_path):
    for name, level in (("a", 100), ("b", 80), ("c", 100)):
        (tmp_path / name).write_text(json.dumps(receipt([level + i / 10 for i in range(6)])))
    assert tokamak("bench", "compare", tmp_path / "a", tmp_path / "c").returncode == 0
    done = tokamak("bench", "compare", tmp_path / "a", tmp_path / "b")
    assert done.returncode == 5
    assert "slower than a" in done.stderr
