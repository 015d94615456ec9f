"""Every ten seconds: what the server did since the last time, into the history and past the alerts.

Rates are differences of counters; percentiles are read off the differences of histograms over the last five minutes, so they
say what clients feel now and cost nothing per request. Runs on the event loop; the disk is touched in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tokamak.observe.alerts import Alerts
from tokamak.observe.history import History
from tokamak.observe.machine import memory_now
from tokamak.server.metrics import SECONDS, Histogram, Metrics

log = logging.getLogger("tokamak.server")
EVERY_S = 10.0
WINDOW_S = 300.0
SHARES = (("p50", 0.5), ("p95", 0.95))
HISTOGRAMS = ("ttft", "inter_token", "queue", "e2e")


@dataclass(frozen=True, slots=True)
class Totals:
    """The counters at one moment."""

    time: float  # monotonic seconds
    requests: int
    errors: int
    prompt_tokens: int
    generated_tokens: int
    queried_tokens: int
    hit_tokens: int
    histograms: Mapping[str, tuple[int, ...]]


def quantile(before: Sequence[int], after: Sequence[int], share: float) -> float | None:
    """Seconds below which `share` of what came between two states of a histogram lies; None if nothing came.

    Linear inside a bucket, as Prometheus' histogram_quantile; the last bucket counts as its lower bound.
    """
    counts = [b - a for a, b in zip(before, after, strict=True)]
    wanted, seen = share * sum(counts), 0
    if not sum(counts):
        return None
    for i, count in enumerate(counts):
        if count and seen + count >= wanted:
            if i == len(SECONDS):
                return SECONDS[-1]
            low = SECONDS[i - 1] if i else 0.0
            return low + (SECONDS[i] - low) * (wanted - seen) / count
        seen += count
    return SECONDS[-1]


class Recorder:
    """Samples one server. metrics: its counters. stats: the engines' numbers, summed (`LLM.stats`)."""

    def __init__(
        self,
        metrics: Metrics,
        stats: Callable[[], Mapping[str, int | float]],
        *,
        history: History | None = None,
        alerts: Alerts | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        self.metrics, self.stats, self.every_s = metrics, stats, every_s
        self.history, self.alerts = history, alerts or Alerts(())
        self.latest: dict[str, float] = {}
        self.problem: str | None = None  # why the last sample was not kept
        self._first_nbytes = memory_now()["resident_nbytes"] or 0
        self._totals: deque[Totals] = deque([self._now(time.monotonic())])

    def sample(self, now: float | None = None) -> dict[str, float]:
        """Everything since the last sample and over the window, by name of its series. now: monotonic seconds."""
        totals = self._now(time.monotonic() if now is None else now)
        last = self._totals[-1]
        while len(self._totals) > 1 and self._totals[0].time < totals.time - WINDOW_S:
            self._totals.popleft()
        seconds = max(1e-9, totals.time - last.time)
        made = totals.generated_tokens - last.generated_tokens
        requests = totals.requests - last.requests
        found = {
            "requests_per_s": requests / seconds,
            "error_share": (totals.errors - last.errors) / requests if requests else 0.0,
            "prompt_tokens_per_s": (totals.prompt_tokens - last.prompt_tokens) / seconds,
            "generated_tokens_per_s": made / seconds,
            **self._gauges(totals, last),
        }
        if found["running"]:
            found["busy_tokens_per_s"] = made / seconds
        for name in HISTOGRAMS:
            for label, share in SHARES:
                value = quantile(self._totals[0].histograms[name], totals.histograms[name], share)
                if value is not None:
                    found[f"{name}_{label}_s"] = value
        self._totals.append(totals)
        self.latest = found
        return found

    def _gauges(self, totals: Totals, last: Totals) -> dict[str, float]:
        stats, resident = self.stats(), memory_now()["resident_nbytes"]
        found = {"running": float(stats.get("running", 0)), "waiting": float(stats.get("waiting", 0))}
        if stats.get("blocks_total"):
            found["kv_used_share"] = stats["blocks_held"] / stats["blocks_total"]
        queried = totals.queried_tokens - last.queried_tokens
        if queried:
            found["prefix_hit_share"] = (totals.hit_tokens - last.hit_tokens) / queried
        if resident is not None:
            found |= {
                "memory_nbytes": float(resident),
                "memory_growth_nbytes": float(resident - self._first_nbytes),
            }
        return found

    def _now(self, now: float) -> Totals:
        m, stats = self.metrics, self.stats()
        histograms: dict[str, Histogram] = {name: getattr(m, name) for name in HISTOGRAMS}
        return Totals(
            time=now,
            requests=sum(m.requests.values.values()),
            errors=sum(n for key, n in m.requests.values.items() if key[-1].startswith("5")),
            prompt_tokens=sum(m.prompt_tokens.values.values()),
            generated_tokens=sum(m.generated_tokens.values.values()),
            queried_tokens=int(stats.get("prefix_queried_tokens", 0)),
            hit_tokens=int(stats.get("prefix_hit_tokens", 0)),
            histograms={name: tuple(h.counts) for name, h in histograms.items()},
        )

    async def run(self) -> None:
        """Sample until cancelled. A full disk is a problem that health reports, not an end."""
        while True:
            await asyncio.sleep(self.every_s)
            values = self.sample()
            await asyncio.to_thread(self._keep, values)

    def _keep(self, values: Mapping[str, float]) -> None:
        self.alerts.evaluate(values, time.time())
        if self.history is None:
            return
        try:
            self.history.add(values)
            self.problem = None
        except sqlite3.Error as error:
            if self.problem is None:
                log.warning("the history cannot be written: %s", error)
            self.problem = f"cannot be written: {error}"

    def close(self) -> None:
        """Close the history."""
        if self.history is not None:
            with contextlib.suppress(sqlite3.Error):
                self.history.close()
