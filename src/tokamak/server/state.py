"""What the routes of one server share: the model, the limits, the counters, and who may still come in."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tokamak.engine.llm import LLM
from tokamak.errors import InvalidParams
from tokamak.server.metrics import Metrics
from tokamak.server.problems import Problem, retry_later

MOST_RETRY_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Limits and keys of a server.

    model: its name for clients, None: of the file. api_keys: any of them opens every route; none: only loopback names are
    answered. host: what it is bound to, a further name that is answered. max_waiting: completions that may wait for a place
    in the engine. max_body_nbytes, body_s: of a request. stall_s: a reader that takes nothing for so long is dropped.
    stuck_s: an engine that has work and does not turn for so long is reported dead.
    """

    model: str | None = None
    api_keys: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    max_waiting: int = 64
    max_body_nbytes: int = 8 << 20
    body_s: float = 30.0
    stall_s: float = 60.0
    stuck_s: float = 60.0

    def __post_init__(self) -> None:
        for key in self.api_keys:
            if len(key) < 8 or not key.isascii() or not key.isprintable() or " " in key:
                raise InvalidParams(
                    "an API key must be of 8 or more printable ASCII characters without spaces"
                )
        if self.max_waiting < 0:
            raise InvalidParams(f"max_waiting is {self.max_waiting}; it must be 0 or more")


class State:
    """One per application."""

    def __init__(self, llm: LLM, config: ServerConfig) -> None:
        self.llm, self.config = llm, config
        self.metrics = Metrics()
        self.created = int(time.time())
        self.draining = False
        self.num_admitted = 0  # completions between acceptance and the last byte
        self.key_digests = tuple(hashlib.sha256(key.encode()).digest() for key in config.api_keys)
        path = llm.facts.get("path")
        self.model = config.model or (Path(str(path)).stem if path else "model")
        limits = llm.program.limits
        self.num_places = limits.max_sequences + config.max_waiting
        self._turned = (-1, 0.0)  # the engine's turns when they last changed, and when

    def check_model(self, name: str | None) -> None:
        """Raises: Problem 404 for a name that is not the model's."""
        if name is not None and name != self.model:
            raise Problem(
                404,
                f"the model {name!r} is not here; {self.model!r} is",
                param="model",
                code="model_not_found",
            )

    @contextmanager
    def admitted(self, num: int) -> Iterator[None]:
        """Places for num completions.  Raises: Problem 503 while stopping, 429 when there are too few, 400 if never enough."""
        if self.draining:
            self.metrics.rejections.add("stopping")
            raise retry_later(503, "the server is stopping", "stopping")
        if num > self.num_places:
            raise Problem(
                400,
                f"{num} completions at once are asked for; the server has {self.num_places} places",
                code="too_many",
            )
        if self.num_admitted + num > self.num_places:
            self.metrics.rejections.add("queue_full")
            text = f"{self.num_admitted} of {self.num_places} places are taken and {num} are asked for; try again later"
            raise retry_later(429, text, "queue_full", self._retry_s())
        self.num_admitted += num
        try:
            yield
        finally:
            self.num_admitted -= num

    def _retry_s(self) -> int:
        """Seconds until about one round of completions has ended, as long as they took on average so far."""
        e2e = self.metrics.e2e
        return min(MOST_RETRY_S, max(1, math.ceil(e2e.sum / e2e.count))) if e2e.count else 1

    def engine_problem(self) -> str | None:
        """Why the engine cannot answer: it ended, or it has work and has not turned for stuck_s; None if it can."""
        if self.llm.problem is not None:
            return self.llm.problem
        stats, now = self.llm.stats(), time.monotonic()
        turns = int(stats["turns"])
        if turns != self._turned[0] or not (stats["running"] or stats["waiting"]):
            self._turned = (turns, now)
        still_s = now - self._turned[1]
        return f"the engine has not turned for {still_s:.0f} s" if still_s > self.config.stuck_s else None
