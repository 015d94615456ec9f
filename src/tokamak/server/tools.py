"""Tool calls and reasoning of an answer as pieces, while it is written, and the schema that holds an answer to a call.

Free answers are taken apart by the engine's `ToolParser`, which gives whole calls. An answer that has to be a call is
JSON by construction, so its arguments are passed on as they are written.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tokamak.engine.replies import ReplyEvent, ToolParser

NAMES, ARGUMENTS = ("name",), ("arguments",)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call. parameters: JSON schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]

    def described(self) -> dict[str, Any]:
        """As chat templates read it."""
        about = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": about}


@dataclass(frozen=True, slots=True)
class Piece:
    """Certain text of an answer. kind: "text", "reasoning", or "call": then of call `index`, whose id and name come first."""

    kind: str
    text: str
    index: int = 0
    id: str = ""
    name: str = ""


class Reader(Protocol):
    """Takes one answer apart. num_calls: that have begun."""

    num_calls: int

    def push(self, text: str) -> list[Piece]:
        """More of the answer; returns what is certain."""

    def finish(self) -> list[Piece]:
        """What was held back."""


def new_id() -> str:
    """Of a call."""
    return f"call_{uuid.uuid4().hex[:24]}"


class FreeReader:
    """An answer that may hold calls of the tools and, unless reasoning is False, reasoning. prompt: as rendered, whose end may
    have begun the reasoning."""

    def __init__(
        self, template: str | None, tools: Sequence[Tool], *, prompt: str = "", reasoning: bool = True
    ) -> None:
        described = [tool.described() for tool in tools]
        self.num_calls = 0
        self._parser = ToolParser.for_template(template, tools=described, prompt=prompt, reasoning=reasoning)

    def push(self, text: str) -> list[Piece]:
        """See Reader."""
        return self._pieces(self._parser.push(text))

    def finish(self) -> list[Piece]:
        """See Reader."""
        return self._pieces(self._parser.finish())

    def _pieces(self, events: Sequence[ReplyEvent]) -> list[Piece]:
        pieces = []
        for event in events:
            if event.call is not None:
                call, self.num_calls = event.call, self.num_calls + 1
                pieces.append(Piece("call", call.arguments, call.index, new_id(), call.name))
            else:
                pieces.append(Piece("text" if event.kind == "content" else "reasoning", event.text))
        return pieces


class ForcedReader:
    """An answer that is a call of one of names, or a list of such, and nothing else. What is none is text."""

    def __init__(self, names: Collection[str]) -> None:
        self.num_calls, self._names = 0, names
        self._call: CallScanner | None = None
        self._begun = self._failed = False

    def push(self, text: str) -> list[Piece]:
        """See Reader."""
        pieces: list[Piece] = []
        for at, char in enumerate(text):
            if self._failed:
                return [*pieces, Piece("text", text[at:])]
            pieces += self._read(char)
        return _merged(pieces)

    def finish(self) -> list[Piece]:
        """See Reader."""
        call, self._call = self._call, None
        return [Piece("text", call.raw)] if call is not None and not self._begun and call.raw else []

    def _read(self, char: str) -> list[Piece]:
        if self._call is None:
            if char.isspace() or char in "[],":
                return []
            self._call, self._begun = CallScanner(self._names), False
        call, known = self._call, self._call.name
        said, pieces = call.push(char), []
        if call.name is not None and known is None:
            self._begun = True
            self.num_calls += 1
            pieces.append(Piece("call", "", self.num_calls - 1, new_id(), call.name))
        if call.failed:
            self._failed, self._call = True, None
            return pieces if self._begun else [Piece("text", call.raw)]
        if said:
            pieces.append(Piece("call", said, self.num_calls - 1))
        if call.done:
            self._call = None
        return pieces


class CallScanner:
    """Reads one JSON object with a name and arguments, character by character.

    `name` once it is known and one of `names`; `push` then returns pieces of the arguments' own text.
    """

    def __init__(self, names: Collection[str]) -> None:
        self.names, self.raw = names, ""
        self.name: str | None = None
        self.done = self.failed = False
        self._depth, self._quoted, self._escaped = 0, False, False
        self._key: str | None = None
        self._start = -1  # of the string or value being read
        self._state = "open"
        self._kept = ""  # of arguments that came before the name
        self._sent = False

    def push(self, char: str) -> str:
        """One more character; returns arguments that are certain."""
        at = len(self.raw)
        self.raw += char
        if self._quoted:
            return self._in_string(char, at)
        if self._state == "value" and self._start >= 0 and self._depth == 1 and char in ",}":
            out = self._end_value(at)
            self._state = "key" if char == "," else self._state
            if char == "}":
                self._depth, self.done = 0, True
                out += self._rest()
            return out
        return self._outside(char, at)

    def _in_string(self, char: str, at: int) -> str:
        if self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = True
        elif char == '"':
            self._quoted = False
            if self._state == "key" and self._depth == 1:
                self._key, self._state = _string(self.raw[self._start : at + 1]), "colon"
                self._start = -1
        return self._forward(char)

    def _outside(self, char: str, at: int) -> str:
        if char.isspace():
            return self._forward(char) if self._start >= 0 and self._depth > 1 else ""
        if self._state == "open":
            self.failed = char != "{"
            self._depth, self._state = 1, "key"
            return ""
        if self._state == "key" and self._depth == 1:
            self._start, self._quoted = at, char == '"'
            if char == "}" and self.raw.strip() != "{":
                self.done = True
                return self._rest()
            self.failed = not self._quoted
            return ""
        if self._state == "colon":
            self.failed, self._state = char != ":", "value"
            return ""
        if self._start < 0:
            self._start = at
        self._quoted = char == '"'
        self._depth += (char in "{[") - (char in "}]")
        if self._depth < 1:
            self.failed = True
            return ""
        return self._forward(char)

    def _forward(self, char: str) -> str:
        """A character of a value: of the arguments it is sent on, unless they are a string, whose text is decoded at its end."""
        if self._key not in ARGUMENTS or self._state != "value" or self.raw[self._start] == '"':
            return ""
        if self.name is None:
            self._kept += char
            return ""
        self._sent = True
        return char

    def _end_value(self, at: int) -> str:
        value, key, self._start = self.raw[self._start : at].strip(), self._key, -1
        self._key = None
        if key in NAMES and self.name is None:
            name = _string(value)
            self.failed = name not in self.names
            self.name = None if self.failed else name
        elif key in ARGUMENTS and value[:1] == '"':
            self._kept = _string(value) or "{}"
        out = ""
        if self.name is not None and self._kept:
            out, self._kept, self._sent = self._kept, "", True
        return out

    def _rest(self) -> str:
        """At the end: a call without arguments has empty ones."""
        self.failed = self.failed or self.name is None
        return "" if self.failed or self._sent else "{}"


def _string(text: str) -> str | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, str) else None


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of one kind joined."""
    out: list[Piece] = []
    for piece in pieces:
        last = out[-1] if out else None
        if last and (last.kind, last.index) == (piece.kind, piece.index) and not piece.name:
            out[-1] = Piece(last.kind, last.text + piece.text, last.index, last.id, last.name)
        else:
            out.append(piece)
    return out


