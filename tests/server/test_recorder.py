"""What a recorder says is what the counters say."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tokamak.observe.alerts import Alerts, Rule
from tokamak.observe.history import History
from tokamak.server.metrics import Metrics
from tokamak.server.recorder import Recorder, quantile

STATS = {"running": 2, "waiting": 1, "blocks_total": 10, "blocks_held": 4}
STATS |= {"prefix_queried_tokens": 0, "prefix_hit_tokens": 0}


def test_rates_are_differences_over_time():
    metrics, stats = Metrics(), dict(STATS)
    recorder = Recorder(metrics, lambda: stats)
    start = recorder._totals[0].time
    metrics.requests.add("/v1/completions", "200", by=8)
    metrics.requests.add("/v1/completions", "503", by=2)
    metrics.prompt_tokens.add("computed", by=300)
    metrics.generated_tokens.add(by=50)
    stats |= {"prefix_queried_tokens": 400, "prefix_hit_tokens": 100}
    found = recorder.sample(start + 10)
    expected = {
        "requests_per_s": 1.0,
        "error_share": 0.2,
        "prompt_tokens_per_s": 30,
        "generated_tokens_per_s": 5,
    }
    expected |= {
        "running": 2,
        "waiting": 1,
        "kv_used_share": 0.4,
        "prefix_hit_share": 0.25,
        "busy_tokens_per_s": 5,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["memory_nbytes"] > 1e6
    again = recorder.sample(start + 20)
    assert (again["requests_per_s"], again["error_share"], again["generated_tokens_per_s"]) == (0, 0, 0)


def test_percentiles_are_of_the_last_five_minutes():
    metrics = Metrics()
    recorder = Recorder(metrics, lambda: STATS)
    start = recorder._totals[0].time
    assert "ttft_p50_s" not in recorder.sample(start + 10)
    for _ in range(100):
        metrics.ttft.observe(0.03)  # between 0.02 and 0.04
    assert recorder.sample(start + 20)["ttft_p50_s"] == pytest.approx(0.03, abs=0.01)
    for i in range(3, 60):
        latest = recorder.sample(start + 10 * i)
    assert "ttft_p50_s" not in latest


def test_a_quantile_lies_in_its_bucket():
    empty, counts = [0] * 20, [0] * 20
    assert quantile(empty, counts, 0.5) is None
    counts[12], counts[19] = 90, 10  # 90 in (1, 2.5], 10 beyond all bounds
    assert 1.0 < quantile(empty, counts, 0.5) < 2.5
    assert quantile(empty, counts, 0.99) == 80.0


def test_samples_reach_the_history_and_the_alerts(tmp_path):
    heard = []
    history = History(tmp_path / "h")
    alerts = Alerts([Rule("busy", "running", fire=1, clear=1, for_s=0)], [heard.append])
    sampled = threading.Event()
    recorder = Recorder(Metrics(), lambda: STATS, history=history, alerts=alerts, every_s=0.01)
    keep = recorder._keep
    recorder._keep = lambda values: (keep(values), sampled.set())

    async def a_while():
        task = asyncio.create_task(recorder.run())
        await asyncio.to_thread(sampled.wait, 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(a_while())
    assert "generated_tokens_per_s" in history.names()
    assert [event.state for event in heard] == ["firing"]
    recorder.close()


def test_a_history_that_cannot_be_written_is_a_problem_and_no_end(tmp_path):
    history = History(tmp_path / "h")
    recorder = Recorder(Metrics(), lambda: STATS, history=history)
    history.close()
    recorder._keep(recorder.sample())
    assert "cannot be written" in recorder.problem
