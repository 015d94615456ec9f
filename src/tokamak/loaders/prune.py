"""Smaller models by leaving weights out: the smallest become zero, or whole feed-forward channels and heads go.

What a tensor's axes mean is read from the family's table (`names.FAMILIES`): an axis of "inter" is cut by channels, one of
"q" or "kv" by heads, whatever the family. Weights must be f32, f16 or bf16; quantise afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tokamak.errors import InvalidParams, UnsupportedError
from tokamak.loaders.checkpoint import checkpoint_of
from tokamak.loaders.gguf import GgufModel, TensorInfo
from tokamak.loaders.names import FAMILIES, Row
from tokamak.loaders.quantize import carried_metadata, opened, refuse_same_file
from tokamak.loaders.writer import TensorSource, Typed, write_gguf
from tokamak.quant import FORMATS
from tokamak.quant.recipes import role_of
from tokamak.types import Array, Floats

__all__ = ["Pruned", "prune"]

FLOATS = frozenset({"f32", "f16", "bf16"})
# Axes that know no way of being cut: a mixture of experts, and whatever has states instead of a cache.
OTHER = frozenset({"expert_inter", "experts", "shared_inter"})


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was left out. zeros: share of the weights of all matrices of layers that are zero now; or, structured, how many
    channels and key-value heads (with their query heads) each layer had and has.
    """

    structured: bool
    zeros: float
    channels: tuple[int, int]
    heads: tuple[int, int]
    source_nbytes: int
    nbytes: int


