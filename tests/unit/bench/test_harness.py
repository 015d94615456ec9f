"""The harness keeps every sample, leaves warm-ups out and states the median."""

from __future__ import annotations

import pytest

from tokamak.bench.harness import Sample, Series, repeat, timed
from tokamak.errors import InvalidParams


def test_warm_ups_are_run_and_left_out():
    calls = []

    def work():
        calls.append(None)
        return Sample(len(calls), 1.0)

    series = repeat("x", work, repeats=3, warmups=2)
    assert [s.amount for s in series.samples] == [3, 4, 5]


def test_median_and_spread_are_of_the_rates():
    series = Series("x", "tok/s", (Sample(10, 1.0), Sample(10, 2.0), Sample(80, 10.0)))
    assert series.median == 8.0
    assert series.spread == (10.0 - 5.0) / 8.0
    assert series.facts()["samples"][1] == {"amount": 10, "seconds": 2.0}


@pytest.mark.parametrize("sample", [Sample(0, 1.0), Sample(1, 0.0), Sample(float("nan"), 1.0)])
def test_work_without_amount_or_time_is_no_measurement(sample):
    with pytest.raises(InvalidParams):
        repeat("x", lambda: sample, repeats=1)


def test_no_repetition_is_refused():
    with pytest.raises(InvalidParams):
        repeat("x", lambda: Sample(1, 1.0), repeats=0)


def test_every_repetition_is_announced():
    seen = []
    repeat("x", lambda: Sample(1, 1.0), repeats=2, watch=lambda *a: seen.append(a))
    assert seen == [("x", 1, 2), ("x", 2, 2)]


def test_timed_returns_what_the_work_did():
    sample = timed(lambda: 7)
    assert (sample.amount, sample.seconds > 0) == (7, True)
