"""What the routes of one server share: the models, the limits, the counters, and who may still come in."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokamak.engine.llm import LLM
from tokamak.errors import InvalidParams
from tokamak.observe.alerts import Alerts, Rule, to_log, webhook
from tokamak.observe.history import History
from tokamak.server.metrics import Metrics
from tokamak.server.problems import retry_later
from tokamak.server.recorder import Recorder
from tokamak.server.registry import Models, Served

MOST_RETRY_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Limits and keys of a server.

    model: its name for clients, None: of the file; aliases: further names. api_keys: any of them opens every route; none:
    only loopback names are answered. admin_keys: open loading and unloading too; without any, those routes are closed.
    host: what it is bound to, a further name that is answered; several by commas. cors_origins: pages that may call it,
    "localhost": those of this machine, "*": all. closed: paths that are answered with 501, as "/metrics".
    max_waiting: completions that may wait for a place in the engine; max_each: of one key at once, 0: all;
    max_waiting_tokens: of prompts that wait. max_body_nbytes, body_s: of a request. request_s: for an answer.
    ping_s: of silence in a stream. flush_tokens, flush_s: text of a stream is sent when so many tokens or seconds are together. stall_s: a reader that takes nothing for so long is dropped. stuck_s: an engine that
    has work and does not turn for so long is reported dead. idle_s: a model that can be loaded again is unloaded after it, 0:
    never. memory_nbytes: for loaded models, 0: no limit. exact_names: only names of models here are answered; any_name: one model answers every name.
    read_bytes_s: what this machine reads from memory, for the metrics, 0: not measured.
    tracer: of OpenTelemetry, gets a span for each request; None: no spans.
    defaults: values of request fields that a request leaves out, as temperature; where a route has such a field.
    history: a file for samples, None: none is kept. alerts: rules over the samples; alert_webhook: an address that hears of them.
    """

    model: str | None = None
    aliases: tuple[str, ...] = ()
    api_keys: tuple[str, ...] = ()
    admin_keys: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    cors_origins: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    max_waiting: int = 64
    max_each: int = 0
    max_waiting_tokens: int = 1 << 20
    max_body_nbytes: int = 8 << 20
    body_s: float = 30.0
    request_s: float = 3600.0
    ping_s: float = 15.0
    flush_tokens: int = 1
    flush_s: float = 0.1
    stall_s: float = 60.0
    stuck_s: float = 60.0
    idle_s: float = 0.0
    memory_nbytes: int = 0
    exact_names: bool = False
    any_name: bool = False
    read_bytes_s: float = 0.0
    tracer: Any = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    history: str | None = None
    alerts: tuple[Rule, ...] = ()
    alert_webhook: str | None = None

    def __post_init__(self) -> None:
        for key in (*self.api_keys, *self.admin_keys):
            if len(key) < 8 or not key.isascii() or not key.isprintable() or " " in key:
                raise InvalidParams(
                    "an API key must be of 8 or more printable ASCII characters without spaces"
                )
        for name in ("max_waiting", "max_each", "max_waiting_tokens", "idle_s", "memory_nbytes"):
            if getattr(self, name) < 0:
                raise InvalidParams(f"{name} is {getattr(self, name)}; it must be 0 or more")
        for name in (
            "body_s",
            "request_s",
            "ping_s",
            "flush_tokens",
            "flush_s",
            "stall_s",
            "stuck_s",
            "max_body_nbytes",
        ):
            if getattr(self, name) <= 0:
                raise InvalidParams(f"{name} is {getattr(self, name)}; it must be more than 0")


def served_alone(llm: LLM, config: ServerConfig) -> Served:
    """A loaded model under the names of the configuration."""
    path = llm.facts.get("path")
    name = config.model or (Path(str(path)).stem if path else "model")
    return Served((name, *config.aliases), llm, most_waiting=config.max_waiting, most_each=config.max_each)


def digests(keys: tuple[str, ...]) -> tuple[bytes, ...]:
    """Of keys, all of one length."""
    return tuple(hashlib.sha256(key.encode()).digest() for key in keys)


def recorder_of(metrics: Metrics, models: Models, config: ServerConfig) -> Recorder:
    """With the history and the alerts of a configuration.  Raises: FileRefused, InvalidParams."""
    history = History(config.history) if config.history else None
    sinks = [to_log, *([webhook(config.alert_webhook)] if config.alert_webhook else [])]
    return Recorder(metrics, models.stats, history=history, alerts=Alerts(config.alerts, sinks))


class State:
    """One per application."""

    def __init__(self, models: Models, config: ServerConfig) -> None:
        self.models, self.config = models, config
        self.metrics = Metrics()
        self.recorder = recorder_of(self.metrics, models, config)
        self.created = int(time.time())
        self.draining = False
        self.waiting_tokens = 0  # of prompts whose completions have no token yet
        self.key_digests = digests((*config.api_keys, *config.admin_keys))
        self.num_plain_keys = len(config.api_keys)  # those after them are for administration

    @property
    def num_admitted(self) -> int:
        """Completions between acceptance and the last byte."""
        return sum(served.line.num_admitted for served in self.models.every)

    @property
    def full(self) -> bool:
        """Whether no model has a place left."""
        return all(served.line.full for served in self.models.every)

    @asynccontextmanager
    async def admitted(self, served: Served, key: str, num: int) -> AsyncIterator[None]:
        """Places for num completions.  Raises: Problem 503 while stopping, 429 when there are too few, 400 if never enough."""
        if self.draining:
            self.metrics.rejections.add("stopping")
            raise retry_later(503, "the server is stopping", "stopping")
        reason = served.line.refusal(key, num)
        if reason is not None:
            self.metrics.rejections.add("queue_full")
            raise retry_later(429, reason, "queue_full", self.retry_s())
        async with served.line.place(key, num):
            yield

    def check_tokens(self, num: int) -> None:
        """Raises: Problem 429 if the prompts that wait are too long together with num tokens more."""
        most = self.config.max_waiting_tokens
        if self.waiting_tokens and self.waiting_tokens + num > most:
            self.metrics.rejections.add("queue_tokens")
            text = f"prompts of {self.waiting_tokens} tokens are waiting, with {num} more they are over {most}; try again later"
            raise retry_later(429, text, "queue_full", self.retry_s())

    def retry_s(self) -> int:
        """Seconds until about one round of completions has ended, as long as they took on average so far."""
        e2e = self.metrics.e2e
        return min(MOST_RETRY_S, max(1, math.ceil(e2e.sum / e2e.count))) if e2e.count else 1

    def engine_problem(self) -> str | None:
        """What is wrong with the first model that cannot answer, None if all can."""
        found = (served.problem(self.config.stuck_s) for served in self.models.every)
        return next((problem for problem in found if problem), None)