def forced_schema(tools: Sequence[Tool], *, several: bool) -> dict[str, Any]:
    """JSON schema of one call of these tools, or of a list of one to eight."""
    calls = []
    definitions: dict[str, Any] = {}
    for number, tool in enumerate(tools):
        key = f"tool{number}"
        definitions[key] = _rebased(tool.parameters or {"type": "object"}, f"#/$defs/{key}")
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool.name}, "arguments": {"$ref": f"#/$defs/{key}"}},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    one = calls[0] if len(calls) == 1 else {"anyOf": calls}
    schema = {"type": "array", "items": one, "minItems": 1, "maxItems": 8} if several else one
    return {**schema, "$defs": definitions}


def _rebased(schema: Any, root: str) -> Any:
    """A schema moved to another place: its references into itself follow."""
    if isinstance(schema, dict):
        return {
            k: root + v[1:] if k == "$ref" and isinstance(v, str) and v.startswith("#") else _rebased(v, root)
            for k, v in schema.items()
        }
    return [_rebased(item, root) for item in schema] if isinstance(schema, list) else schema


@dataclass(slots=True)
class Block:
    """A run of pieces of one kind. kind, id, name: as of Piece."""

    kind: str
    text: str = ""
    id: str = ""
    name: str = ""


class Blocks:
    """Pieces in the order of an answer as blocks, for protocols that number them. every: those so far."""

    def __init__(self) -> None:
        self.every: list[Block] = []

    def add(self, pieces: Sequence[Piece]) -> list[tuple[str, int, str]]:
        """("begin" | "more" | "end", number of the block, text that it gets)."""
        steps: list[tuple[str, int, str]] = []
        for piece in pieces:
            last = self.every[-1] if self.every else None
            same = last is not None and last.kind == piece.kind and not piece.name
            if not same or last is None:
                steps += self.end() if self.every else []
                last = Block(piece.kind, "", piece.id, piece.name)
                self.every.append(last)
                steps.append(("begin", len(self.every) - 1, ""))
            if piece.text:
                last.text += piece.text
                steps.append(("more", len(self.every) - 1, piece.text))
        return steps

    def end(self) -> list[tuple[str, int, str]]:
        """The last block gets no more."""
        return [("end", len(self.every) - 1, "")] if self.every else []
