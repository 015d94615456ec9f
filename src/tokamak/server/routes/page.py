"""GET / and /ui/*: the page, as it lies in the package. No build step, nothing from elsewhere, no inline script."""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tokamak.server.problems import Problem
from tokamak.server.state import State

FOLDER = Path(__file__).parents[1] / "ui"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
OPERATIONS = (
    ("/", "get", None, None, "The page."),
    ("/ui/{id}", "get", None, None, "A file of the page."),
)


def routes(_: State) -> list[Route]:
    """Every file is read once, at the start; a name that is none of them is 404."""
    files = {path.name: path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.suffix in KINDS}

    async def file(request: Request) -> Response:
        name = request.path_params.get("id", "index.html")
        if name not in files:
            raise Problem(404, f"the page has no file {name[:100]!r}", code="not_found")
        tag = f'"{hashlib.sha256(files[name]).hexdigest()[:16]}"'
        headers = {**HEADERS, "etag": tag, "content-type": KINDS[Path(name).suffix]}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(files[name], headers=headers)

    return [Route("/", file), Route("/ui/{id}", file)]
