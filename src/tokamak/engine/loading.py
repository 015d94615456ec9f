"""`load`: from a path to an `LLM`. Chooses the context and the size of the cache, and says why."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tokamak import executors, models
from tokamak.engine import tuned
from tokamak.engine.adapting import AdapterLike, Adapters, adapted, named
from tokamak.engine.drafting import open_draft
from tokamak.engine.encoder import Encoder, encoder_limits, pooling_of
from tokamak.engine.infill import fim_ids
from tokamak.engine.kept import open_kept
from tokamak.engine.llm import LLM
from tokamak.engine.memory import CacheSize, available_nbytes
from tokamak.engine.vision import find_vision, open_vision
from tokamak.errors import (
    CapacityError,
    InvalidParams,
    ModelFileError,
    TokamakError,
    UnavailableError,
    UnsupportedError,
)
from tokamak.ir import passes
from tokamak.ir.given import with_given
from tokamak.loaders import open_checkpoint
from tokamak.loaders.discover import Found, find_tokenizer
from tokamak.loaders.quantize import rounded
from tokamak.settings import MAX_THREADS, Settings
from tokamak.types import KV_DTYPES, Executor, Limits, Program, Tuning

if TYPE_CHECKING:
    from tokamak.ir.graph import Graph
    from tokamak.loaders import Checkpoint
    from tokamak.loaders.vision import VisionCheckpoint

ASSETS = Path(__file__).resolve().parents[1] / "assets"
UNKNOWN_CONTEXT = 2048  # where the file does not say what the model was trained for
MAX_CONTEXT = 1 << 24
MAX_BATCH_ROWS = 512  # of a step, unless asked or tuned
SHARE = 0.9  # of the memory that is left after the weights, for the cache; the rest is for everything else
STATED: dict[Any, str] = {1: "mean", 2: "cls", 3: "last"}  # pooling_type of a GGUF file, where it says one
CONTEXTS = 4  # contexts that the cache holds if they take less than a quarter of that


def load(
    path: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    context: int | None = None,
    executor: str = "auto",
    kv_dtype: str = "f16",
    seed: int | None = None,
    *,
    threads_batch: int | None = None,
    affinity: Sequence[int] | None = None,
    max_batch_rows: int | None = None,
    max_sequences: int = 64,
    block_size: int = 32,
    prefix_cache_nbytes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    i2_s: str = "i2_s",
    to: str | None = None,
    draft: str | os.PathLike[str] | None = None,
    inter_token_target_ms: float | None = None,
    keep_packed: bool = False,
    adapters: Sequence[AdapterLike] | Mapping[str, AdapterLike] = (),
    mmproj: str | os.PathLike[str] | None = None,
    activation: str | None = None,
) -> LLM:
    """A model ready to answer.

    path: None: the model of the package. threads: None: TOKAMAK_THREADS, what `tokamak tune` found, or all CPUs; threads_batch:
    of steps that read a prompt. affinity: their CPUs. context: tokens of prompt and completion; None: what was trained for, or what
    memory holds. executor: "auto", "cpu", "reference". kv_dtype: f32, f16, bf16, q8_0, q4_0. seed: of requests without one.
    max_batch_rows (512, or tuned), max_sequences: of one step. block_size: of cache blocks. prefix_cache_nbytes: None: what is free.
    progress(done, total): bytes packed. tokenizer: its file. i2_s: "i2_s_arm", "i2_s_rows4" if its tensors lie so. to: a mix
    ("q4_k_m") to round float weights to. draft: a smaller model. keep_packed: map weights from the cache. adapters: paths, (path,
    scale), `Adapter`s. inter_token_target_ms: of a step. mmproj: an image encoder. activation: relu2 or silu, of BitNet.
    Raises: ModelFileError, TokenizerFileError, UnsupportedError, UnavailableError, InvalidParams, CapacityError.
    """
    began, form = time.perf_counter(), (i2_s, keep_packed, to, activation)
    _check(context, kv_dtype, seed, max_batch_rows, max_sequences, block_size, inter_token_target_ms)
    placed, target = Threading.choose(threads, threads_batch, affinity), executors.get(executor)
    checkpoint, sight = _open(path, executor, placed.threads, progress, form), find_vision(mmproj, path)
    with _located(checkpoint.path):
        sizes = block_size, max_sequences, max_batch_rows or placed.rows
        chosen = choose_context(checkpoint, context, kv_dtype, None, *sizes, beside=sight)
        limits = chosen.limits(*sizes, kv_dtype, placed)
        program, loaded = _compiled(target, checkpoint, chosen, limits, (named(adapters), sight), progress)
        found = find_tokenizer(checkpoint, tokenizer)
        drafter = open_draft(draft, executor, limits, found.tokenizer, chosen.context)
    loaded |= {"prefix_cache_nbytes": prefix_cache_nbytes, "inter_token_target_ms": inter_token_target_ms}
    loaded |= {"facts": _facts(checkpoint, chosen, limits, found), "seed": seed, "draft": drafter}
    return _kind(checkpoint)(program, found.tokenizer, load_s=time.perf_counter() - began, **loaded)


@contextmanager
def _located(path: str) -> Iterator[None]:
    """Errors name the file."""
    try:
        yield
    except TokamakError as error:
        raise error.located(path) from error


def _compiled(
    target: Executor,
    checkpoint: Checkpoint,
    chosen: Context,
    limits: Limits,
    parts: tuple[Adapters, VisionCheckpoint | None],
    progress: Callable[[int, int], None] | None,
) -> tuple[Program, dict[str, Any]]:
    """The program with its adapters and its image encoder, and what else an LLM gets of them."""
    adapters, sight = parts
    graph, weights = adapted(chosen.graph, checkpoint, adapters)
    vision = None
    if sight is not None:
        _check_sight(sight, checkpoint, chosen)
        graph, vision = with_given(graph), open_vision(sight, target, limits)
    program = target.compile(passes.optimize(graph), weights, limits, progress)
    sizes = {"context": chosen.context, "num_tokens": checkpoint.num_tokens}
    return program, {"adapters": adapters, **({"vision": vision} if vision else {}), **sizes}


def _check_sight(sight: VisionCheckpoint, checkpoint: Checkpoint, chosen: Context) -> None:
    """Raises: UnsupportedError for a model that no picture can be shown to; ModelFileError for another model's encoder."""
    if chosen.encodes or chosen.reads:
        raise UnsupportedError(
            f"images are shown to models that continue a text; {checkpoint.architecture} does not"
        )
    theirs, ours = sight.config["projected_size"], checkpoint.config["hidden_size"]
    if theirs != ours:
        raise ModelFileError(
            f"{sight.path}: its rows are {theirs} wide, the model's {ours}: it belongs to another model"
        )


