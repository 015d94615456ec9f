"""The models of a server: found by name or alias, loaded when asked for, unloaded when idle or when memory is short."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tokamak.engine.llm import LLM
from tokamak.errors import CapacityError
from tokamak.server.admission import Line
from tokamak.server.problems import Problem, retry_later

LOOK_S = 5.0  # between looks for idle models
TEND_S = 1.0  # between looks for engines that ended
MOST_RESTARTS, RESTARTS_S = (
    3,
    600.0,
)  # of one engine in so many seconds: a defect that comes back is no accident
log = logging.getLogger("tokamak.server")
# Names that clients of hosted services have built in. A server of one model answers them, and says its own name.
HOSTED = re.compile(r"(gpt-[345]|chatgpt-|o[134](-|$)|codex-|claude-|text-embedding-|gemini-)")


class Served:
    """One model. names: the first is its own, the others are aliases. load: makes it again after an unload; None: it stays."""

    def __init__(
        self,
        names: Sequence[str],
        llm: LLM | None,
        load: Callable[[], LLM] | None = None,
        *,
        most_waiting: int = 64,
        most_each: int = 0,
    ) -> None:
        self.names, self.load, self.created = tuple(names), load, int(time.time())
        self.most_waiting, self.most_each = most_waiting, most_each
        self.line = Line(1, most_waiting, most_each)
        self.num_users = 0
        self.used_s = time.monotonic()
        self._llm: LLM | None = None
        self.nbytes = 0  # held in memory now: weights, cache and working memory
        self.set(llm)
        self.lock = asyncio.Lock()
        self.turned = (-1, 0.0)  # the engine's turns when they last changed, and when
        self.restarts: deque[tuple[float, str]] = deque(maxlen=MOST_RESTARTS)  # when, and why
        self.num_restarts = 0

    @property
    def name(self) -> str:
        """Its own."""
        return self.names[0]

    @property
    def llm(self) -> LLM:
        """The model.  Raises: Problem 503 while it is not loaded."""
        if self._llm is None:
            raise retry_later(503, f"the model {self.name!r} is not loaded", "model_not_loaded")
        return self._llm

    @property
    def loaded(self) -> bool:
        """Whether it is in memory."""
        return self._llm is not None

    def set(self, llm: LLM | None) -> None:
        """In memory from now on, or no more."""
        self._llm = llm
        memory = llm.program.memory() if llm else {}  # asked once: part of it takes the kernel milliseconds
        self.nbytes = sum(memory.get(name, 0) for name in ("weights", "cache", "arena"))
        if llm is not None:
            self.line = Line(llm.program.limits.max_sequences, self.most_waiting, self.most_each)
            self.turned = (-1, 0.0)

    def problem(self, stuck_s: float) -> str | None:
        """Why its engine cannot answer: it ended, or has work and has not turned for stuck_s; None if it can."""
        if self._llm is None:
            return None
        if self._llm.problem is not None:
            return self._llm.problem
        stats, now = self._llm.stats(), time.monotonic()
        turns = int(stats["turns"])
        if turns != self.turned[0] or not (stats["running"] or stats["waiting"]):
            self.turned = (turns, now)
        still_s = now - self.turned[1]
        return f"the engine has not turned for {still_s:.0f} s" if still_s > stuck_s else None

    def recent_restarts(self) -> list[str]:
        """Why its engine was restarted lately."""
        now = time.monotonic()
        return [why for when, why in self.restarts if now - when < RESTARTS_S]

    async def revive(self) -> bool:
        """Restart an engine that a defect ended, unless that has happened too often lately; whether it did."""
        async with self.lock:
            why = self._llm.problem if self._llm else None
            if self._llm is None or why is None or len(self.recent_restarts()) >= MOST_RESTARTS:
                return False
            if not await asyncio.to_thread(self._llm.restart):
                return False
            self.restarts.append((time.monotonic(), why))
            self.num_restarts += 1
            self.turned = (-1, 0.0)
            log.error("%s: %s; it was restarted", self.name, why)
            return True


class Models:
    """All of them. budget_nbytes: of memory for loaded models, 0: no limit. exact: hosted names are not answered.
    lax: a server of one model answers every name."""

    def __init__(self, every: Sequence[Served], *, budget_nbytes: int = 0, exact: bool = False) -> None:
        self.every, self.budget_nbytes, self.exact, self.lax = list(every), budget_nbytes, exact, False
        self._by_name = {name: served for served in reversed(every) for name in served.names}

    def find(self, name: str | None) -> Served:
        """By name; the first without one.  Raises: Problem 404."""
        if name is None:
            return self.every[0]
        found = self._by_name.get(name) or self._by_name.get(name.removesuffix(":latest"))
        if found is None and len(self.every) == 1 and not self.exact and (self.lax or HOSTED.match(name)):
            found = self.every[0]
        if found is None:
            known = ", ".join(repr(served.name) for served in self.every)
            text = f"the model {name[:200]!r} is not here; {known} {'is' if len(self.every) == 1 else 'are'}"
            raise Problem(404, text, param="model", code="model_not_found")
        return found

    @asynccontextmanager
    async def use(self, name: str | None) -> AsyncIterator[Served]:
        """A model that stays loaded meanwhile; loads it first.  Raises: Problem 404, 503."""
        served = self.find(name)
        served.num_users += 1
        try:
            if not served.loaded:
                await self.load(served)
            if served.llm.problem is not None and not await served.revive():
                raise retry_later(503, f"{served.name!r}: {served.llm.problem}", "engine_ended")
            yield served
        finally:
            served.num_users -= 1
            served.used_s = time.monotonic()

    async def load(self, served: Served) -> None:
        """Into memory, after making room.  Raises: Problem 503 without room, what loading raises."""
        async with served.lock:
            if served.loaded:
                return
            if served.load is None:
                raise retry_later(503, f"the model {served.name!r} is not loaded", "model_not_loaded")
            await self._make_room(served, file_nbytes(served))
            try:
                served.set(await asyncio.to_thread(served.load))
            except CapacityError as error:
                raise retry_later(503, str(error), "no_memory") from error
            await self._make_room(served, 0)  # its cache has a size only now
            if self.budget_nbytes and self.nbytes > self.budget_nbytes:
                held = served.nbytes
                await self._close(served)
                text = f"{served.name!r} takes {held} bytes; the budget of {self.budget_nbytes} does not hold it beside the others"
                raise retry_later(503, text, "no_memory")

    @property
    def nbytes(self) -> int:
        """Held by all."""
        return sum(served.nbytes for served in self.every)

    async def unload(self, served: Served) -> None:
        """Out of memory.  Raises: Problem 409 while it is used or cannot be loaded again."""
        async with served.lock:
            if served.num_users:
                raise Problem(409, f"{served.num_users} requests use {served.name!r}", code="model_in_use")
            if served.load is None:
                raise Problem(409, f"{served.name!r} cannot be loaded again", code="model_stays")
            await self._close(served)

    async def _close(self, served: Served) -> None:
        if served.loaded:
            llm = served.llm
            served.set(None)
            await asyncio.to_thread(llm.close)

    async def _make_room(self, wanted: Served, nbytes: int) -> None:
        """Unload what has been idle longest while the budget does not hold nbytes more."""
        others = [s for s in self.every if s is not wanted and s.loaded and s.load and not s.num_users]
        for served in sorted(others, key=lambda s: s.used_s):
            if not self.budget_nbytes or self.nbytes + nbytes <= self.budget_nbytes:
                return
            await self.unload(served)

    async def unload_idle(self, after_s: float) -> None:
        """Those that nobody has used for so long."""
        now = time.monotonic()
        for served in self.every:
            if served.loaded and served.load and not served.num_users and now - served.used_s > after_s:
                await self.unload(served)

    def stats(self) -> dict[str, int | float]:
        """What the engines say now (`LLM.stats`), added up, with what waits before them."""
        stats: dict[str, int | float] = {}
        loaded = [served for served in self.every if served.loaded]
        for served in loaded:
            for name, value in served.llm.stats().items():
                stats[name] = stats.get(name, 0) + value
        waiting = sum(served.line.num_waiting for served in self.every)
        stats["waiting"] = stats.get("waiting", 0) + waiting
        restarts = sum(served.num_restarts for served in self.every)
        return stats | {
            "models_loaded": len(loaded),
            "memory_nbytes": self.nbytes,
            "engine_restarts": restarts,
        }

    async def tend(self) -> None:
        """Restart engines that ended, until cancelled."""
        while True:
            await asyncio.sleep(TEND_S)
            for served in self.every:
                await served.revive()

    async def watch(self, after_s: float) -> None:
        """Unload what is idle for after_s, until cancelled; 0: nothing ever is."""
        while after_s > 0:
            await asyncio.sleep(min(after_s, LOOK_S))
            with contextlib.suppress(Problem):  # taken up at this very moment
                await self.unload_idle(after_s)

    def close(self) -> None:
        """All of them, at the end."""
        for served in self.every:
            if served.loaded:
                served.llm.close()


def file_nbytes(served: Served) -> int:
    """Of the file a model comes from, 0 where that is not known."""
    path = getattr(served.load, "path", None)
    try:
        return Path(path).stat().st_size if path else 0
    except OSError:
        return 0
