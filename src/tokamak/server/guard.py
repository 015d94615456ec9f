"""The door: every request passes here first. Keys, hosts, sizes; request ids, counting, and errors as JSON.

Everything but health and the page is denied until a key fits, or, without keys, unless the request is for a loopback name
and comes from no foreign page (so that neither DNS rebinding nor a form on a web site reaches the model).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import re
import time
import uuid
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokamak.errors import TokamakError
from tokamak.server import traces
from tokamak.server.problems import Problem, problem_of
from tokamak.server.state import ServerConfig, State

log = logging.getLogger("tokamak.server")
access = logging.getLogger("tokamak.access")
PUBLIC = {"/", "/health", "/v1/health", "/health/live", "/health/ready"}
PUBLIC_FOLDER = "/ui/"  # the page's own files
CLIENT_GONE = 499  # counted under this status; nobody is left to read it
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
PREFLIGHT = {
    "access-control-allow-methods": "GET, POST, DELETE, OPTIONS",
    "access-control-allow-headers": "authorization, content-type, x-api-key, x-request-id, anthropic-version, anthropic-beta",
    "access-control-max-age": "600",
}
CLOSE = {"Connection": "close"}  # the rest of the body is not read


class ClientGone(Exception):  # no error: they may
    """The client closed the connection, or stopped reading."""


class Guard:
    """ASGI around the routes. label: the route's name in the metrics for a path."""

    def __init__(self, app: ASGIApp, state: State, label: Callable[[str], str]) -> None:
        self.app, self.state, self.label = app, state, label

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        scope["request_id"] = request_id
        status, began_s = 0, time.perf_counter()
        allowed = self.cors(headers)

        async def numbered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                fields = MutableHeaders(raw=message["headers"])
                fields.update({"x-request-id": request_id, **allowed, **remarks(scope)})
            await send(message)

        try:
            try:
                if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                    await send_whole(numbered, 200, b"", **(PREFLIGHT if allowed else {}))
                    return
                scope["app"], scope["salt"] = self, self.check(scope, headers)
                await self.app(scope, receive, numbered)
            except ClientGone:
                status = CLIENT_GONE
            except Exception as error:
                problem = problem_of(error, request_id)
                if problem.status >= 500 and not isinstance(error, Problem | TokamakError):
                    log.exception("request %s", request_id)
                if status:  # the head of the answer is out: cut the body off
                    raise
                body = problem.body_for(scope["path"], request_id)
                await send_whole(numbered, problem.status, body, **problem.headers)
        finally:
            label = self.label(scope["path"])
            self.state.metrics.requests.add(label, str(status or CLIENT_GONE))
            took_s = time.perf_counter() - began_s
            note_access(scope, label, status or CLIENT_GONE, took_s)
            if self.state.config.tracer is not None:
                traces.note(self.state.config.tracer, scope, label, status or CLIENT_GONE, took_s)

    def cors(self, headers: Headers) -> dict[str, str]:
        """Headers that let the page of this origin read the answer; none unless the configuration names it."""
        origin = headers.get("origin")
        if origin is None or not may_call(origin, self.state.config.cors_origins):
            return {}
        return {
            "access-control-allow-origin": origin,
            "access-control-expose-headers": "x-request-id, x-tokamak-ignored, x-tokamak-notes, retry-after",
            "vary": "origin",
        }

    def check(self, scope: Scope, headers: Headers) -> str:
        """What can be said from the head of a request; returns the salt of its key.  Raises: Problem."""
        if "transfer-encoding" in headers and "content-length" in headers:
            raise Problem(400, "Content-Length and Transfer-Encoding are both given", headers=CLOSE)
        if headers.get("content-encoding", "identity") != "identity":
            raise Problem(415, "Content-Encoding: only identity is read", headers=CLOSE)
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise Problem(400, "Content-Length is not a number", headers=CLOSE)
        most = self.state.config.max_body_nbytes
        if len(length) > 18 or int(length) > most:
            raise Problem(413, f"the body has {length[:20]} bytes; at most {most} are read", headers=CLOSE)
        scope["admin"] = False
        if scope["path"] in PUBLIC or scope["path"].startswith(PUBLIC_FOLDER):
            return ""
        if not self.state.num_plain_keys:
            check_local(headers, self.state.config)
        needed = self.state.num_plain_keys > 0
        salt = self.salt_of(scope, headers, needed=needed) if self.state.key_digests else ""
        if scope["path"] in self.state.config.closed:
            raise Problem(501, f"{scope['path']} is switched off", code="switched_off")
        return salt

    def salt_of(self, scope: Scope, headers: Headers, *, needed: bool) -> str:
        """Which key opened the door: prefixes in the cache are shared under one key only.  Raises: Problem 401 if one is needed.

        All keys are compared, each in constant time, over digests of one length. Sets scope["admin"].
        """
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        digest = hashlib.sha256(given.encode("latin-1", "replace")).digest()
        fits = [hmac.compare_digest(digest, key) for key in self.state.key_digests]
        if not any(fits):
            if not needed:
                return ""
            text = "no API key is given" if not given else "the API key is wrong"
            challenge = {"WWW-Authenticate": "Bearer", **CLOSE}
            raise Problem(
                401, f"{text}; send Authorization: Bearer KEY", code="invalid_api_key", headers=challenge
            )
        scope["admin"] = any(fits[self.state.num_plain_keys :])
        return f"key{fits.index(True)}"