def _open(
    path: str | os.PathLike[str] | None,
    executor: str,
    threads: int | None,
    progress: Callable[[int, int], None] | None,
    form: tuple[str, bool, str | None, str | None],
) -> Checkpoint:
    """The checkpoint of a path, None: of the model of the package; with kept weights where the layout is the file's.

    form: `i2_s`, `keep_packed`, `to` and `activation` of `load`.
    """
    i2_s, keep, to, activation = form
    source = os.fspath(path) if path is not None else str(default_model())
    if keep and i2_s == "i2_s" and to is None:
        checkpoint = open_kept(source, executor, threads, progress)
    else:
        checkpoint = open_checkpoint(source, i2_s=i2_s)
    if activation is not None:
        checkpoint = replace(checkpoint, architecture=models.gated(checkpoint.architecture, activation))
    return checkpoint if to is None else rounded(checkpoint, to, threads or 1)


class Threading(NamedTuple):
    """The last four fields of `Limits`, and the most rows of a step."""

    threads: int
    threads_batch: int | None
    affinity: tuple[int, ...]
    tuning: Tuning
    rows: int

    @classmethod
    def choose(
        cls, threads: int | None, threads_batch: int | None = None, affinity: Sequence[int] | None = None
    ) -> Threading:
        """What was asked for, else what was tuned for this machine, else all CPUs.

        Who asks for `threads` alone means prompts too. Raises: InvalidParams for counts outside [1, MAX_THREADS].
        """
        if threads_batch is not None and not 1 <= threads_batch <= MAX_THREADS:
            raise InvalidParams(f"threads_batch is {threads_batch}; it must be from 1 to {MAX_THREADS}")
        settings = Settings.load(threads=threads)
        best = tuned.read(settings.cache_dir)
        count, batch = settings.threads, threads_batch
        if threads is None and not os.environ.get("TOKAMAK_THREADS"):
            count, batch = best.threads or count, batch or best.threads_batch
        return cls(count, batch, tuple(affinity or ()), best.tuning, best.max_batch_rows or MAX_BATCH_ROWS)


