"""A history adds up, forgets on time, survives a kill, refuses what is no history."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from tokamak.errors import FileRefused, InvalidParams
from tokamak.observe.history import DAY_S, TIERS, History, Tier, slope_per_day

START = 1_700_006_400  # a full hour


@pytest.fixture
def history(tmp_path):
    made = History(tmp_path / "history.sqlite")
    yield made
    made.close()


def test_tiers_hold_the_same_samples(history):
    for i in range(720):
        history.add({"tokens": float(i)}, START + 10 * i)
    for tier in TIERS:
        points = history.read(["tokens"], since=START, until=START + 7200, step_s=tier.step_s)["tokens"]
        assert [p.time for p in points] == list(range(START, START + 7200, tier.step_s))
        assert sum(p.mean * p.count for p in points) == sum(range(720))
        assert (min(p.least for p in points), max(p.greatest for p in points)) == (0, 719)


def test_each_tier_forgets_on_its_own_time(tmp_path):
    history = History(tmp_path / "h", (Tier(10, 100), Tier(100, 1000)))
    for i in range(60):
        history.add({"x": 1.0}, START + 10 * i)
    history.prune(START + 600)
    fine, coarse = (history.read(["x"], since=0, until=START + 1000, step_s=step)["x"] for step in (10, 100))
    assert [p.time for p in fine] == list(range(START + 500, START + 600, 10))
    assert sum(p.count for p in coarse) == 60
    history.close()


def test_the_file_stays_of_one_size(tmp_path):
    history = History(tmp_path / "h", (Tier(10, 1000), Tier(100, 2000)))
    sizes = []
    for i in range(3000):
        history.add({"x": float(i), "y": 1.0}, START + 10 * i)
        if i in (1000, 2999):
            sizes.append(sum(len(history.read(["x"], since=0, step_s=s)["x"]) for s in (10, 100)))
    assert sizes[1] <= 1.5 * sizes[0]
    history.close()


def test_the_finest_tier_that_reaches_back_is_read(history):
    assert [history.tier_for(s).step_s for s in (60, 2 * DAY_S, 30 * DAY_S, 400 * DAY_S)] == [
        10,
        300,
        3600,
        3600,
    ]
    with pytest.raises(InvalidParams, match="step 7"):
        history.read(["x"], since=0, step_s=7)


def test_a_trend_is_the_slope_per_day(history):
    for hour in range(72):
        history.add({"memory": 5.0 + 2.0 * hour / 24}, START + 3600 * hour)
    assert history.trend("memory", now=START + 3600 * 72) == pytest.approx(2.0)
    assert history.trend("absent") is None
    assert slope_per_day([1, 1, 1], [1.0, 2.0, 3.0]) is None


def test_numbers_that_are_not_finite_are_left_out(history):
    history.add({"x": float("nan"), "y": float("inf"), "z": 1.0}, START)
    assert history.names() == ["z"]


def test_threads_and_a_second_process_lose_no_sample(tmp_path):
    path = tmp_path / "h"
    first, second = History(path), History(path)
    threads = [
        threading.Thread(target=lambda h=h: [h.add({"x": 1.0}, START) for _ in range(25)])
        for h in (first, first, second)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert first.read(["x"], since=START, until=START + 10, step_s=10)["x"][0].count == 75
    first.close()
    second.close()


def test_a_kill_loses_no_finished_sample(tmp_path):
    path = tmp_path / "h"
    code = f"""
        from tokamak.observe.history import History
        history = History({str(path)!r})
        for i in range(10_000):
            history.add({{"x": 1.0}}, {START} + 10 * i)
            print(i, flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    ) as child:
        seen = 0
        for line in child.stdout:
            seen = int(line)
            if seen == 40:
                child.send_signal(signal.SIGKILL)
                break
        rest = child.stdout.read().split()
        seen = int(rest[-1]) if rest else seen
    history = History(path)
    assert sum(p.count for p in history.read(["x"], since=START, step_s=3600)["x"]) >= seen + 1
    history.close()


@pytest.mark.parametrize(
    "content", [b"not a database, by far" * 100, b"SQLite format 3\x00" + b"\xff" * 4096]
)
def test_a_file_that_is_no_history_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "h"
    path.write_bytes(content)
    with pytest.raises(FileRefused, match=str(path)):
        History(path)
    assert path.read_bytes() == content
