"""Alerts: a rule fires when its series stays beyond a threshold, and clears when it is well back.

Two thresholds and a waiting time (hysteresis) keep a value on the edge from ringing all night. Rules are data; what hears of
them (a log, a webhook) is given by the caller.
"""

from __future__ import annotations

import json
import logging
import math
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from tokamak.errors import InvalidParams

log = logging.getLogger("tokamak.alerts")
WEBHOOK_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Rule:
    """When to tell. It fires once `series` was beyond `fire` for `for_s` seconds and clears once it is within `clear`.

    above: True for values that are too large, False for too small. clear: on the good side of fire, or equal to it.
    """

    name: str
    series: str
    fire: float
    clear: float
    above: bool = True
    for_s: float = 30.0
    text: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fire) and math.isfinite(self.clear) and self.for_s >= 0):
            raise InvalidParams(f"alert {self.name}: thresholds must be finite and for_s at least 0")
        if self.clear > self.fire if self.above else self.clear < self.fire:
            side = "at most" if self.above else "at least"
            raise InvalidParams(
                f"alert {self.name}: clear is {self.clear}; it must be {side} fire, {self.fire}"
            )

    def is_beyond(self, value: float) -> bool:
        """Worse than `fire`."""
        return value > self.fire if self.above else value < self.fire

    def is_well(self, value: float) -> bool:
        """No worse than `clear`."""
        return value <= self.clear if self.above else value >= self.clear


def default_rules(
    *,
    latency_s: float = 5.0,
    memory_nbytes: float = 1 << 30,
    error_share: float = 0.01,
    tokens_per_s: float = 0.0,
) -> tuple[Rule, ...]:
    """The four usual ones. memory_nbytes: growth since the start. tokens_per_s: least while requests run, 0: no rule."""
    rules = [
        Rule(
            "latency",
            "e2e_p95_s",
            latency_s,
            0.8 * latency_s,
            text="95th percentile of whole requests, seconds",
        ),
        Rule(
            "memory",
            "memory_growth_nbytes",
            memory_nbytes,
            0.9 * memory_nbytes,
            text="growth since the start, bytes",
        ),
        Rule(
            "errors", "error_share", error_share, 0.5 * error_share, text="share of answers with status 5xx"
        ),
    ]
    if tokens_per_s > 0:
        text = "tokens made per second while requests run"
        rules.append(
            Rule("throughput", "busy_tokens_per_s", tokens_per_s, 1.2 * tokens_per_s, above=False, text=text)
        )
    return tuple(rules)


@dataclass(frozen=True, slots=True)
class Event:
    """An alert that fired or cleared. time: Unix seconds."""

    name: str
    state: str  # "firing" or "cleared"
    series: str
    value: float
    threshold: float
    time: float
    text: str

    def facts(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)


class Alerts:
    """The state of some rules. sinks: called with every event; one that raises is logged and the others still hear."""

    def __init__(self, rules: Sequence[Rule], sinks: Sequence[Callable[[Event], None]] = ()) -> None:
        names = [rule.name for rule in rules]
        if len(set(names)) != len(names):
            raise InvalidParams(f"two alerts have one name among {', '.join(names)}")
        self.rules, self.sinks = tuple(rules), tuple(sinks)
        self.firing: dict[str, Event] = {}
        self._since: dict[str, float] = {}  # rule -> when it went beyond

    def evaluate(self, values: Mapping[str, float], now: float) -> list[Event]:
        """Look at a sample; returns what changed, after the sinks heard it. A series that is absent changes nothing."""
        events = []
        for rule in self.rules:
            value = values.get(rule.series)
            if value is not None and math.isfinite(value):
                event = self._step(rule, value, now)
                if event is not None:
                    events.append(event)
        for event in events:
            for sink in self.sinks:
                _tell(sink, event)
        return events

    def _step(self, rule: Rule, value: float, now: float) -> Event | None:
        if rule.name in self.firing:
            if not rule.is_well(value):
                return None
            del self.firing[rule.name]
            return Event(rule.name, "cleared", rule.series, value, rule.clear, now, rule.text)
        if not rule.is_beyond(value):
            self._since.pop(rule.name, None)
            return None
        if now - self._since.setdefault(rule.name, now) < rule.for_s:
            return None
        del self._since[rule.name]
        event = Event(rule.name, "firing", rule.series, value, rule.fire, now, rule.text)
        self.firing[rule.name] = event
        return event


def _tell(sink: Callable[[Event], None], event: Event) -> None:
    try:
        sink(event)
    except Exception:
        log.exception("alert %s could not be delivered", event.name)


def to_log(event: Event) -> None:
    """A sink: one warning when it fires, one info when it clears."""
    level = logging.WARNING if event.state == "firing" else logging.INFO
    log.log(
        level,
        "alert %s %s: %s is %g (%g)",
        event.name,
        event.state,
        event.series,
        event.value,
        event.threshold,
    )


def webhook(url: str) -> Callable[[Event], None]:
    """A sink that posts each event as JSON; blocks up to 5 s.  Raises: InvalidParams for what is no http(s) address."""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise InvalidParams(f"webhook {url!r} is no http or https address")

    def post(event: Event) -> None:
        body = json.dumps(event.facts()).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 http(s) only
        with urllib.request.urlopen(request, timeout=WEBHOOK_TIMEOUT_S):  # noqa: S310
            pass

    return post
