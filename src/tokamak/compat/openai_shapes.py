"""Answers in the shapes of OpenAI's API as plain dicts, for the interfaces that give such."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokamak.engine.replies import ToolCall

if TYPE_CHECKING:
    from tokamak.engine.completion import Completion
    from tokamak.sampling import TokenLogprob
    from tokamak.tokenizers import Tokenizer

Json = dict[str, Any]


def head(prefix: str, kind: str, model: str) -> Json:
    """What every answer begins with."""
    return {"id": f"{prefix}-{uuid.uuid4()}", "object": kind, "created": int(time.time()), "model": model}


def usage(done: Completion) -> Json:
    """Counts of tokens."""
    u = done.usage
    return {
        "prompt_tokens": u.prompt_tokens,
        "completion_tokens": u.completion_tokens,
        "total_tokens": u.total_tokens,
    }


def text_logprobs(entries: Sequence[TokenLogprob | None], tokenizer: Tokenizer, start: int) -> Json:
    """Log-probabilities of a text completion. start: offset of the first token in prompt and completion together."""
    tokens = [_text(tokenizer, e) for e in entries]
    offsets = [start + sum(map(len, tokens[:i])) for i in range(len(tokens))]
    return {
        "tokens": tokens,
        "text_offset": offsets,
        "token_logprobs": [None if e is None else e.logprob for e in entries],
        "top_logprobs": [
            None if e is None else {tokenizer.decode([i], continues=True): p for i, p in e.top}
            for e in entries
        ],
    }


def chat_logprobs(entries: Sequence[TokenLogprob | None], tokenizer: Tokenizer) -> Json:
    """Log-probabilities of a message."""

    def one(token_id: int, logprob: float) -> Json:
        spelled = tokenizer.id_to_bytes(token_id)
        text = tokenizer.decode([token_id], continues=True)
        return {"token": text, "logprob": logprob, "bytes": list(spelled)}

    content = [
        {**one(e.token_id, e.logprob), "top_logprobs": [one(i, p) for i, p in e.top]}
        for e in entries
        if e is not None
    ]
    return {"content": content, "refusal": None}


def tool_calls(calls: Sequence[ToolCall]) -> list[Json]:
    """Calls of a message; those without an id of the model's get one."""
    return [
        {
            "id": call.id or f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in calls
    ]


def _text(tokenizer: Tokenizer, entry: TokenLogprob | None) -> str:
    return "" if entry is None else tokenizer.decode([entry.token_id], continues=True)