def remarks(scope: Scope) -> dict[str, str]:
    """Headers that say what of a request had no effect, and what had to be made up for it."""
    ignored = ", ".join(
        name.encode("ascii", "backslashreplace").decode() for name in scope.get("ignored", ())
    )
    notes = "; ".join(dict.fromkeys(scope.get("notes", ())))
    given = {"x-tokamak-ignored": _printable(ignored), "x-tokamak-notes": _printable(notes)}
    return {name: text for name, text in given.items() if text}


def _printable(text: str) -> str:
    return "".join(c for c in text if " " <= c <= "~").strip()


def note_access(scope: Scope, route: str, status: int, seconds: float) -> None:
    """One line of the log for a request: facts, never texts."""
    if not access.isEnabledFor(logging.INFO):
        return
    facts = {
        "id": scope["request_id"],
        "method": scope["method"],
        "route": route,
        "status": status,
        "ms": round(1e3 * seconds, 2),
        "key": scope.get("salt", ""),
        "client": (scope.get("client") or ("",))[0],
    }
    facts |= {name: scope[name] for name in ("model", "ignored") if scope.get(name)}
    access.info("request", extra={"facts": facts | scope.get("counts", {})})


def check_admin(scope: Scope) -> None:
    """Raises: Problem 403 unless a key for administration came with the request."""
    if not scope.get("admin"):
        raise Problem(403, "this needs an admin key (tokamak serve --admin-key)", code="not_admin")


def check_local(headers: Headers, config: ServerConfig) -> None:
    """Raises: Problem 403 unless Host, and Origin where a browser sends one, is a loopback name or config.host."""
    for name in ("host", "origin"):
        value = headers.get(name)
        if value is None:
            continue
        try:
            host = urlsplit(f"//{value}" if name == "host" else value).hostname or ""
        except ValueError:
            host = ""
        if name == "origin" and may_call(value, config.cors_origins):
            continue
        if not (is_loopback(host) or host in config.host.lower().replace(" ", "").split(",")):
            text = (
                f"{name.capitalize()} is {value[:100]!r}; without an API key only loopback names are answered"
            )
            raise Problem(403, text, code="not_local", headers=CLOSE)


def may_call(origin: str, origins: Sequence[str]) -> bool:
    """Whether the configuration lets pages of this origin read answers."""
    if origin in origins or "*" in origins:
        return True
    try:
        return "localhost" in origins and is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """localhost, 127.0.0.0/8 and ::1."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def send_whole(send: Send, status: int, body: bytes, **headers: str) -> None:
    """A JSON body with its head."""
    head: MutableMapping[str, Any] = {"type": "http.response.start", "status": status, "headers": []}
    fields = MutableHeaders(raw=head["headers"])
    fields.update({"content-type": "application/json", "content-length": str(len(body)), **headers})
    await send(head)
    await send({"type": "http.response.body", "body": body})


async def read_body(receive: Receive, config: ServerConfig) -> bytes:
    """The whole body.  Raises: Problem 413 or 408, ClientGone."""
    parts: list[bytes] = []

    async def read() -> None:
        num = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            num += len(part)
            if num > config.max_body_nbytes:
                text = f"the body has more than {config.max_body_nbytes} bytes"
                raise Problem(413, text, headers=CLOSE)
            parts.append(part)
            if not message.get("more_body", False):
                return

    try:
        await asyncio.wait_for(read(), config.body_s)
    except asyncio.TimeoutError:
        raise Problem(408, f"the body did not come within {config.body_s:g} s", headers=CLOSE) from None
    return b"".join(parts)
