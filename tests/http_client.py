"""Speaks to a server application in process, without a socket."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import httpx

BASE = "http://127.0.0.1"


@asynccontextmanager
async def client(app, **headers):
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url=BASE, headers=headers) as opened:
        yield opened


def encoded(body):
    return body if body is None or isinstance(body, bytes) else json.dumps(body).encode()


def request(app, path, body=None, *, method=None, headers=None):
    """One request in an event loop of its own; GET without a body."""

    async def go():
        async with client(app) as c:
            verb = method or ("GET" if body is None else "POST")
            return await c.request(verb, path, content=encoded(body), headers=headers)

    return asyncio.run(go())


def events(text: str) -> list:
    """Server-sent events as JSON; "[DONE]" stays a string."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]
