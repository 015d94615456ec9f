"""From the bytes of a body to a checked request, and back to JSON.

A type says itself how strict it is: `unused` names are accepted and listed in the header x-tokamak-ignored, `aliases` are
other clients' words for a field; every further name is refused, or listed too where the type is `lenient`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import msgspec
from starlette.responses import Response

from tokamak.server.problems import Problem

Asked = TypeVar("Asked", bound="Body")
LIMITS = ("max_tokens", "max_completion_tokens", "n_predict")  # several names of one thing
MAX_DEPTH = 96  # of JSON inside a body


class Body(msgspec.Struct, kw_only=True):
    """What a client sends. See the module."""

    unused: ClassVar[frozenset[str]] = frozenset()
    aliases: ClassVar[dict[str, str]] = {}
    lenient: ClassVar[bool] = False


def read(
    kind: type[Asked], data: bytes, defaults: Mapping[str, Any] | None = None
) -> tuple[Asked, list[str]]:
    """(the request, names that have no effect). defaults: for fields that are absent or null.

    Raises: Problem, msgspec.ValidationError naming the field.
    """
    raw = msgspec.json.decode(data)
    if not isinstance(raw, dict):
        raise Problem(400, "the body is not a JSON object", code="invalid_json")
    check_depth(raw)
    for other, name in kind.aliases.items():
        if other in raw:
            value = raw.pop(other)
            if raw.setdefault(name, value) != value:
                raise Problem(400, f"{other} and {name} are given and differ; one is enough", param=other)
    known = set(kind.__struct_fields__)
    for name, value in (defaults or {}).items():
        own = kind.aliases.get(name, name)
        if own in known and all(raw.get(n) is None for n in (LIMITS if name in LIMITS else (own,))):
            raw[own] = value
    idle = [name for name in raw if name in kind.unused or (kind.lenient and name not in known)]
    ignored = [name for name in idle if raw.pop(name) is not None]
    return msgspec.convert(raw, kind), [name[:64] for name in ignored[:32]]


def check_depth(value: Any) -> None:
    """Raises: Problem for JSON nested deeper than anything that walks it should have to bear."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [x for item in level for x in _inside(item)]
        if not level:
            return
    raise Problem(400, f"the body is nested deeper than {MAX_DEPTH} levels", code="invalid_json")


def _inside(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, list) else []


def answer(value: object, status: int = 200) -> Response:
    """JSON of a msgspec type or of plain values."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")
