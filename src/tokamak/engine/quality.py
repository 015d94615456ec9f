"""How well a model predicts a text: perplexity, and its divergence from another model.

The definition is llama.cpp's llama-perplexity: the text is cut in windows of `context` tokens (`windows.cut`), the first
half of a window is only read, and of its second half every token but the first is scored given all before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokamak.engine.llm import LLM
from tokamak.engine.windows import Windows, cut
from tokamak.errors import InvalidParams, ModelFileError
from tokamak.types import Array, Floats

__all__ = ["BaseLogits", "Divergence", "Perplexity", "divergence", "perplexity", "save_logits"]

CONTEXT = 512
Progress = Callable[[int, int], None]
Scored = tuple[Array, Array]
"""Of one window: log-probabilities f32[n, V] and the tokens i64[n] that follow."""


@dataclass(frozen=True, slots=True)
class Perplexity:
    """perplexity: exp of the mean negative log-likelihood, in nats. error: its standard error. tokens: how many scored."""

    perplexity: float
    error: float
    tokens: int
    windows: int
    context: int


@dataclass(frozen=True, slots=True)
class Divergence:
    """Of a model from a base model, over the scored positions.

    kl_*: sum of p ln(p / q), p of the base; mean, its standard error, median, 99th percentile, largest. same_top: share of
    positions where both put the same token first. rms_dp: root of the mean squared difference of the probabilities of the
    tokens that follow. perplexity, base_perplexity: of both on the same tokens.
    """

    kl_mean: float
    kl_error: float
    kl_median: float
    kl_99: float
    kl_max: float
    same_top: float
    rms_dp: float
    perplexity: float
    base_perplexity: float
    tokens: int
    windows: int
    context: int


def perplexity(
    llm: LLM,
    text: str,
    *,
    context: int = CONTEXT,
    chunks: int | None = None,
    progress: Progress | None = None,
) -> Perplexity:
    """Perplexity of a model on a text.

    context: tokens per window, at most the model's. chunks: how many windows, None: all. progress(done, total): windows.
    Raises: InvalidParams for a text shorter than a window or a model without tokenizer; ContextOverflow.
    """
    windows = windows_for(llm, text, context, chunks)
    losses = [
        -logs[np.arange(len(following)), following] for logs, following in _scored(llm, windows, progress)
    ]
    return _perplexity(np.concatenate(losses).astype(np.float64), windows)


def divergence(
    llm: LLM,
    base: LLM | BaseLogits,
    text: str,
    *,
    context: int = CONTEXT,
    chunks: int | None = None,
    progress: Progress | None = None,
) -> Divergence:
    """How far a model's distributions are from those of `base`, another model or what `save_logits` kept of one.

    Raises: as `perplexity`; InvalidParams if the two do not read the same tokens.
    """
    windows = windows_for(llm, text, context, chunks)
    theirs = (
        base.scored(windows)
        if isinstance(base, BaseLogits)
        else _scored(base, _checked(base, text, windows, chunks), None)
    )
    parts = [_compared(*pair) for pair in zip(_scored(llm, windows, progress), theirs, strict=True)]
    kl, same, mine, other = (np.concatenate([p[i] for p in parts]).astype(np.float64) for i in range(4))
    ours, base_ppl = _perplexity(-mine, windows), _perplexity(-other, windows)
    return Divergence(
        kl_mean=float(kl.mean()),
        kl_error=_error(kl),
        kl_median=float(np.median(kl)),
        kl_99=float(np.quantile(kl, 0.99)),
        kl_max=float(kl.max()),
        same_top=float(same.mean()),
        rms_dp=float(np.sqrt(np.mean((np.exp(mine) - np.exp(other)) ** 2))),
        perplexity=ours.perplexity,
        base_perplexity=base_ppl.perplexity,
        tokens=len(kl),
        windows=len(windows),
        context=windows.context,
    )


def save_logits(
    path: str | Path,
    llm: LLM,
    text: str,
    *,
    context: int = CONTEXT,
    chunks: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Keep the log-probabilities of every scored position for `divergence`; returns the bytes written.

    The file is a NumPy array of records: token i32 (the one that follows), logs f32[V].
    Raises: as `perplexity`.
    """
    windows = windows_for(llm, text, context, chunks)
    count = len(windows) * _num_scored(context)
    kind = np.dtype([("token", "<i4"), ("logs", "<f4", (llm.vocab_size,))])
    out = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(count,))
    done = 0
    for logs, following in _scored(llm, windows, progress):
        out["token"][done : done + len(following)] = following
        out["logs"][done : done + len(following)] = logs
        done += len(following)
    out.flush()
    return int(out.nbytes)


