"""A chat in OpenAI's words: what the text has to follow, messages as templates take them, and replies back into messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokamak.compat import openai_shapes as shapes
from tokamak.compat.openai_shapes import Json
from tokamak.engine.replies import ReplyEvent, ToolCall, ToolParser
from tokamak.errors import InvalidParams, UnsupportedError

if TYPE_CHECKING:
    from tokamak.engine.completion import Completion


class Reading:
    """A reply on its way into messages. named: the tool whose arguments the text is, if the caller chose one."""

    def __init__(self, parser: ToolParser, named: str | None) -> None:
        self._parser, self._named = parser, named
        self._num_calls, self._written = 0, ""

    def whole(self, done: Completion) -> tuple[Json, str]:
        """The message, and why it ended."""
        if self._named is not None:
            events = [named_call(self._named, done.text)]
        else:
            events = [*self._parser.push(done.text), *self._parser.finish()]
        content = "".join(e.text for e in events if e.kind == "content")
        reasoning = "".join(e.text for e in events if e.kind == "reasoning")
        calls = [e.call for e in events if e.call is not None]
        self._num_calls = len(calls)
        message: Json = {"role": "assistant", "content": content if content or not calls else None}
        message |= {"reasoning_content": reasoning} if reasoning else {}
        message |= {"tool_calls": shapes.tool_calls(calls)} if calls else {}
        return message, self.reason(done)

    def push(self, text: str) -> Iterator[Json]:
        """Deltas that are certain after this piece."""
        if self._named is not None:
            self._written += text
            return iter(())
        return self._deltas(self._parser.push(text))

    def finish(self) -> Iterator[Json]:
        """The last ones."""
        if self._named is not None:
            return self._deltas([named_call(self._named, self._written)])
        return self._deltas(self._parser.finish())

    def reason(self, done: Completion) -> str:
        """Why the message ended."""
        return "tool_calls" if self._num_calls and done.finish_reason == "stop" else done.finish_reason

    def _deltas(self, events: Sequence[ReplyEvent]) -> Iterator[Json]:
        for event in events:
            if event.call is not None:
                self._num_calls += 1
                (call,) = shapes.tool_calls([event.call])
                yield {"tool_calls": [{"index": event.call.index, **call}]}
            else:
                yield {"content" if event.kind == "content" else "reasoning_content": event.text}


def named_call(name: str, text: str) -> ReplyEvent:
    """A call whose arguments are all of the text."""
    return ReplyEvent("tool_call", call=ToolCall(0, name, text))


def constraint(
    form: Mapping[str, Any] | None, tools: Sequence[Mapping[str, Any]] | None, named: str | None
) -> dict[str, Any]:
    """What the text has to follow: arguments of a chosen tool, or the format asked for."""
    if named is not None:
        chosen = next((t["function"] for t in tools or () if t["function"]["name"] == named), None)
        if chosen is None:
            raise InvalidParams(f"tool_choice names {named!r}, which is none of the tools")
        return {"json_schema": chosen.get("parameters") or {"type": "object"}}
    if form is None or form.get("type") == "text":
        return {}
    if form.get("type") == "json_object":
        return {"json_schema": form.get("schema") or {"type": "object"}}
    if form.get("type") == "json_schema":
        return {"json_schema": form["json_schema"]["schema"]}
    raise InvalidParams(
        f"response_format has the type {form.get('type')!r}; it must be text, json_object or json_schema"
    )


def plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message whose content is text."""
    content = message.get("content")
    if isinstance(content, list):
        if any(part.get("type") != "text" for part in content):
            raise UnsupportedError("a message has a part that is no text")
        content = "\n".join(part["text"] for part in content)
    made = {**message, "content": content or ""}
    if made.get("tool_calls"):  # templates write mappings, clients send text
        made["tool_calls"] = [_with_mapping(call) for call in made["tool_calls"]]
    return made


def _with_mapping(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            raise InvalidParams(
                f"arguments of {function.get('name')!r} are no JSON: {arguments!r:.80}"
            ) from None
    return {**call, "function": {**function, "arguments": arguments}}
