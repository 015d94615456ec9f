"""Items of /v1/responses: what clients put in, as messages of a template; what a model wrote, as items; what is kept of both."""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec import Struct

from tokamak.errors import InvalidParams
from tokamak.server.problems import Problem
from tokamak.server.schemas import called
from tokamak.server.tools import Block

MAX_KEPT = 1024  # responses of all keys together
MAX_KEPT_NBYTES = 64 << 20  # of their texts
KEEP_S = 6 * 3600.0


class ItemPart(Struct):
    """A piece of a message or of an output. image_url: data:image/png;base64,... of an input_image of the user; nothing is fetched.

    file_id: refused, as sound and files are. detail: accepted; an image has one size.
    """

    type: Literal[
        "input_text", "input_image", "output_text", "text", "refusal", "reasoning_text", "summary_text"
    ]
    text: str = ""
    refusal: str = ""
    image_url: str | None = None
    detail: str | None = None
    file_id: None = None


class Item(Struct):
    """One item of the input: a message (no type, or "message"), a call, its result, reasoning, or a reference to a stored item."""

    type: (
        Literal["message", "function_call", "function_call_output", "reasoning", "item_reference"] | None
    ) = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[ItemPart] | None = None
    id: str | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = "{}"
    output: str | list[ItemPart] = ""
    status: str | None = None
    summary: list[ItemPart] | None = None
    encrypted_content: str | None = None
    phase: str | None = None


def text_of(parts: str | list[ItemPart] | None) -> str:
    """Joined by line ends."""
    if parts is None or isinstance(parts, str):
        return parts or ""
    return "\n".join(part.text or part.refusal for part in parts)


def content_of(item: Item) -> str | list[dict[str, Any]]:
    """Of a message: its text, or its parts where there are images.  Raises: InvalidParams for an image of somebody else, or none."""
    if not images_of(item):
        return text_of(item.content)
    if item.role != "user" or any(not url for url in images_of(item)):
        raise InvalidParams("input has an input_image without image_url, or not in a message of the user")
    return [
        {"type": "image_url", "image_url": {"url": part.image_url}}
        if part.type == "input_image"
        else {"type": "text", "text": part.text or part.refusal}
        for part in item.content or ()
        if isinstance(part, ItemPart)
    ]


def images_of(item: Item) -> list[str]:
    """Their addresses, wherever in the item they are."""
    lists = [given for given in (item.content, item.output, item.summary) if isinstance(given, list)]
    return [part.image_url or "" for parts in lists for part in parts if part.type == "input_image"]


def messages_of(items: list[Item]) -> list[dict[str, Any]]:
    """For the chat template: calls go to the message of the assistant they follow.  Raises: InvalidParams."""
    messages: list[dict[str, Any]] = []
    thought = ""
    for item in items:
        if item.type not in (None, "message") and images_of(item):
            raise InvalidParams(f"input has an input_image in an item of type {item.type!r}")
        if item.type == "reasoning":
            thought = text_of(item.content)
        elif item.type == "function_call_output":
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": text_of(item.output)})
        elif item.type == "function_call":
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": ""})
            call = called(item.call_id, item.name, item.arguments)
            messages[-1].setdefault("tool_calls", []).append(call)
        elif item.role is None:
            raise InvalidParams(
                f"input has a message without a role, or an item of type {item.type!r} without content"
            )
        else:
            role = "system" if item.role == "developer" else item.role
            messages.append({"role": role, "content": content_of(item)})
        if thought and messages and messages[-1]["role"] == "assistant":
            messages[-1]["reasoning_content"], thought = thought, ""
    return messages


def shown(item: Item) -> dict[str, Any]:
    """An item of the input as /input_items gives it back, with an id."""
    if item.type in (None, "message"):
        parts = [ItemPart("text", item.content)] if isinstance(item.content, str) else item.content or []
        content = [_shown_part(part, item.role) for part in parts]
        body = {"type": "message", "role": item.role, "content": content, "status": "completed"}
        return {"id": item.id or f"msg_{uuid.uuid4().hex[:24]}", **body}
    if item.type == "function_call":
        body = {"type": item.type, "call_id": item.call_id, "name": item.name, "arguments": item.arguments}
        return {"id": item.id or f"fc_{uuid.uuid4().hex[:24]}", "status": "completed", **body}
    if item.type == "function_call_output":
        body = {"type": item.type, "call_id": item.call_id, "output": text_of(item.output)}
        return {"id": item.id or f"fco_{uuid.uuid4().hex[:24]}", "status": "completed", **body}
    body = {
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": text_of(item.content)}],
    }
    return {"id": item.id or f"rs_{uuid.uuid4().hex[:24]}", **body}


