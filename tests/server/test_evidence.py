"""The page's own routes, and what they show."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from http_client import request
from tokamak.observe.alerts import Rule
from tokamak.server.app import create_app
from tokamak.server.routes import page
from tokamak.server.state import ServerConfig

KEY = {"authorization": "Bearer secret-key"}


@pytest.fixture
def locked(llm):
    return create_app(llm, ServerConfig(model="tiny", api_keys=("secret-key",)))


def test_the_page_needs_no_key_and_its_data_does(locked):
    assert request(locked, "/").headers["content-type"].startswith("text/html")
    assert request(locked, "/ui/app.js").status_code == 200
    for path in ("/status", "/history", "/v1/models/tiny/contents"):
        assert request(locked, path).status_code == 401
        assert request(locked, path, headers=KEY).status_code == 200


def test_the_page_loads_nothing_from_elsewhere_and_runs_nothing_inline(app):
    answer = request(app, "/")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    used = re.findall(r'(?:src|href)="([^"#]+)"', answer.text)
    assert used
    for path in used:
        assert request(app, "/" + path).status_code == 200, path
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|<style|\sstyle=", answer.text)
    for file in page.FOLDER.glob("*.js"):
        text = file.read_text()
        assert "innerHTML" not in text
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)[a-z]", text), file
        for name in re.findall(r'from "\./([\w.]+)"', text):
            assert (page.FOLDER / name).exists()


def test_a_file_of_the_page_is_sent_once(app):
    tag = request(app, "/ui/style.css").headers["etag"]
    assert request(app, "/ui/style.css", headers={"if-none-match": tag}).status_code == 304


@pytest.mark.parametrize("name", ["no.js", "../state.py", "%2e%2e%2fstate.py", "..%5cstate.py"])
def test_no_other_file_is_served(app, name):
    assert request(app, f"/ui/{name}").status_code == 404


def test_status_says_what_happens(app):
    request(app, "/v1/completions", {"prompt": "Once", "max_tokens": 5})
    app.state.recorder.sample()
    found = request(app, "/status").json()
    assert found["health"]["status"] == "ok"
    assert found["sample"]["generated_tokens_per_s"] > 0
    assert found["sample"]["memory_nbytes"] > 1e6


def test_history_is_what_was_recorded(llm, tmp_path):
    config = ServerConfig(
        model="tiny", history=str(tmp_path / "h"), alerts=(Rule("memory", "memory_nbytes", 1, 1, for_s=0),)
    )
    app = create_app(llm, config)
    app.state.recorder._keep(app.state.recorder.sample())
    found = request(app, "/history?seconds=60&names=memory_nbytes,running").json()
    assert found["step_s"] == 10
    assert len(found["series"]["memory_nbytes"][0]) == 4
    assert "ttft_p50_s" not in request(app, "/history").json()["series"]
    assert [alert["name"] for alert in request(app, "/status").json()["alerts"]] == ["memory"]
    assert request(app, "/health").json()["status"] == "degraded"
    app.state.recorder.close()


@pytest.mark.parametrize(
    "query", ["seconds=0", "seconds=x", "seconds=-1", "seconds=99999999999999", "step=0", "step=7"]
)
def test_queries_that_make_no_sense_are_refused(llm, tmp_path, query):
    app = create_app(llm, ServerConfig(model="tiny", history=str(tmp_path / "h")))
    assert request(app, f"/history?{query}").status_code == 400
    app.state.recorder.close()


def test_the_contents_of_a_model_are_shown(app, llm):
    found = request(app, "/v1/models/tiny/contents").json()
    assert found["architecture"] == llm.facts["architecture"]
    assert found["formats"]
    assert found["tensors"][0]["shape"]
    assert found["memory"]["context"] == llm.context
    assert request(app, "/v1/models/other/contents").status_code == 404


def test_short_memory_is_degraded_then_unavailable(app, monkeypatch):
    from tokamak.server import health

    monkeypatch.setattr(health, "total_nbytes", lambda: 100 << 20)
    for free, status, code in ((30, "ok", 200), (15, "degraded", 200), (5, "unavailable", 503)):
        monkeypatch.setattr(health, "available_nbytes", lambda free=free: free << 20)
        health.memory_at.cache_clear()
        answer = request(app, "/health")
        assert (answer.json()["status"], answer.status_code) == (status, code)
        assert answer.headers["cache-control"] == "no-store"
    health.memory_at.cache_clear()


def test_every_series_of_the_dashboard_file_is_one_of_ours(app):
    path = Path(__file__).parents[2] / "docs" / "operations" / "grafana.json"
    dashboard = json.loads(path.read_text())
    ours = set(re.findall(r"^# TYPE (\S+)", request(app, "/metrics").text, re.MULTILINE))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            names = {name.removesuffix("_bucket") for name in re.findall(r"tokamak_\w+", target["expr"])}
            assert names, panel["title"]
            assert names <= ours, panel["title"]
