"""What a model wrote, taken apart while it is written: answer, reasoning, tool calls.

Pure: text in, events out; a mark that is cut anywhere between two pieces is still found, and text that can still become a mark is
held back. Nothing is lost: what looked like a call and cannot be read comes out as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tokamak.engine.dialects import CALLS, FRAMES, REASONING, Call, Section, json_calls

MAX_CLOSES = 8  # closing marks tried for one section: the first may stand inside a string
BARE = Section("", (), json_calls)  # a reply that is nothing but an object
CALL_KEYS = ("name", "type", "function", "parameters", "arguments", "tool_name", "id")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """index: counts the calls of a reply. arguments: JSON text of an object. id: the model's own, if it gave one."""

    index: int
    name: str
    arguments: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class ReplyEvent:
    """A piece of a reply: text of the answer or of the reasoning, or one whole call."""

    kind: Literal["content", "reasoning", "tool_call"]
    text: str = ""
    call: ToolCall | None = None


class ToolParser:
    """Follows one reply. `push` every piece of text in order, then `finish`; texts of the events join to the reply without its
    marks, and without the white space between its parts.
    """

    def __init__(
        self,
        sections: Sequence[Section],
        frames: Sequence[str] = (),
        *,
        bare: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        started: str = "",
    ) -> None:
        """bare: a reply that is only an object may be a call. started: what the prompt has written of the reply already."""
        self._by_mark: dict[str, Section | None] = dict.fromkeys(frames)
        self._by_mark |= {section.opens: section for section in sections}
        self._tools = None if tools is None else _schemas(tools)
        self._bare, self._buffer = bare, started
        self._space = ""  # at the end of the text so far: given out when text follows
        self._after_mark = False  # white space that comes next belongs to no part
        self._section: Section | None = None
        self._num_calls = self._tried = self._searched = 0

    @classmethod
    def for_template(
        cls,
        template: str | None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        prompt: str = "",
        reasoning: bool = True,
    ) -> ToolParser:
        """The parser for the replies of a model.

        template: source of its chat template, None for unknown: the most common marks. tools: as in a request of
        OpenAI's; None: any name is a call; empty: only reasoning is looked for. prompt: the rendered prompt, whose end may
        have opened a section. reasoning: False leaves it in the answer, with its marks.
        """
        thoughts = REASONING if reasoning else ()
        calls = CALLS if tools is None or tools else ()
        if template is None:
            common = ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<think>")
            sections = [s for s in (*thoughts, *calls) if s.opens in common]
            frames: list[str] = []
        else:
            sections = [s for s in (*thoughts, *calls) if _uses(template, s)]
            frames = [mark for mark, tell in FRAMES if (tell or mark) in template]
        marked = any(s.read is not None and s.opens != "<|python_tag|>" for s in sections)
        bare = bool(calls) and (template is None or not marked)
        end = prompt.rstrip()
        started = next((s.opens for s in sections if end.endswith(s.opens.rstrip())), "")
        return cls(sections, frames, bare=bare, tools=tools, started=started)

    def push(self, text: str) -> list[ReplyEvent]:
        """The events that are certain after this piece."""
        self._buffer += text
        events: list[ReplyEvent] = []
        while self._advance(events):
            pass
        return events

    def finish(self) -> list[ReplyEvent]:
        """What is left when no more text will come."""
        events: list[ReplyEvent] = []
        section, rest = self._section, self._buffer
        self._buffer, self._section = "", None
        if section is None or section.read is None:
            self._say("content" if section is None else "reasoning", rest, events)
        elif not self._read(section, rest, events):
            self._say("content", section.opens.removesuffix(section.keep) + rest, events)
        if self._space and not self._num_calls and (section is None or section.read is not None):
            events.append(ReplyEvent("content", self._space))
        self._space = ""
        return events

    def _advance(self, events: list[ReplyEvent]) -> bool:
        """One step through the buffer; False when more text is needed."""
        section = self._section
        if section is None:
            if self._bare and self._buffer.lstrip().startswith(("{", "[")) and not self._first_mark()[1]:
                self._section, self._bare = BARE, False
                return True
            return self._to_mark(events)
        if section is BARE:
            return self._while_likely()
        return self._thinking(section, events) if section.read is None else self._calling(section, events)

    def _to_mark(self, events: list[ReplyEvent]) -> bool:
        """Text up to the next mark is the answer's."""
        at, mark = self._first_mark()
        held = at if mark else len(self._buffer) - _started_mark(self._buffer, self._by_mark)
        self._say("content", self._buffer[:held], events)
        self._buffer = self._buffer[held:]
        if not mark or any(m != mark and m.startswith(self._buffer) for m in self._by_mark):
            return False  # a longer mark may still come of it
        self._buffer = self._buffer[len(mark) :]
        section = self._by_mark[mark]
        if section is not None:
            self._section, self._tried, self._searched = section, 0, 0
            self._buffer = section.keep + self._buffer
        if section is None or section.read is None:
            self._space, self._after_mark = "", True
        return True

    def _first_mark(self) -> tuple[int, str]:
        """Where the first mark begins, and the longest that does; (0, "") if there is none."""
        found = [(at, -len(m), m) for m in self._by_mark if (at := self._buffer.find(m)) >= 0]
        return (min(found)[0], min(found)[2]) if found else (0, "")

    def _thinking(self, section: Section, events: list[ReplyEvent]) -> bool:
        found = [(at, close) for close in section.closes if (at := self._buffer.find(close)) >= 0]
        end, close = (
            min(found) if found else (len(self._buffer) - _started_mark(self._buffer, section.closes), "")
        )
        self._say("reasoning", self._buffer[:end], events)
        self._buffer = self._buffer[end + len(close) :]
        if found:
            self._section, self._space, self._after_mark = None, "", True
        return bool(found)

    def _calling(self, section: Section, events: list[ReplyEvent]) -> bool:
        found = [(at, c) for c in section.closes if (at := self._buffer.find(c, self._searched)) >= 0]
        if not found:
            longest = max(map(len, section.closes), default=1)
            self._searched = max(self._searched, len(self._buffer) - longest + 1)
            return False
        end, close = min(found)
        inside = self._buffer[:end]
        self._tried += 1
        if not self._read(section, inside, events):
            self._searched = end + len(close)  # perhaps it stands inside a string
            if self._tried < MAX_CLOSES:
                return True
            self._say("content", section.opens.removesuffix(section.keep) + inside + close, events)
        self._buffer = self._buffer[end + (0 if close in self._by_mark else len(close)) :]
        self._section = None
        return True

    def _while_likely(self) -> bool:
        """Collects a reply that may be a bare call, and gives it out as text as soon as it cannot be one."""
        match = _OBJECT.match(self._buffer)
        key, rest = (match["key"], self._buffer[match.end() :]) if match else (None, self._buffer)
        if key is None or (match and not match["end"]):
            likely = not rest.strip() and any(k.startswith(key or "") for k in CALL_KEYS)
        else:
            likely = key in CALL_KEYS
        if not likely:
            self._section = None
        return not likely

    def _read(self, section: Section, inside: str, events: list[ReplyEvent]) -> bool:
        """Adds the calls of a section; False if they cannot be read."""
        try:
            calls = section.read(inside) if section.read else []
        except (ValueError, RecursionError):
            return False
        if section is BARE and self._tools is not None and any(c.name not in self._tools for c in calls):
            return False
        for call in calls:
            arguments = json.dumps(self._typed(call), ensure_ascii=False)
            called = ToolCall(self._num_calls, call.name, arguments, call.id)
            events.append(ReplyEvent("tool_call", call=called))
            self._num_calls += 1
        self._space, self._after_mark = "", True
        return True

    def _typed(self, call: Call) -> Mapping[str, Any]:
        """Arguments; those that were written without quotes as the tool's schema has them."""
        schema = (self._tools or {}).get(call.name, {})
        arguments = dict(call.arguments)
        for name in call.unsure:
            if schema.get(name) == "string":
                arguments[name] = call.unsure[name]
        return arguments

    def _say(self, kind: Literal["content", "reasoning"], text: str, events: list[ReplyEvent]) -> None:
        """Gives text out; white space at its end waits until more follows, at the beginning of a part it is dropped."""
        text = text.lstrip() if self._after_mark else self._space + text
        body = text.rstrip()
        self._space = text[len(body) :]
        if body:
            events.append(ReplyEvent(kind, body))
            self._after_mark = self._bare = False


_OBJECT = re.compile(r'\s*\[?\s*(?:\{\s*(?:"(?P<key>\w*)(?P<end>")?)?)?')


def _started_mark(text: str, marks: Iterable[str]) -> int:
    """Characters at the end of text that are the beginning of a mark, as many as possible."""
    most = 0
    for mark in marks:
        for length in range(min(len(mark) - 1, len(text)), most, -1):
            if text.endswith(mark[:length]):
                most = length
                break
    return most


def _schemas(tools: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Type of each parameter of each tool, as far as it is stated."""
    types: dict[str, dict[str, Any]] = {}
    for tool in tools:
        function = tool.get("function", tool)
        properties = (function.get("parameters") or {}).get("properties") or {}
        types[str(function.get("name"))] = {
            name: schema.get("type") for name, schema in properties.items() if isinstance(schema, Mapping)
        }
    return types


def _uses(template: str, section: Section) -> bool:
    return (section.tell or section.opens) in template
