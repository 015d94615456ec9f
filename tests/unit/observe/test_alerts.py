"""Alerts fire late, clear late, tell everyone."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tokamak.errors import InvalidParams
from tokamak.observe.alerts import Alerts, Rule, default_rules, webhook

SLOW = Rule("latency", "p95", fire=5.0, clear=4.0, for_s=30)


def states(alerts, series, values, step=10):
    out = []
    for i, value in enumerate(values):
        out += [(e.state, i * step) for e in alerts.evaluate({series: value}, i * step)]
    return out


def test_it_fires_after_its_time_and_clears_below_the_second_threshold():
    values = [6, 6, 6, 6, 6, 4.5, 4.5, 6, 3.9, 6]
    assert states(Alerts([SLOW]), "p95", values) == [("firing", 30), ("cleared", 80)]


def test_a_peak_that_passes_does_not_fire():
    assert states(Alerts([SLOW]), "p95", [6, 6, 6, 1, 6, 6, 6, 1]) == []


def test_a_value_that_rings_around_the_threshold_fires_once():
    assert states(Alerts([SLOW]), "p95", [6] * 4 + [4.9, 5.1] * 50) == [("firing", 30)]


def test_too_little_is_a_rule_too():
    rules = default_rules(tokens_per_s=10)
    low = Alerts([r for r in rules if r.name == "throughput"])
    assert states(low, "busy_tokens_per_s", [5] * 4 + [11, 12]) == [("firing", 30), ("cleared", 50)]


def test_absent_and_infinite_values_change_nothing():
    alerts = Alerts([Rule("a", "x", 1, 1, for_s=0)])
    assert alerts.evaluate({}, 0) == alerts.evaluate({"x": float("nan")}, 1) == []
    assert [e.state for e in alerts.evaluate({"x": 2}, 2)] == ["firing"]
    assert set(alerts.firing) == {"a"}


def test_a_sink_that_fails_keeps_nobody_from_hearing(caplog):
    heard = []

    def broken(event):
        raise OSError("gone")

    Alerts([Rule("a", "x", 1, 1, for_s=0)], [broken, heard.append]).evaluate({"x": 2}, 0)
    assert [e.name for e in heard] == ["a"]
    assert "could not be delivered" in caplog.text


def test_a_webhook_gets_the_event():
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        sink = webhook(f"http://127.0.0.1:{server.server_port}/hook")
        Alerts([Rule("a", "x", 1, 1, for_s=0)], [sink]).evaluate({"x": 2.5}, 7)
    assert got == [
        {"name": "a", "state": "firing", "series": "x", "value": 2.5, "threshold": 1, "time": 7, "text": ""}
    ]


def test_rules_that_make_no_sense_are_refused():
    with pytest.raises(InvalidParams, match="at most fire"):
        Rule("a", "x", fire=1, clear=2)
    with pytest.raises(InvalidParams, match="at least fire"):
        Rule("a", "x", fire=2, clear=1, above=False)
    with pytest.raises(InvalidParams, match="one name"):
        Alerts([SLOW, SLOW])
    with pytest.raises(InvalidParams, match="http"):
        webhook("file:///etc/passwd")
