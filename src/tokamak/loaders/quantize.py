"""A model to a GGUF file in another weight format: which tensor gets which (`quant.recipes`), then tensor by tensor.

Everything else in the file stays: metadata with their types, order, tensors that no recipe touches. At most one
tensor is held in its new format beside the mapped old one.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tokamak.errors import InvalidParams, TokamakError, UnsupportedError
from tokamak.loaders.checkpoint import Checkpoint, checkpoint_of, open_model
from tokamak.loaders.gguf import GgufModel, Tensor, TensorInfo
from tokamak.loaders.hf_tokenizer import tokenizer_keys
from tokamak.loaders.imatrix import Importance, open_imatrix
from tokamak.loaders.writer import TensorSource, Typed, write_gguf
from tokamak.quant import FORMATS
from tokamak.quant.recipes import RECIPES, Model, Recipe, fitting, recipe, role_of
from tokamak.quant.transcode import transcode
from tokamak.settings import Settings
from tokamak.types import Array

__all__ = ["Plan", "PlannedTensor", "quantize", "rounded"]

EXACT = frozenset({"f32", "f16", "bf16", "f64"})  # formats that were not quantised before
UNCHANGED = "unchanged"
QUANTIZATION_VERSION = 2  # of ggml's block layouts
# Without an importance matrix a model in these is hardly usable.
NEEDS_IMPORTANCE = frozenset({"iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs"})
_HEAD, _EMBEDDING = "output.weight", "token_embd.weight"
Source = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor and the formats it has and gets. shape: outermost first."""

    name: str
    shape: tuple[int, ...]
    source: str
    target: str
    source_nbytes: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What `quantize` does. notes: what the result may suffer from, a sentence each."""

    recipe: str
    tensors: tuple[PlannedTensor, ...]
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors afterwards."""
        return sum(t.nbytes for t in self.tensors)

    @property
    def source_nbytes(self) -> int:
        return sum(t.source_nbytes for t in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / sum(prod(t.shape) for t in self.tensors)


def quantize(
    source: Source,
    target: Source,
    to: str | None = "q4_k_m",
    *,
    imatrix: Source | None = None,
    tensor_types: Sequence[tuple[str, str]] = (),
    output_type: str | None = None,
    token_embedding_type: str | None = None,
    pure: bool = False,
    allow_requantize: bool = False,
    dry_run: bool = False,
    threads: int | None = None,
    architecture: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """Write a model as the GGUF file `target`, in other weight formats.

    source: a GGUF file (the first part of a split one) or a Hugging Face directory with safetensors. to: a named mix of
    llama.cpp ("q4_k_m", "iq4_xs", "q8_0", ...), which gives each tensor its format; None: formats stay. imatrix: an
    importance matrix, see `tokamak imatrix`. tensor_types: (regular expression, format) for tensors whose name it is found
    in; the first that matches wins over the mix. output_type, token_embedding_type: of `output.weight` and
    `token_embd.weight`. pure: all matrices in the mix's main format. allow_requantize: also read formats that have lost
    precision already. dry_run: return the plan and write nothing. architecture: the name to write, for programs that know such
    tensors under another one. progress(done, total): bytes of tensors written.
    Raises: InvalidParams for a mix, format, expression or matrix that does not fit; ModelFileError, TokenizerFileError;
    UnsupportedError for what cannot be read or written.
    """
    settings = Settings.load(threads=threads)
    model, told = opened(Path(source))
    mix = recipe(to) if to is not None else _as_it_is(model)
    matrix = open_imatrix(os.fspath(imatrix)) if imatrix is not None else None
    if matrix is not None and not set(matrix.sums) & set(model.tensors):
        raise InvalidParams(f"{matrix.path}: names no tensor of {model.path}; it is of another model")
    overrides = [(_expression(pattern), _format(name)) for pattern, name in tensor_types]
    ends = {_HEAD: output_type, _EMBEDDING: token_embedding_type}
    chosen = {name: _format(wanted) for name, wanted in ends.items() if wanted is not None}
    rules = _Rules(mix, describe(model, matrix is not None), overrides, chosen, pure)
    plan = _plan(model, rules, matrix, allow_requantize=allow_requantize or to is None)
    plan = replace(plan, notes=(*told, *plan.notes))
    if not dry_run:
        refuse_same_file(model, Path(target))
        metadata = _renamed(carried_metadata(model), architecture) | _facts(mix, matrix)
        sources = (_source(model.tensors[t.name], t, matrix, settings.threads) for t in plan.tensors)
        write_gguf(Path(target), metadata, sources, alignment=_alignment(model), progress=progress)
    return plan


def opened(path: Path) -> tuple[GgufModel, tuple[str, ...]]:
    """The model with its tokenizer, in the terms of GGUF; and what is to be told about it."""
    model = open_model(path)
    if model.directory is None:
        return model, ()
    checkpoint_of(model)  # every shape and setting is checked before anything is written
    keys = tokenizer_keys(path, model.tensors[_EMBEDDING].shape[0])
    metadata = {**model.metadata, **keys.metadata}
    model.directory.value_types.update(keys.types)
    return replace(model, metadata=metadata), keys.notes


def _as_it_is(model: GgufModel) -> Recipe:
    """A recipe without rules, named for the format that most of the model is in."""
    sizes = Counter[str]()
    for info in model.tensors.values():
        sizes[info.format] += info.nbytes
    ((most, _),) = sizes.most_common(1)
    named = next(
        (r.file_type for r in RECIPES.values() if r.name == most), model.metadata.get("general.file_type")
    )
    return Recipe(UNCHANGED, named if isinstance(named, int) else 0, most)


def describe(model: GgufModel, importance: bool) -> Model:
    """What recipes ask about a model, from its metadata. Raises: InvalidParams if it has no layers."""
    return _described(model.metadata, model.path, _HEAD not in model.tensors, importance)


def _described(facts: Mapping[str, Any], path: str, tied: bool, importance: bool) -> Model:
    prefix = facts.get("general.architecture")

    def number(suffix: str, default: int) -> int:
        value = facts.get(f"{prefix}.{suffix}", default)
        value = int(value.max()) if isinstance(value, np.ndarray) and value.size else value
        return value if isinstance(value, int) else default

    layers = number("block_count", 0)
    if layers < 1:
        raise InvalidParams(f"{path}: has no layers to quantise (key {prefix}.block_count)")
    heads = number("attention.head_count", 1)
    return Model(
        num_layers=layers,
        gqa=heads // max(1, number("attention.head_count_kv", heads)),
        num_experts=number("expert_count", 0),
        tied=tied,
        importance=importance,
    )


@dataclass(frozen=True, slots=True)
class _Rules:
    mix: Recipe
    model: Model
    overrides: Sequence[tuple[re.Pattern[str], str]]
    ends: Mapping[str, str]
    pure: bool

    def format_for(self, info: TensorInfo) -> str:
        """The format of a tensor; its own where nothing says another."""
        if role_of(info.name, info.shape) is None:
            return info.format
        if info.name in self.ends:
            return fitting(self.ends[info.name], info.shape[-1])
        for pattern, name in self.overrides:
            if pattern.search(info.name):
                return fitting(name, info.shape[-1])
        if self.mix.name == UNCHANGED:
            return info.format
        if self.pure:
            return fitting(self.mix.base, info.shape[-1])
        return self.mix.format_for(info.name, info.shape, self.model) or info.format


def _plan(model: GgufModel, rules: _Rules, matrix: Importance | None, *, allow_requantize: bool) -> Plan:
    planned = []
    for info in model.tensors.values():
        target = rules.format_for(info)
        if target != info.format and info.format not in EXACT and not allow_requantize:
            raise InvalidParams(
                f"tensor {info.name} is {info.format} already; quantising it again loses quality. Start from an f16, "
                "bf16 or f32 file, or allow it (--allow-requantize)"
            )
        nbytes = TensorSource(info.name, target, info.shape, info.data).nbytes
        planned.append(PlannedTensor(info.name, info.shape, info.format, target, info.nbytes, nbytes))
    return Plan(rules.mix.name, tuple(planned), tuple(_notes(planned, rules, matrix)))


def _notes(planned: Sequence[PlannedTensor], rules: _Rules, matrix: Importance | None) -> Iterator[str]:
    low = sorted({t.target for t in planned} & NEEDS_IMPORTANCE)
    if low and matrix is None:
        yield f"{', '.join(low)} without an importance matrix: expect poor text. 'tokamak imatrix' makes one"
    changed = [t for t in planned if t.target != t.source]
    rounded = [t.name for t in changed if t.target not in EXACT]
    missing = [
        n for n in rounded if matrix is not None and n not in matrix.sums and n not in (_HEAD, _EMBEDDING)
    ]
    if missing:
        yield f"the importance matrix says nothing about {len(missing)} tensors, {missing[0]} for one"
    base = FORMATS[rules.mix.base].block_size
    fallen = [t for t in changed if base > 1 and t.shape[-1] % base and role_of(t.name, t.shape)]
    if fallen:
        yield (
            f"{len(fallen)} tensors have rows that are no multiple of {base} and got another format, "
            f"{fallen[0].name} {fallen[0].target} for one"
        )


def _source(
    info: TensorInfo, planned: PlannedTensor, matrix: Importance | None, threads: int
) -> TensorSource:
    def read() -> Array:
        try:
            return encoded(info, planned.target, matrix, threads)
        except TokamakError as error:
            raise error.located(f"tensor {info.name}") from error
        finally:
            info.part.release(info.name)

    return TensorSource(info.name, planned.target, info.shape, read)


def encoded(info: TensorInfo, target: str, matrix: Importance | None, threads: int) -> Array:
    """The bytes of a tensor in another format: uint8[n]."""
    if info.format == target:
        return info.data()
    read, columns = FORMATS[info.format], info.shape[-1]
    name, rows = info.format, info.data().reshape(1, -1)
    if read.tail:
        name, rows = "f32", read.decode(rows, threads=threads).view(np.uint8)
    elif read.decoder is None:
        raise UnsupportedError(f"format {info.format} cannot be read")
    num_matrices = prod(info.shape[:-2])
    stack: Array = rows.reshape(num_matrices, info.shape[-2], -1)
    weights = matrix.of(info.name, num_matrices, columns) if matrix is not None else None
    write = FORMATS[target]
    if write.tail:
        values = FORMATS[name].decode(stack.reshape(prod(info.shape[:-1]), -1), threads=threads)
        return write.encode(values).reshape(-1)
    out = np.empty((num_matrices, info.shape[-2], write.row_nbytes(columns)), dtype=np.uint8)
    for i in range(num_matrices):
        out[i] = transcode(stack[i], name, target, None if weights is None else weights[i], threads=threads)
    return out.reshape(-1)


@dataclass(frozen=True, slots=True)
class Rounded:
    """A `types.Weight` in another format than its file has; made whenever its rows are asked for."""

    stored: Tensor
    format: str
    threads: int

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    @property
    def nbytes(self) -> int:
        return prod(self.shape[:-1]) * FORMATS[self.format].row_nbytes(self.shape[-1])

    def rows(self) -> Array:
        """uint8[prod(shape[:-1]), row_nbytes]."""
        try:
            return transcode(self.stored.rows(), self.stored.format, self.format, threads=self.threads)
        except TokamakError as error:
            raise error.located(f"tensor {self.name}") from error

    def release(self) -> None:
        """Give the mapped pages back."""
        self.stored.release()


def rounded(checkpoint: Checkpoint, to: str, threads: int) -> Checkpoint:
    """The checkpoint with its float matrices in the formats of a mix, as `quantize` would write them without a matrix of
    importance; one is rounded at a time, when it is read.

    Raises: InvalidParams for a mix that does not exist, or weights that are quantised already.
    """
    mix, tied = recipe(to), bool(checkpoint.config.get("tie_word_embeddings"))
    rules = _Rules(mix, _described(checkpoint.metadata, checkpoint.path, tied, False), (), {}, False)
    weights: dict[str, Any] = {}
    for path, weight in checkpoint.weights.items():
        weights[path] = weight
        if not isinstance(weight, Tensor):
            raise InvalidParams("a packed file is quantised already; --to reads f16, bf16 or f32 files")
        target = rules.format_for(weight.info)
        if target == weight.format or len(weight.shape) < 2:
            continue
        if weight.format not in EXACT:
            raise InvalidParams(
                f"tensor {weight.name} is {weight.format} already; quantising it again loses quality. Start from an "
                "f16, bf16 or f32 file"
            )
        weights[path] = Rounded(weight, target, threads)
    return replace(checkpoint, weights=weights, nbytes=sum(w.nbytes for w in weights.values()))


def carried_metadata(model: GgufModel) -> dict[str, Any]:
    """All metadata with their types, but what tells how the file was split."""
    types = model.value_types
    return {
        key: Typed(types[key], value)
        for key, value in model.metadata.items()
        if not key.startswith("split.") and key != "general.alignment"
    }


def _renamed(metadata: dict[str, Any], architecture: str | None) -> dict[str, Any]:
    """The same of another architecture: its name, and the keys that begin with it."""
    key = "general.architecture"
    if architecture is None or key not in metadata:
        return metadata
    old = metadata[key].value
    ours = f"{old.decode() if isinstance(old, bytes) else old}."
    kept = {
        f"{architecture}.{k.removeprefix(ours)}" if k.startswith(ours) else k: v for k, v in metadata.items()
    }
    return {**kept, key: architecture}


def _facts(mix: Recipe, matrix: Importance | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "general.quantization_version": Typed("uint32", QUANTIZATION_VERSION),
        "general.file_type": Typed("uint32", mix.file_type),
    }
    if matrix is not None:
        facts["quantize.imatrix.file"] = matrix.path
        if matrix.datasets:
            facts["quantize.imatrix.dataset"] = matrix.datasets[0]
        facts["quantize.imatrix.entries_count"] = Typed("uint32", len(matrix.sums))
        if matrix.num_chunks:
            facts["quantize.imatrix.chunks_count"] = Typed("uint32", matrix.num_chunks)
    return facts


def _alignment(model: GgufModel) -> int:
    value = model.metadata.get("general.alignment", 32)
    return value if isinstance(value, int) else 32


def refuse_same_file(model: GgufModel, target: Path) -> None:
    """Raises: InvalidParams if writing `target` would destroy what is read."""
    if target.exists() and (target.samefile(model.path) or target.is_dir()):
        raise InvalidParams(f"{target}: is what is read, or a directory; name another file to write")


def _expression(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InvalidParams(f"{pattern!r} is no regular expression: {error}") from None


def _format(name: str) -> str:
    key = name.lower()
    if key not in FORMATS or FORMATS[key].encoder is None:
        known = ", ".join(n for n, f in FORMATS.items() if f.encoder)
        raise InvalidParams(f"{name!r} is no weight format that can be written; there are {known}")
    return key