def _kind(checkpoint: Checkpoint) -> Callable[..., LLM]:
    """What is made of a program: an `LLM`, or an `Encoder` that pools as the file says."""
    if not models.is_encoder(checkpoint.architecture):
        return LLM
    labels = int(str(checkpoint.config.get("num_labels") or 0))
    pooling = pooling_of(checkpoint.metadata, checkpoint.architecture, ranks=labels > 0)
    return partial(Encoder, pooling=pooling, labels=labels)


def default_model() -> Path:
    """The model file that comes with the package.  Raises: UnavailableError if this installation has none."""
    files = sorted(ASSETS.glob("*.gguf"))
    if not files:
        raise UnavailableError(f"no model was given and none lies in {ASSETS}; name a model file")
    return files[0]


@dataclass(frozen=True, slots=True)
class Context:
    """What was chosen, and why."""

    context: int  # tokens of one sequence
    cache_tokens: int  # tokens of all sequences together
    recent_tokens: int  # of those in layers that keep the latest part of a text only
    size: CacheSize
    reason: str
    graph: Graph  # of this context
    encodes: bool = False  # texts are read whole, in one step
    reads: bool = False  # each sequence has a text to read whole besides

    def limits(self, block_size: int, sequences: int, rows: int, kv_dtype: str, placed: Threading) -> Limits:
        """What a program must hold for this context, as many blocks as `cache_tokens` take."""
        blocks = -(-self.cache_tokens // block_size)
        recent = -(-self.recent_tokens // block_size)
        limits = Limits(blocks, block_size, rows, sequences, kv_dtype, *placed[:4], recent)
        if self.reads:
            return replace(limits, max_rows=max(limits.max_rows, self.context), num_blocks=2 * blocks)
        return encoder_limits(limits, self.context) if self.encodes else limits


def choose_context(
    checkpoint: Checkpoint,
    asked: int | None,
    kv_dtype: str,
    available: int | None = None,
    block_size: int = 32,
    sequences: int = 64,
    rows: int = MAX_BATCH_ROWS,
    beside: VisionCheckpoint | None = None,
) -> Context:
    """The context of a checkpoint: what is asked for, else the smaller of what it was trained for and what fits.

    available: bytes free, None: measured, control group included. sequences, rows: of one step. beside: what is loaded with it.
    Raises: CapacityError if the context asked for, or any at all, does not fit.
    """
    trained, family = models.trained_context(checkpoint.config), models.FAMILIES[checkpoint.architecture]
    wanted = asked or trained or UNKNOWN_CONTEXT
    graph = _graph(checkpoint, wanted)
    if not asked and wanted < UNKNOWN_CONTEXT and any(n.attrs.get("adds") == "slopes" for n in graph.nodes):
        wanted = UNKNOWN_CONTEXT  # slopes go on beyond what was trained
    size = CacheSize.of(graph, kv_dtype, block_size, sequences, rows)
    size = replace(size, whole=size.whole * (2 if family.reads else 1))
    kind = {"encodes": family.encodes, "reads": family.reads}
    free = available_nbytes() if available is None else available
    if free is None or size.nbytes_per_token == 0:
        reason, tokens = "asked for" if asked else "trained", CONTEXTS * wanted
        return Context(wanted, tokens, size.recent_tokens(tokens, None), size, reason, graph, **kind)
    spare = int(SHARE * (free - checkpoint.nbytes - (beside.nbytes if beside else 0)))
    fits = size.fits(spare)
    if fits < (asked or 1):
        raise CapacityError(
            f"a context of {wanted} takes {size.nbytes(wanted)} bytes in {kv_dtype} and the weights {checkpoint.nbytes}; "
            f"{free} are available. Ask for at most {fits} tokens, or a smaller kv_dtype"
        )
    context = min(wanted, fits)
    reason = "asked for" if asked else "trained" if context == wanted else f"fits memory (trained: {trained})"
    tokens = max(context, min(CONTEXTS * context, size.fits(spare // 4)))
    recent = size.recent_tokens(tokens, spare // 4)
    if context != wanted:
        graph = _graph(checkpoint, context)
    return Context(context, tokens, recent, size, reason, graph, **kind)


def _graph(checkpoint: Checkpoint, context: int) -> Graph:
    return models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=context)


def _check(
    context: int | None,
    kv_dtype: str,
    seed: int | None,
    max_batch_rows: int | None,
    max_sequences: int,
    block_size: int,
    inter_token_target_ms: float | None,
) -> None:
    if kv_dtype not in KV_DTYPES:
        raise InvalidParams(f"kv_dtype is {kv_dtype!r}; it must be one of {', '.join(KV_DTYPES)}")
    if inter_token_target_ms is not None and not 0.0 < inter_token_target_ms < float("inf"):
        raise InvalidParams(f"inter_token_target_ms is {inter_token_target_ms!r}; it must be more than 0")
    ranges = {
        "context": (context, 1, MAX_CONTEXT),
        "seed": (seed, 0, 2**64 - 1),
        "max_batch_rows": (max_batch_rows, 1, 1 << 16),
        "max_sequences": (max_sequences, 1, 1 << 12),
        "block_size": (block_size, 1, 1 << 12),
    }
    for name, (value, low, high) in ranges.items():
        if value is not None and not (isinstance(value, int) and low <= value <= high):
            raise InvalidParams(f"{name} is {value!r}; it must be a whole number from {low} to {high}")


def _decoder_start(checkpoint: Checkpoint) -> int:
    """The token after which a completion begins."""
    key = f"{checkpoint.architecture}.decoder_start_token_id"
    start = checkpoint.metadata.get(key, 0)
    if not isinstance(start, int) or not 0 <= start < checkpoint.num_tokens:
        raise ModelFileError(f"key {key} is {start!r:.80}, expected a token id")
    return start


def _facts(checkpoint: Checkpoint, chosen: Context, limits: Limits, found: Found) -> dict[str, Any]:
    return {
        "path": checkpoint.path,
        "architecture": checkpoint.architecture,
        "nbytes": checkpoint.nbytes,
        "context": chosen.context,
        "context_reason": chosen.reason,
        "trained_context": models.trained_context(checkpoint.config),
        "kv_dtype": limits.kv_dtype,
        "kv_nbytes_per_token": chosen.size.nbytes_per_token,
        "cache_tokens": chosen.cache_tokens,
        "recent_nbytes_per_token": chosen.size.recent,  # of those, in layers that keep the latest part only
        "recent_tokens": limits.recent_blocks * limits.block_size,
        "threads": limits.threads,
        "threads_batch": limits.threads_batch or limits.threads,
        "notes": checkpoint.notes,
        "fim": fim_ids(checkpoint.metadata),
        "decoder_start": _decoder_start(checkpoint) if chosen.reads else None,
        "pooling": STATED.get(checkpoint.metadata.get(f"{checkpoint.architecture}.pooling_type", 0)),
        "tokenizer": found.strategy,
        "tokenizer_tried": found.tried,
    }