@dataclass(frozen=True, slots=True)
class BaseLogits:
    """A file of `save_logits`, mapped."""

    path: str
    records: Array

    @classmethod
    def open(cls, path: str | Path) -> BaseLogits:
        """Raises: ModelFileError if it is no such file."""
        try:
            records: Any = np.load(path, mmap_mode="r", allow_pickle=False)
            names = records.dtype.names
        except (OSError, ValueError, EOFError, AttributeError) as error:
            raise ModelFileError(f"{path}: no saved logits: {error}") from error
        if names != ("token", "logs") or records.ndim != 1:
            raise ModelFileError(f"{path}: holds {records.dtype}, not the records of saved logits")
        return cls(str(path), records)

    def scored(self, windows: Windows) -> Iterator[Scored]:
        """The records of each window. Raises: InvalidParams if they are of other tokens."""
        step = _num_scored(windows.context)
        if len(self.records) < step * len(windows):
            raise InvalidParams(
                f"{self.path}: holds {len(self.records)} positions, {step * len(windows)} are needed. Save the logits "
                "with the same text, context and number of chunks"
            )
        for i, row in enumerate(windows.token_ids):
            part = self.records[i * step : (i + 1) * step]
            following = row[windows.context // 2 + 1 :].astype(np.int64)
            if not np.array_equal(part["token"], following):
                raise InvalidParams(f"{self.path}: is of another text, context or tokenizer (window {i})")
            yield np.asarray(part["logs"]), following


def windows_for(llm: LLM, text: str, context: int, chunks: int | None) -> Windows:
    """The windows a model reads. Raises: InvalidParams without a tokenizer."""
    if llm.tokenizer is None:
        raise InvalidParams("the model has no tokenizer to read the text with")
    return cut(text, llm.tokenizer, context, chunks)


def _checked(base: LLM, text: str, windows: Windows, chunks: int | None) -> Windows:
    other = windows_for(base, text, windows.context, chunks)
    if not np.array_equal(other.token_ids, windows.token_ids):
        raise InvalidParams(
            "the two models read the text as different tokens; their distributions do not compare"
        )
    return other


def _num_scored(context: int) -> int:
    return context - 1 - context // 2


def _scored(llm: LLM, windows: Windows, progress: Progress | None) -> Iterator[Scored]:
    first = windows.context // 2
    for i, (row, read) in enumerate(zip(windows.token_ids, windows, strict=True)):
        logits = llm.logits(read)[first:-1]
        yield log_softmax(logits), row[first + 1 :].astype(np.int64)
        if progress:
            progress(i + 1, len(windows))


def log_softmax(logits: Floats) -> Array:
    """Log-probabilities f32[n, V], sums in float64."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    total: Array = np.log(np.exp(shifted).sum(axis=1, dtype=np.float64, keepdims=True))
    logs: Array = (shifted - total).astype(np.float32)
    return logs


def _compared(mine: Scored, theirs: Scored) -> tuple[Array, ...]:
    """KL, whether the same token is first, log-probability of the following token in both."""
    (logs, following), (base, _) = mine, theirs
    if base.shape != logs.shape:
        raise InvalidParams(f"distributions over {base.shape[1]} and {logs.shape[1]} tokens do not compare")
    with np.errstate(invalid="ignore"):
        terms = np.exp(base) * (base - logs)
    kl = np.where(base == -np.inf, np.float32(0), terms).sum(axis=1, dtype=np.float64)
    at = np.arange(len(following))
    same = logs.argmax(axis=1) == base.argmax(axis=1)
    return np.maximum(kl, 0.0), same, logs[at, following], base[at, following]


def _perplexity(losses: Array, windows: Windows) -> Perplexity:
    value = float(np.exp(losses.mean()))
    return Perplexity(value, _error(losses) * value, len(losses), len(windows), windows.context)


def _error(values: Array) -> float:
    """Standard error of the mean."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def facts(result: Perplexity | Divergence) -> Mapping[str, Any]:
    """Plain data for JSON; what is not finite becomes None."""
    values = {name: getattr(result, name) for name in result.__slots__}
    return {k: v if isinstance(v, int) or np.isfinite(v) else None for k, v in values.items()}
