"""What a server measured, over time: one SQLite file of fixed size that survives a kill.

Every sample goes into three tiers in one transaction: as it came, in minutes of five, in hours. A tier keeps its rows for its
own time, so the file stays of one size while the hours reach back 90 days. A row holds count, sum, least and greatest,
which add up exactly from tier to tier; two processes that write one file add to the same rows.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokamak.errors import FileRefused, InvalidParams

DAY_S = 86_400
_SCHEMA_VERSION = 1
_CREATE = """
CREATE TABLE IF NOT EXISTS samples (
  step INTEGER NOT NULL, name TEXT NOT NULL, time INTEGER NOT NULL,
  count INTEGER NOT NULL, sum REAL NOT NULL, least REAL NOT NULL, greatest REAL NOT NULL,
  PRIMARY KEY (step, name, time)
) WITHOUT ROWID
"""
_ADD = """
INSERT INTO samples VALUES (?, ?, ?, 1, ?, ?, ?)
ON CONFLICT DO UPDATE SET count = count + 1, sum = sum + excluded.sum,
  least = min(least, excluded.least), greatest = max(greatest, excluded.greatest)
"""


@dataclass(frozen=True, slots=True)
class Tier:
    """Rows of `step_s` seconds, kept for `keep_s` seconds."""

    step_s: int
    keep_s: int


TIERS = (Tier(10, DAY_S), Tier(300, 7 * DAY_S), Tier(3600, 90 * DAY_S))


@dataclass(frozen=True, slots=True)
class Point:
    """One row. time: Unix seconds at its beginning. mean, least, greatest: of the samples in it."""

    time: int
    mean: float
    least: float
    greatest: float
    count: int


class History:
    """The samples of one file. Safe to call from several threads."""

    def __init__(self, path: str | os.PathLike[str], tiers: tuple[Tier, ...] = TIERS) -> None:
        """Open or create. tiers: finest first.  Raises: FileRefused for a file that is no history."""
        self.path, self.tiers = Path(path), tiers
        self._lock = threading.Lock()
        self._pruned = 0.0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(self.path, timeout=5.0, check_same_thread=False, isolation_level=None)
            self._open()
        except sqlite3.DatabaseError as error:
            text = (
                f"{self.path}: is not a history that can be opened ({error}); move it away to begin a new one"
            )
            raise FileRefused(text) from error

    def _open(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _SCHEMA_VERSION):
            raise sqlite3.DatabaseError(f"its version is {version}, not {_SCHEMA_VERSION}")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(_CREATE)
        self._db.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")

    def add(self, values: Mapping[str, float], now: float | None = None) -> None:
        """One sample of each name at `now` (default: this moment), in all tiers or in none. Not finite: left out."""
        at = time.time() if now is None else now
        rows = [
            (tier.step_s, name, int(at // tier.step_s) * tier.step_s, value, value, value)
            for tier in self.tiers
            for name, value in values.items()
            if np.isfinite(value)
        ]
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(_ADD, rows)
        if at - self._pruned >= self.tiers[0].step_s * 30:
            self.prune(at)

    def prune(self, now: float) -> int:
        """Delete what is older than its tier keeps; returns the number of rows."""
        self._pruned = now
        deleted = 0
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for tier in self.tiers:
                done = self._db.execute(
                    "DELETE FROM samples WHERE step = ? AND time < ?", (tier.step_s, int(now - tier.keep_s))
                )
                deleted += done.rowcount
        return deleted

    def names(self) -> list[str]:
        """Every name of the coarsest tier, in order."""
        with self._lock:
            rows = self._db.execute(
                "SELECT DISTINCT name FROM samples WHERE step = ? ORDER BY name", (self.tiers[-1].step_s,)
            ).fetchall()
        return [name for (name,) in rows]

    def tier_for(self, since_s: float) -> Tier:
        """The finest tier that reaches back so many seconds; the coarsest beyond all."""
        return next((tier for tier in self.tiers if tier.keep_s >= since_s), self.tiers[-1])

    def read(
        self, names: Iterable[str], *, since: float, until: float | None = None, step_s: int | None = None
    ) -> dict[str, list[Point]]:
        """Rows of each name with since <= time < until (Unix seconds), oldest first.

        step_s: of a tier (default: the finest that reaches back to `since`).  Raises: InvalidParams for another step.
        """
        end = time.time() + 1 if until is None else until
        step = self.tier_for(time.time() - since).step_s if step_s is None else step_s
        if step not in {tier.step_s for tier in self.tiers}:
            steps = ", ".join(str(tier.step_s) for tier in self.tiers)
            raise InvalidParams(f"step {step} is none of {steps} seconds")
        sql = "SELECT time, sum, least, greatest, count FROM samples WHERE step = ? AND name = ? AND time >= ? AND time < ? ORDER BY time"
        found = {}
        with self._lock:
            for name in names:
                first = int(since // step) * step
                rows = self._db.execute(sql, (step, name, first, int(end))).fetchall()
                found[name] = [Point(t, s / n, low, high, n) for t, s, low, high, n in rows]
        return found

    def trend(self, name: str, window_s: float = 30 * DAY_S, now: float | None = None) -> float | None:
        """Least-squares slope of the means over the window, in units of `name` per day; None below three rows."""
        end = time.time() if now is None else now
        step = self.tier_for(window_s).step_s
        points = self.read([name], since=end - window_s, until=end + step, step_s=step)[name]
        return slope_per_day([p.time for p in points], [p.mean for p in points])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()


def slope_per_day(times: list[int], values: list[float]) -> float | None:
    """Least-squares slope; times in seconds, the slope per day; None below three points or without a stretch of time."""
    if len(times) < 3 or times[-1] == times[0]:
        return None
    days = (np.asarray(times, dtype=np.float64) - times[0]) / DAY_S
    centred = days - days.mean()
    return float(centred @ (np.asarray(values) - np.mean(values)) / (centred @ centred))