def prune(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    sparsity: float,
    *,
    structured: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Pruned:
    """Write a model with `sparsity` of its layers' weights left out, as a GGUF file.

    sparsity: in (0, 1), share of each matrix that becomes zero, the smallest magnitudes first. structured: leave out that
    share of the feed-forward channels and, as far as it is a whole head, of the key-value heads instead; those whose
    weights' norms have the smallest product. Shapes shrink; channels stay a multiple of 256 or 32 where they are one.
    progress(done, total): bytes written.
    Raises: InvalidParams for a sparsity that leaves out nothing or everything, or weights that are quantised;
    UnsupportedError for structured pruning of families whose tensors cannot be cut so; what `load` raises.
    """
    if not 0 < sparsity < 1:
        raise InvalidParams(f"sparsity is {sparsity}; it must be above 0 and below 1")
    model, _ = opened(Path(source))
    refuse_same_file(model, Path(target))
    for info in model.tensors.values():
        if role_of(info.name, info.shape) is not None and info.format not in FLOATS:
            raise InvalidParams(
                f"tensor {info.name} is {info.format}; prune an f32, f16 or bf16 file and quantise the result"
            )
    cut = _Cut.of(model, sparsity) if structured else None
    sources = [_source(info, sparsity, cut) for info in model.tensors.values()]
    metadata = carried_metadata(model) | (cut.metadata() if cut else {})
    zeros = [0, 0]
    counted = [replace(s, read=partial(_counting, s, zeros, cut is None)) for s in sources]
    write_gguf(Path(target), metadata, counted, progress=progress)
    return Pruned(
        structured=structured,
        zeros=zeros[0] / zeros[1] if zeros[1] else 0.0,
        channels=cut.channels if cut else (0, 0),
        heads=cut.heads if cut else (0, 0),
        source_nbytes=sum(t.nbytes for t in model.tensors.values()),
        nbytes=sum(s.nbytes for s in sources),
    )


def _counting(source: TensorSource, zeros: list[int], wanted: bool) -> Array:
    content = source.read()
    if wanted and _is_pruned(source.name, source.shape):
        words, mask = _words(content, source.format)
        zeros[0] += int(words.size - np.count_nonzero(words & mask))
        zeros[1] += words.size
    return content


def _words(content: Array, format_: str) -> tuple[Array, Any]:
    """The numbers as unsigned words, and the mask of all bits but the sign."""
    if format_ == "f32":
        return content.view(np.uint32), np.uint32(0x7FFFFFFF)
    return content.view(np.uint16), np.uint16(0x7FFF)


def _is_pruned(name: str, shape: tuple[int, ...]) -> bool:
    return role_of(name, shape) not in (None, "output", "token_embd")


def values_of(info: TensorInfo) -> Floats:
    """f32 of the tensor's shape."""
    rows = info.data().reshape(prod(info.shape[:-1]), -1)
    return FORMATS[info.format].decode(rows).reshape(info.shape)


def _source(info: TensorInfo, sparsity: float, cut: _Cut | None) -> TensorSource:
    if cut is not None:
        kept = cut.kept(info.name)
        shape = tuple(n if keep is None else len(keep) for n, keep in zip(info.shape, kept, strict=True))
        return TensorSource(info.name, info.format, shape, partial(_selected, info, kept))
    if not _is_pruned(info.name, info.shape):
        return TensorSource(info.name, info.format, info.shape, info.data)
    return TensorSource(info.name, info.format, info.shape, partial(_zeroed, info, sparsity))


def _zeroed(info: TensorInfo, sparsity: float) -> Array:
    """The bytes with the smallest magnitudes zero: exactly the share of the elements, ties by place."""
    words, mask = _words(info.data(), info.format)
    magnitudes = words & mask  # of floats, ordered as their bits without the sign are
    count = round(sparsity * words.size)
    out = words.copy()
    if count:
        border = np.partition(magnitudes, count - 1)[count - 1]
        below = magnitudes < border
        out[below] = 0
        out[np.flatnonzero(magnitudes == border)[: count - int(below.sum())]] = 0
    info.part.release(info.name)
    return out.view(np.uint8)


def _selected(info: TensorInfo, kept: tuple[Array | None, ...]) -> Array:
    words = _words(info.data(), info.format)[0].reshape(info.shape)
    for axis, keep in enumerate(kept):
        if keep is not None:
            words = np.take(words, keep, axis=axis)
    return np.ascontiguousarray(words).reshape(-1).view(np.uint8)


@dataclass(frozen=True, slots=True)
class _Cut:
    """Which channels and heads of each layer stay. axes: by tensor name, what each of its axes is."""

    prefix: str
    axes: Mapping[str, tuple[str, ...]]
    head_dim: int
    groups: int  # query heads of a key-value head
    channels: tuple[int, int]
    heads: tuple[int, int]
    by_layer: Mapping[int, tuple[Array, Array]]  # channels, key-value heads

    @classmethod
    def of(cls, model: GgufModel, sparsity: float) -> _Cut:
        """Raises: InvalidParams if nothing would go; UnsupportedError."""
        checkpoint = checkpoint_of(model)
        config: Mapping[str, Any] = checkpoint.config
        axes = dict(_axes(model, checkpoint.architecture))
        heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
        inter = config["intermediate_size"]
        channels, left = _fewer(inter, sparsity), max(1, kv - int(sparsity * kv))
        if (channels, left) == (inter, kv):
            raise InvalidParams(
                f"sparsity {sparsity} leaves out none of {inter} channels and {kv} key-value heads; ask for more"
            )
        found: dict[int, tuple[Array, Array]] = {}
        for layer in range(config["num_hidden_layers"]):
            names = {n: a for n, a in axes.items() if n.startswith(f"blk.{layer}.")}
            by_channel = _scores(model, names, ("inter", "gate_up"), inter)
            by_head = _head_scores(model, names, config["head_dim"], heads // kv)
            found[layer] = _largest(by_channel, channels), _largest(by_head, left)
        prefix = str(model.metadata.get("general.architecture"))
        return cls(prefix, axes, config["head_dim"], heads // kv, (inter, channels), (kv, left), found)

    def metadata(self) -> dict[str, Any]:
        """Keys that change; the width of a head no longer follows from the others."""
        sizes = {
            "feed_forward_length": self.channels[1],
            "attention.head_count": self.heads[1] * self.groups,
            "attention.head_count_kv": self.heads[1],
            "attention.key_length": self.head_dim,
            "attention.value_length": self.head_dim,
        }
        return {f"{self.prefix}.{name}": Typed("uint32", value) for name, value in sizes.items()}

    def kept(self, name: str) -> tuple[Array | None, ...]:
        """Per axis of a tensor the places that stay, None: all."""
        if name not in self.axes:
            return (None,) * 4
        layer = int(name.split(".")[1]) if name.startswith("blk.") else -1
        return tuple(self._places(axis, layer) for axis in self.axes[name])

    def _places(self, axis: str, layer: int) -> Array | None:
        if layer not in self.by_layer or axis not in ("inter", "gate_up", "q", "kv", "qkv"):
            return None
        channels, heads = self.by_layer[layer]
        keys = _spread(heads, self.head_dim)
        queries = _spread(heads, self.head_dim * self.groups)
        width = self.heads[0] * self.head_dim
        return {
            "inter": channels,
            "gate_up": np.concatenate([channels, channels + self.channels[0]]),
            "q": queries,
            "kv": keys,
            "qkv": np.concatenate([queries, keys + width * self.groups, keys + width * (self.groups + 1)]),
        }[axis]


def _fewer(inter: int, sparsity: float) -> int:
    """Channels that stay: a multiple of what `inter` is a multiple of, for the formats that group columns."""
    step = next(n for n in (256, 32, 1) if inter % n == 0)
    return min(inter, max(step, round((1 - sparsity) * inter / step) * step))


def _spread(heads: Array, width: int) -> Array:
    spread: Array = (heads[:, None] * width + np.arange(width)).reshape(-1)
    return spread


def _axes(model: GgufModel, architecture: str) -> list[tuple[str, tuple[str, ...]]]:
    """Names of tensors and of their axes. Raises: UnsupportedError for a family that cannot be cut."""
    rows: dict[str, Row] = {row.tensor: row for row in FAMILIES[architecture].layer}
    found = []
    for name, info in model.tensors.items():
        row = rows.get(name.split(".", 2)[2]) if name.startswith("blk.") else None
        if row is None:
            found.append((name, ("",) * len(info.shape)))
            continue
        axes = tuple(row.shape.split())
        if OTHER & set(axes):
            raise UnsupportedError(f"tensor {name} belongs to experts; structured pruning does not cut them")
        found.append((name, axes))
    return found


def _norms(info: TensorInfo, axis: int) -> Array:
    """Norms of the slices across an axis: f64."""
    x = np.moveaxis(values_of(info), axis, 0).reshape(info.shape[axis], -1)
    norms: Array = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))
    return norms


def _scores(
    model: GgufModel, names: Mapping[str, tuple[str, ...]], wanted: tuple[str, ...], size: int
) -> Array:
    """The product over the matrices of a layer of the norms of each channel."""
    scores = np.ones(size)
    for name, axes in names.items():
        for axis, kind in enumerate(axes):
            if kind in wanted and len(axes) == 2:
                norms = _norms(model.tensors[name], axis)
                scores *= norms.reshape(-1, size).prod(axis=0)
    return scores


def _head_scores(model: GgufModel, names: Mapping[str, tuple[str, ...]], head_dim: int, groups: int) -> Array:
    """Of each key-value head: the norm of what it writes, values times output projection."""
    values = output = None
    for name, axes in names.items():
        if name.endswith("attn_v.weight"):
            values = _norms(model.tensors[name], 0)
        elif axes[:1] == ("qkv",) and len(axes) == 2:
            norms = _norms(model.tensors[name], 0)
            values = norms[len(norms) * (groups + 1) // (groups + 2) :]
        elif axes[1:] == ("q",):
            output = _norms(model.tensors[name], 1)
    if values is None or output is None:
        raise UnsupportedError("structured pruning needs values and an output projection in every layer")
    squares = (values.reshape(-1, head_dim) ** 2).sum(axis=1) * (
        output.reshape(-1, head_dim * groups) ** 2
    ).sum(axis=1)
    scores: Array = np.sqrt(squares)
    return scores


def _largest(scores: Array, count: int) -> Array:
    """Places of the `count` largest, rising; of equals the first."""
    kept: Array = np.sort(np.argsort(-scores, kind="stable")[:count])
    return kept
