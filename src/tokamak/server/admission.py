"""Who may come in, and in which order: bounded waiting, the keys taking turns, so that no client starves another."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tokamak.server.problems import Problem

Waiter = tuple[int, "asyncio.Future[None]"]


class Line:
    """Places of one model. most_running: completions in the engine, most_waiting: behind them, most_each: of one key (0: all)."""

    def __init__(self, most_running: int, most_waiting: int, most_each: int = 0) -> None:
        self.most_running, self.most_waiting, self.most_each = most_running, most_waiting, most_each
        self.num_running = self.num_waiting = 0
        self._lines: OrderedDict[str, deque[Waiter]] = OrderedDict()
        self._of_key: dict[str, int] = {}

    @property
    def num_places(self) -> int:
        """All of them."""
        return self.most_running + self.most_waiting

    @property
    def num_admitted(self) -> int:
        """Completions between acceptance and the last byte."""
        return self.num_running + self.num_waiting

    @property
    def full(self) -> bool:
        """Whether nobody more may come."""
        return self.num_admitted >= self.num_places

    def refusal(self, key: str, num: int) -> str | None:
        """Why num completions more may not come now.  Raises: Problem 400 if they never could."""
        if num > self.num_places:
            text = f"{num} completions at once are asked for; the server has {self.num_places} places"
            raise Problem(400, text, code="too_many")
        if self.num_admitted + num > self.num_places:
            return f"{self.num_admitted} of {self.num_places} places are taken and {num} are asked for; try again later"
        if self.most_each and self._of_key.get(key, 0) + num > self.most_each:
            return f"this key has {self._of_key[key]} of its {self.most_each} completions running; try again later"
        return None

    @asynccontextmanager
    async def place(self, key: str, num: int) -> AsyncIterator[None]:
        """Wait for num places, after `refusal` said nothing; give them back at the end."""
        self._of_key[key] = self._of_key.get(key, 0) + num
        try:
            await self._enter(key, num)
            try:
                yield
            finally:
                self.num_running -= num
                self._let_in()
        finally:
            self._of_key[key] -= num
            if not self._of_key[key]:
                del self._of_key[key]

    async def _enter(self, key: str, num: int) -> None:
        if not self._lines and self._fits(num):
            self.num_running += num
            return
        waiter = (num, asyncio.get_running_loop().create_future())
        self._lines.setdefault(key, deque()).append(waiter)
        self.num_waiting += num
        try:
            await waiter[1]
        except BaseException:
            if waiter[1].done() and not waiter[1].cancelled():  # let in at the moment it was cancelled
                self.num_running -= num
            else:
                self.num_waiting -= num
                with contextlib.suppress(KeyError, ValueError):
                    self._lines[key].remove(waiter)
                    self._drop_empty(key)
            self._let_in()
            raise

    def _fits(self, num: int) -> bool:
        return self.num_running + num <= self.most_running or self.num_running == 0

    def _drop_empty(self, key: str) -> None:
        if not self._lines[key]:
            del self._lines[key]

    def _let_in(self) -> None:
        """The key whose turn it is sends its oldest in, then goes to the end of the row."""
        while self._lines:
            key, line = next(iter(self._lines.items()))
            num, arrived = line[0]
            if not self._fits(num):
                return
            line.popleft()
            self._lines.move_to_end(key)
            self._drop_empty(key)
            self.num_waiting -= num
            self.num_running += num
            arrived.set_result(None)