def _shown_part(part: ItemPart, role: str | None) -> dict[str, Any]:
    if part.type == "input_image":
        return {"type": part.type, "image_url": part.image_url, "detail": part.detail or "auto"}
    text = part.text or part.refusal
    if role != "assistant":
        return {"type": "input_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


PREFIX = {"text": "msg", "reasoning": "rs", "call": "fc"}


def item_id(block: Block) -> str:
    """A new one for what a model wrote."""
    return f"{PREFIX[block.kind]}_{uuid.uuid4().hex[:24]}"


def part_of(block: Block) -> dict[str, Any]:
    """The one part of a message or of reasoning."""
    if block.kind == "reasoning":
        return {"type": "reasoning_text", "text": block.text}
    return {"type": "output_text", "text": block.text, "annotations": [], "logprobs": []}


def output_item(block: Block, number: str, status: str) -> dict[str, Any]:
    """What a model wrote as an item. number: its id. status: in_progress, completed or incomplete."""
    if block.kind == "call":
        body = {"type": "function_call", "call_id": block.id, "name": block.name, "arguments": block.text}
        return {"id": number, **body, "status": status}
    content = [] if status == "in_progress" else [part_of(block)]
    if block.kind == "reasoning":
        return {"id": number, "type": "reasoning", "summary": [], "content": content, "status": status}
    return {"id": number, "type": "message", "role": "assistant", "status": status, "content": content}


def block_of(output: dict[str, Any]) -> Block:
    """The reverse of `output_item`."""
    if output["type"] == "function_call":
        return Block("call", output["arguments"], output["call_id"], output["name"])
    kind = "reasoning" if output["type"] == "reasoning" else "text"
    return Block(kind, "".join(part["text"] for part in output["content"]))


def item_of(output: dict[str, Any]) -> Item:
    """What a model wrote, as input of the next turn."""
    if output["type"] == "function_call":
        names = ("type", "id", "call_id", "name", "arguments")
        return Item(**{name: output[name] for name in names})
    text = "".join(part["text"] for part in output["content"])
    if output["type"] == "reasoning":
        return Item(type="reasoning", id=output["id"], content=text)
    return Item(type="message", role="assistant", id=output["id"], content=text)


def _size_of(item: Item) -> int:
    texts = [text_of(item.content), text_of(item.output), item.arguments, *images_of(item)]
    return sum(len(text) for text in texts)


@dataclass(slots=True)
class Kept:
    """A response: its answer, the items of this turn's input, and all items up to its end. stop: ends it while it runs."""

    answer: dict[str, Any]
    given: list[dict[str, Any]]
    items: list[Item]
    until_s: float
    nbytes: int
    stop: Any = None


@dataclass(slots=True)
class Store:
    """Responses in memory, found by who made them only; the oldest go first, all after KEEP_S."""

    kept: OrderedDict[tuple[str, str], Kept] = field(default_factory=OrderedDict)
    nbytes: int = 0

    def put(self, salt: str, answer: dict[str, Any], given: list[dict[str, Any]], items: list[Item]) -> Kept:
        """Keep one, instead of the one with its id."""
        key = (salt, answer["id"])
        before = self.kept.get(key)
        size = len(str(answer)) + len(str(given)) + sum(_size_of(i) for i in items)
        self.drop(*key)
        stop = before.stop if before else None
        kept = self.kept[key] = Kept(answer, given, items, time.monotonic() + KEEP_S, size, stop)
        self.nbytes += size
        while len(self.kept) > 1 and (len(self.kept) > MAX_KEPT or self.nbytes > MAX_KEPT_NBYTES):
            self.drop(*next(iter(self.kept)))
        return kept

    def get(self, salt: str, number: str) -> Kept:
        """By id.  Raises: Problem 404."""
        kept = self.kept.get((salt, number))
        if kept is None or kept.until_s < time.monotonic():
            self.drop(salt, number)
            text = (
                f"the response {number[:100]!r} is not here: it was never stored, was deleted, or is too old"
            )
            raise Problem(404, text, code="response_not_found")
        return kept

    def drop(self, salt: str, number: str) -> None:
        """Forget one; nothing if it is not there."""
        kept = self.kept.pop((salt, number), None)
        self.nbytes -= kept.nbytes if kept else 0
