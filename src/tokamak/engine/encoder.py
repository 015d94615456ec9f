"""`Encoder`: a loaded model that makes vectors and scores of texts, not more text.

Every token sees every other, so a text is read in one step, whole; several texts share a step and each result is the same bits as
alone. Nothing is kept between steps: there is no prefix to reuse.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, chain
from typing import Any

import numpy as np

from tokamak.engine.llm import LLM, Prepared
from tokamak.errors import Cancelled, ContextOverflow, InvalidParams, UnsupportedError
from tokamak.types import Batch, Floats, Ints, Limits

POOLINGS = ("none", "mean", "cls", "last", "rank")  # as numbered in GGUF's pooling_type


def encoder_limits(limits: Limits, context: int) -> Limits:
    """Limits that hold any one text whole. K and V live for one step, so they are kept exact."""
    rows = max(limits.max_rows, context)
    blocks = -(-rows // limits.block_size) + limits.max_sequences
    return replace(limits, max_rows=rows, num_blocks=blocks, kv_dtype="f32")


class Encoder(LLM):
    """An LLM that only embeds and ranks. pooling: one of POOLINGS, what the model says it was trained for. labels: of its head."""

    def __init__(self, *args: Any, pooling: str = "mean", labels: int = 0, **options: Any) -> None:
        super().__init__(*args, **options)
        if pooling not in POOLINGS:
            raise UnsupportedError(f"pooling {pooling!r} is none of {', '.join(POOLINGS)}")
        self.pooling, self.labels = pooling, labels
        self.hidden_size = self.program.vocab_size
        self._step = threading.Lock()

    def embed(self, texts: Any, *, normalize: bool = True, pooling: str | None = None) -> Floats:
        """Vectors f32[n, hidden_size] of n texts, pooled as the model says; each of length 1 if normalize.

        texts: a text, token ids, or a list of such. Text gets the model's special tokens. pooling: mean, cls or last,
        instead of the model's own. Raises: ContextOverflow for a text longer than the context, InvalidParams, Cancelled.
        """
        chosen = pooling or self.pooling
        if chosen not in ("mean", "cls", "last"):
            raise UnsupportedError(
                f"pooling is {chosen!r}: this model ranks pairs (see rerank), or has no vector of a text"
            )
        rows = (
            [texts] if isinstance(texts, str) or (len(texts) and isinstance(texts[0], int)) else list(texts)
        )
        ids = [self._ids_of(row) for row in rows]
        out = np.empty((len(ids), self.hidden_size), dtype=np.float32)
        for index, states in self._states(ids):
            out[index] = pooled(states, chosen)
        if normalize:
            length = np.sqrt((out.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
            out /= np.maximum(length, 1e-12).astype(np.float32)
        return out

    def token_states(self, text: str | Sequence[int]) -> Floats:
        """Hidden states f32[num_tokens, hidden_size] of every token of one text."""
        ((_, states),) = self._states([self._ids_of(text)])
        return states

    def rerank(self, query: str, documents: Sequence[str]) -> Floats:
        """Scores f32[n] of n documents for a query, higher is nearer: raw, before any sigmoid.

        Segment ids are 0 throughout, as llama.cpp has it: a BERT that learned to tell two texts apart by segments scores
        otherwise in transformers. RoBERTa, XLM-R and ModernBERT have no segments.
        Raises: UnsupportedError for a model without a ranking head, or with one of several classes, else as `embed`.
        """
        if self.pooling != "rank":
            raise UnsupportedError(
                f"this model has no ranking head; its pooling is {self.pooling!r}. Use embed"
            )
        if self.labels > 1:
            raise UnsupportedError(f"the model tells {self.labels} classes apart; one score ranks")
        if self.tokenizer is None:
            raise UnsupportedError("the model file has no tokenizer")
        pairs = [self.tokenizer.encode_pair(query, document) for document in documents]
        out = np.empty(len(pairs), dtype=np.float32)
        for index, states in self._states([self._checked(ids) for ids in pairs]):
            out[index] = states[0, 0]
        return out

    def prepare(self, *_: Any, **__: Any) -> Prepared:
        """Raises: UnsupportedError: nothing can be generated."""
        name = self.facts.get("architecture", "this model")
        raise UnsupportedError(f"{name} is an encoder: it embeds and ranks texts, it does not continue them")

    def logits(self, token_ids: Any, source: Any = None) -> Floats:  # noqa: ARG002  as of every LLM
        """Raises: UnsupportedError: there are none; see `token_states`."""
        return self.prepare(token_ids)  # type: ignore[return-value]  # it raises

    def close(self) -> None:
        """After the step that runs."""
        with self._step:
            super().close()

    def _ids_of(self, text: str | Sequence[int]) -> list[int]:
        if isinstance(text, str):
            if self.tokenizer is None:
                raise UnsupportedError("the model file has no tokenizer; give token ids")
            return self._checked(self.tokenizer.encode(text))
        return self._checked([int(i) for i in text])

    def _checked(self, ids: list[int]) -> list[int]:
        if not ids:
            raise InvalidParams("a text has no token, so there is nothing to embed")
        if len(ids) > self.context:
            raise ContextOverflow(f"a text has {len(ids)} tokens, too large for the context, {self.context}")
        wrong = next((i for i in ids if not 0 <= i < self._num_tokens), None)
        if wrong is not None:
            raise InvalidParams(f"token id {wrong} is not in 0 .. {self._num_tokens - 1}")
        return ids

    def _states(self, ids: Sequence[list[int]]) -> Iterator[tuple[int, Floats]]:
        """(index, output rows of all its tokens), in the order that fills steps best: by length."""
        limits = self.program.limits
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        while order:
            chosen: list[int] = []
            rows = 0
            while (
                order and len(chosen) < limits.max_sequences and rows + len(ids[order[-1]]) <= limits.max_rows
            ):
                chosen.append(order.pop())
                rows += len(ids[chosen[-1]])
            batch = whole_texts([ids[i] for i in chosen], limits.block_size)
            with self._step:
                if self.problem is not None:
                    raise Cancelled(f"no text can be read any more: {self.problem}")
                out = self.program.run(batch)
            for i, start, stop in zip(chosen, batch.starts[:-1], batch.starts[1:], strict=True):
                yield i, out[start:stop]


def whole_texts(ids: Sequence[Sequence[int]], block_size: int) -> Batch:
    """A step that reads each list of ids from position 0 in blocks of its own and wants every row."""
    lengths = [len(one) for one in ids]
    blocks = [-(-n // block_size) for n in lengths]
    ends, firsts = list(accumulate(lengths)), [0, *accumulate(blocks)]
    tables = np.zeros((len(ids), max(blocks)), dtype=np.int32)
    for row, first, count in zip(tables, firsts, blocks, strict=False):
        row[:count] = range(first, first + count)
    places = [
        range(first * block_size, first * block_size + n) for first, n in zip(firsts, lengths, strict=False)
    ]
    return Batch(
        token_ids=_ints(ids),
        positions=_ints(map(range, lengths)),
        slots=_ints(places),
        starts=np.array([0, *ends], dtype=np.int32),
        lengths=np.array(lengths, dtype=np.int32),
        tables=tables,
        logit_rows=np.arange(ends[-1], dtype=np.int32),
    )


def _ints(rows: Iterable[Iterable[int]]) -> Ints:
    return np.fromiter(chain.from_iterable(rows), dtype=np.int32)


def pooled(states: Floats, how: str) -> Floats:
    """One vector of the states of a text's tokens."""
    if how == "mean":
        mean: Floats = states.mean(axis=0, dtype=np.float64).astype(np.float32)
        return mean
    vector: Floats = states[0 if how == "cls" else -1]
    return vector


def pooling_of(metadata: Any, architecture: str, *, ranks: bool) -> str:
    """What the file says, else rank where there is a ranking head, else the mean.  Raises: UnsupportedError."""
    if ranks:
        return "rank"
    number = metadata.get(f"{architecture}.pooling_type", 1)
    if not isinstance(number, int) or not 0 <= number < len(POOLINGS):
        raise UnsupportedError(
            f"key {architecture}.pooling_type is {number!r:.80}, known: 0 .. {len(POOLINGS) - 1}"
        )
    return POOLINGS[number]
