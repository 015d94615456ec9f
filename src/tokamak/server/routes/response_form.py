"""How /v1/responses writes what was generated: one object, or typed and numbered events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tokamak.engine.async_llm import AsyncStream
from tokamak.engine.request import StepOutput
from tokamak.server.items import block_of, item_id, output_item, part_of
from tokamak.server.problems import Problem
from tokamak.server.stream import COMMENT, SSE, named, usage_of
from tokamak.server.tools import Blocks, Reader

NAMES = {
    "text": ("response.output_text", "text"),
    "reasoning": ("response.reasoning_text", "text"),
    "call": ("response.function_call_arguments", "arguments"),
}


class ResponseForm:
    """See `Form`. head: the response without output. count: tokens of a text. done: told the finished response."""

    media_type, ping = SSE, COMMENT

    def __init__(
        self,
        head: dict[str, Any],
        reader: Reader,
        count: Callable[[str], int],
        done: Callable[[dict[str, Any]], None],
    ) -> None:
        self.response, self._reader, self._count, self._done = head, reader, count, done
        self._blocks = Blocks()
        self._ids: list[str] = []
        self._number = -1

    def opening(self) -> Iterator[bytes]:
        """The response as it begins."""
        yield self._event("response.created", response=self.response)
        self.response["status"] = "in_progress"
        yield self._event("response.in_progress", response=self.response)

    def chunks(self, _prompt: int, output: StepOutput) -> list[bytes]:
        """Items and their parts as they begin, grow and end."""
        pieces = self._reader.push(output.text)
        if output.finish_reason is not None:
            pieces += self._reader.finish()
        return [event for step in self._blocks.add(pieces) for event in self._events(*step, "completed")]

    def closing(self, streams: list[AsyncStream]) -> list[bytes]:
        """The last item's end and the whole response."""
        last = "incomplete" if streams[0].completion.finish_reason == "length" else "completed"
        ends = [event for step in self._blocks.end() for event in self._events(*step, last)]
        response = self._finished(streams)
        return [*ends, self._event(f"response.{response['status']}", response=response)]

    def failure(self, problem: Problem) -> bytes:
        """The response as failed; it is kept so."""
        facts = problem.facts
        self.response |= {"status": "failed", "error": {"code": "server_error", "message": facts.message}}
        self._done(self.response)
        error = self._event("error", code=facts.code, message=facts.message, param=facts.param)
        return error + self._event("response.failed", response=self.response)

    def whole(self, streams: list[AsyncStream]) -> dict[str, Any]:
        """The response."""
        self._blocks.add([*self._reader.push(streams[0].completion.text), *self._reader.finish()])
        return self._finished(streams)

    def again(self, answer: dict[str, Any]) -> Iterator[bytes]:
        """The events of a stored response that has ended, after the opening. Each item comes in one piece."""
        self._blocks.every = [block_of(item) for item in answer["output"]]
        self._ids = [item["id"] for item in answer["output"]]
        for at, (block, item) in enumerate(zip(self._blocks.every, answer["output"], strict=True)):
            for verb in ("begin", "more", "end"):
                yield from self._events(verb, at, block.text, item["status"])
        yield self._event(f"response.{answer['status']}", response=answer)

    def _finished(self, streams: list[AsyncStream]) -> dict[str, Any]:
        cut = streams[0].completion.finish_reason == "length"
        every = self._blocks.every
        self._ids += [item_id(block) for block in every[len(self._ids) :]]
        ends = ["completed"] * (len(every) - 1) + ["incomplete" if cut else "completed"]
        items = zip(every, self._ids, ends[-len(every) :] if every else (), strict=True)
        usage = usage_of(streams)
        thought = "".join(block.text for block in every if block.kind == "reasoning")
        self.response |= {
            "status": "incomplete" if cut else "completed",
            "completed_at": int(time.time()),
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [output_item(*item) for item in items],
            "usage": {
                "input_tokens": usage.prompt_tokens,
                "input_tokens_details": {
                    "cached_tokens": usage.prompt_tokens_details.cached_tokens,
                    "cache_write_tokens": 0,
                },
                "output_tokens": usage.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": self._count(thought) if thought else 0},
                "total_tokens": usage.total_tokens,
            },
        }
        self._done(self.response)
        return self.response

    def _events(self, verb: str, at: int, text: str, status: str) -> Iterator[bytes]:
        block = self._blocks.every[at]
        if len(self._ids) == at:
            self._ids.append(item_id(block))
        name, key = NAMES[block.kind]
        item: dict[str, Any] = {"output_index": at}
        inside: dict[str, Any] = {"item_id": self._ids[at], **item}
        if block.kind != "call":
            inside["content_index"] = 0
        logprobs: dict[str, Any] = {"logprobs": []} if block.kind == "text" else {}
        if verb == "begin":
            begun = replace(block, text="")
            added = output_item(begun, self._ids[at], "in_progress")
            yield self._event("response.output_item.added", **item, item=added)
            if block.kind != "call":
                yield self._event("response.content_part.added", **inside, part=part_of(begun))
        elif verb == "more":
            yield self._event(f"{name}.delta", **inside, delta=text, **logprobs)
        else:
            named_call = {"name": block.name} if block.kind == "call" else {}
            yield self._event(f"{name}.done", **inside, **{key: block.text}, **logprobs, **named_call)
            if block.kind != "call":
                yield self._event("response.content_part.done", **inside, part=part_of(block))
            ended = output_item(block, self._ids[at], status)
            yield self._event("response.output_item.done", **item, item=ended)

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._number += 1
        return named(kind, {"type": kind, "sequence_number": self._number, **fields})
