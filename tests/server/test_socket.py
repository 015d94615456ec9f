"""`tokamak serve` as a process of its own, spoken to over a real socket."""

from __future__ import annotations

import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from command import tokamak
from http_client import events
from processes import serving

TEXT = "/v1/completions"
ENDLESS = {"prompt": "Once", "max_tokens": -1, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def url(tiny_model):
    with serving(tiny_model, "--alias", "tiny") as (_, url):
        yield url


def answer_to(url, data: bytes) -> bytes:
    """Everything that comes back for raw bytes until the server closes."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(data)
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
        return b"".join(parts)


def test_eight_clients_at_once_read_what_each_reads_alone(url):
    bodies = [{"prompt": f"The {w}", "max_tokens": 40, "seed": 1, "logprobs": 1} for w in "abcdefgh"]

    def ask(body):
        text = httpx.post(url + TEXT, json=body | {"stream": True}, timeout=60).text
        *chunks, done = events(text)
        assert done == "[DONE]"
        return [chunk["choices"] for chunk in chunks]

    solo = [ask(body) for body in bodies]
    with ThreadPoolExecutor(len(bodies)) as threads:
        assert list(threads.map(ask, bodies)) == solo


def test_a_closed_connection_frees_its_sequence(url):
    with httpx.stream("POST", url + TEXT, json=ENDLESS, timeout=60) as answer:
        next(answer.iter_bytes())
    for _ in range(500):
        lines = httpx.get(url + "/metrics").text.splitlines()
        if "tokamak_completions_admitted 0" in lines and "tokamak_requests_running 0" in lines:
            return
    pytest.fail("the sequence still runs")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00 no HTTP\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    ],
)
def test_a_hostile_head_is_refused_and_the_connection_closed(url, head):
    assert answer_to(url, head).split(b"\r\n")[0].split()[1] in (b"400", b"403", b"413")
    assert httpx.get(url + "/health").status_code == 200


def test_a_head_without_end_is_cut_off(url):
    """The answer may be lost: a connection closed with bytes unread is reset."""
    try:
        answer = answer_to(url, b"GET /health HTTP/1.1\r\nX: " + b"a" * (1 << 20))
    except (ConnectionResetError, BrokenPipeError):
        answer = b""
    assert b" 400 " in answer.split(b"\r\n")[0] or answer == b""
    assert httpx.get(url + "/health").status_code == 200


def test_sigterm_finishes_what_runs_and_takes_no_more(tiny_model):
    with (
        serving(tiny_model) as (process, url),
        httpx.stream("POST", url + TEXT, json=ENDLESS, timeout=60) as answer,
    ):
        pieces = answer.iter_text()
        text = next(pieces)
        process.send_signal(signal.SIGTERM)
        text += "".join(pieces)
        assert events(text)[-1] == "[DONE]"
        assert process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(url + "/health")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--host", "0.0.0.0"], 2, "API key"),
        (["--api-key", "short"], 2, "8 or more"),
        (["--port", "70000"], 2, "port"),
        (["--host", "192.0.2.1", "--api-key", "long-enough"], 4, "cannot be bound"),  # of RFC 5737: nobody's
        (["--api-key-file", "/does/not/exist"], 2, "cannot be read"),
    ],
)
def test_serve_refuses_what_is_unsafe_or_wrong_before_it_loads(options, code, said):
    done = tokamak("serve", *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_a_taken_port_is_an_error_and_a_missing_extra_names_the_command(url, monkeypatch):
    assert tokamak("serve", "--port", url.rsplit(":", 1)[1]).returncode == 4
    from tokamak.cli import serve
    from tokamak.errors import UnavailableError

    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(UnavailableError, match=r"uvicorn: pip install 'tokamak\[server\]'"):
        serve.check_installed()


def test_serve_takes_defaults_a_template_and_says_the_bandwidth(tiny_model, tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text("{% for m in messages %}[{{ m['content'] }}]{% endfor %}")
    options = ("--temp", "0", "--n-predict", "3", "--chat-template-file", template)
    with serving(tiny_model, *options) as (_, url):
        body = {"messages": [{"role": "user", "content": "Once"}], "verbose": True}
        got = httpx.post(url + "/v1/chat/completions", json=body, timeout=60).json()
        assert (got["__verbose"]["prompt"], got["usage"]["completion_tokens"]) == ("<s> [Once]", 3)
        assert "tokamak_bandwidth_share " in httpx.get(url + "/metrics").text
