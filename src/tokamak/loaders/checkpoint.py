"""Opens a model whatever its file format: bytes on disk to `Checkpoint`, the only thing the layers above see.

The format is told by content, not by name. Weights stay mapped; nothing is copied or dequantised here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokamak import _native
from tokamak.errors import InvalidParams, ModelFileError, TokamakError, UnsupportedError
from tokamak.loaders.config import extents, read_config, resolve_vocab_size
from tokamak.loaders.gguf import GgufModel, Tensor, TensorInfo, open_gguf
from tokamak.loaders.hf import is_hf_directory, open_directory
from tokamak.loaders.names import FAMILIES
from tokamak.loaders.names.rows import FamilyNames, Row
from tokamak.loaders.packed import PackedTensor, is_packed, packed_weights, source_model
from tokamak.loaders.vision import is_image_encoder
from tokamak.settings import available_cpus
from tokamak.types import Floats

if TYPE_CHECKING:
    from tokamak.tokenizers.spec import TokenizerSpec

__all__ = ["Checkpoint", "open_checkpoint"]

# What an encoder's tensors alone tell: the configuration name, and the tensor whose rows it counts.
COUNTED = {"type_vocab_size": "token_types.weight", "num_labels": "cls.output.weight"}
FACTORS = ("rope_freqs", "rope_factors_long", "rope_factors_short")
# Positions' frequencies that early converters wrote out; every reader computes them.
IGNORED = ("rope.freqs", "attn_rot_embd.weight")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model as the layers above see it.

    config: names as in Hugging Face configs; vocab_size is the width of the logits. weights: by parameter path.
    num_tokens: how many token ids exist, at most vocab_size (the rest is padding). nbytes: of its files.
    notes: what was assumed and could be wrong, a sentence each.
    """

    path: str
    architecture: str
    config: Mapping[str, object]
    weights: Mapping[str, Tensor | PackedTensor]
    tokenizer: TokenizerSpec | None
    metadata: Mapping[str, object]
    num_tokens: int
    nbytes: int
    notes: tuple[str, ...] = field(default=())


I2_S = ("i2_s", "i2_s_arm", "i2_s_rows4")  # layouts under one type id


def open_checkpoint(path: str | Path, *, prefault: bool = False, i2_s: str = "i2_s") -> Checkpoint:
    """Open a model file by its content.

    prefault: read the weights into memory now instead of on first use. i2_s: the layout of its i2_s tensors, which the
    file does not tell: as x86 builds of bitnet.cpp write it, "i2_s_arm" or "i2_s_rows4".
    Raises: ModelFileError for what is broken or no model; UnsupportedError for formats, architectures, keys and
    tensors that are not implemented; TokenizerFileError for a broken vocabulary. Each names the file.
    """
    try:
        model = _told(open_model(path, prefault=prefault), i2_s)
        return _from_packed(model) if is_packed(model.metadata) else checkpoint_of(model)
    except TokamakError as error:
        raise error.located(str(path)) from error.__cause__


def _told(model: GgufModel, i2_s: str) -> GgufModel:
    """The model with i2_s tensors in the layout that the caller knows."""
    if i2_s not in I2_S:
        raise InvalidParams(f"i2_s is {i2_s!r}; its layouts are {', '.join(I2_S)}")
    if i2_s == I2_S[0]:
        return model
    infos = {n: replace(t, format=i2_s) if t.format == I2_S[0] else t for n, t in model.tensors.items()}
    return replace(model, tensors=infos)


def _from_packed(model: GgufModel) -> Checkpoint:
    """What the source would give, with matrices in packed form; notes say what they are packed for."""
    checkpoint = checkpoint_of(source_model(model))
    weights = packed_weights(model, checkpoint.weights, available_cpus())
    return replace(checkpoint, weights=weights, nbytes=model.nbytes)


def open_model(path: str | Path, *, prefault: bool = False) -> GgufModel:
    """Metadata and tensors of a GGUF file, or of a Hugging Face directory in the terms of GGUF.

    Raises: as `open_checkpoint`.
    """
    if is_hf_directory(Path(path)):
        return open_directory(path)
    kind = sniff(Path(path))
    if kind != "gguf":
        raise UnsupportedError(f"{path}: is {kind}. Convert it to GGUF")
    return open_gguf(path, prefault=prefault)


def sniff(path: Path) -> str:
    """ "gguf", or in words what else lies at `path`.

    Raises: ModelFileError if nothing can be read there or it is no model at all.
    """
    if path.is_dir():
        names = {p.suffix for p in path.iterdir()}
        kind = (
            "with safetensors files but without a config.json"
            if ".safetensors" in names
            else "without a model file"
        )
        return f"a directory {kind}"
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from None
    if head[:4] == b"GGUF":
        return "gguf"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return "a safetensors file; its directory, with the config.json, is the model"
    if head[:4] in (b"PK\x03\x04", b"\x80\x02}q") or head[:2] == b"\x80\x02":
        return "a PyTorch file; loading one can run code, so it is not read"
    if head[:4] in (b"lmgg", b"tjgg", b"fmgg", b"algg"):
        return "a ggml file from before GGUF"
    if head.startswith(b"version https://git-lfs"):
        raise ModelFileError(f"{path}: is a Git LFS pointer, not the model. Fetch it with 'git lfs pull'")
    if head.lstrip()[:1] == b"<":
        raise ModelFileError(f"{path}: is a web page, not a model; the download went wrong")
    shown = head[:4].hex(" ") or "nothing"
    raise ModelFileError(f"{path}: is no model file: it starts with {shown}, not with 'GGUF'")


def checkpoint_of(model: GgufModel) -> Checkpoint:
    """A model in the terms of GGUF as the layers above see it. Raises: as `open_checkpoint`, without the file's name."""
    _check_kind(model.metadata)
    written, notes = _architecture(model)
    form = FAMILIES[written].form
    architecture = (form(_plain(model.metadata, written)) if form else "") or written
    family = FAMILIES[architecture]
    infos = dict(model.tensors)
    factors = {name: _floats(infos.pop(f"{name}.weight")) for name in FACTORS if f"{name}.weight" in infos}
    config = read_config(model.metadata, written, family, factors)
    embedding = infos.get("token_embd.weight")
    if embedding is None:
        raise ModelFileError(
            "has no tensor token_embd.weight: it holds a vocabulary or a part of a model only"
        )
    tokens = model.metadata.get("tokenizer.ggml.tokens")
    num_tokens = resolve_vocab_size(_length(tokens), embedding.shape[0])
    for name, tensor in COUNTED.items():
        if not family.causal and tensor in infos:
            config[name] = infos[tensor].shape[0]
    num_layers = model.metadata[f"{written}.block_count"]
    config |= {name: tensor in infos for name, tensor in family.told.items()}
    for tensor, name in family.where.items():
        layers = range(min(config["num_hidden_layers"], len(infos)))
        config[name] = tuple(f"blk.{i}.{tensor}" in infos for i in layers)
    weights = dict(_weights(infos, config, family, embedding.shape[0], num_layers))
    config |= {"vocab_size": embedding.shape[0], "tie_word_embeddings": "output.weight" not in infos}
    tokenizer, unread = _tokenizer(model.metadata, written)
    return Checkpoint(
        path=model.path,
        architecture=architecture,
        config=config,
        weights=weights,
        tokenizer=tokenizer,
        metadata=model.metadata,
        num_tokens=num_tokens,
        nbytes=model.nbytes,
        notes=(*notes, *unread),
    )


def _plain(metadata: Mapping[str, Any], written: str) -> dict[str, Any]:
    """The numbers and strings among the `{arch}.*` keys, without the prefix."""
    start = f"{written}."
    return {
        k.removeprefix(start): v
        for k, v in metadata.items()
        if k.startswith(start) and isinstance(v, int | float | str)
    }


def _check_kind(metadata: Mapping[str, Any]) -> None:
    if is_image_encoder(metadata):
        raise UnsupportedError(
            "is an image encoder (mmproj), which no text comes out of: load the model it belongs to, "
            "and give this file beside it (mmproj=, --mmproj)"
        )
    kind = metadata.get("general.type", "model")
    if kind != "model":
        raise UnsupportedError(f"key general.type is {kind!r:.80}; a file of type 'model' is needed")


def _architecture(model: GgufModel) -> tuple[str, tuple[str, ...]]:
    """The architecture and what was guessed. general.architecture decides; keys are looked at only without it."""
    named = model.metadata.get("general.architecture")
    known = ", ".join(FAMILIES)
    if named is not None:
        if not isinstance(named, str):
            raise ModelFileError(f"key general.architecture is {named!r:.80}, expected a string")
        if named not in FAMILIES:
            raise UnsupportedError(f"architecture {named!r:.80} is not implemented; known: {known}")
        return named, ()
    guesses = [name for name in FAMILIES if f"{name}.block_count" in model.metadata]
    if len(guesses) != 1:
        raise ModelFileError(f"key general.architecture is missing and no other key tells it; known: {known}")
    note = f"general.architecture is missing; {guesses[0]!r} is a guess from the key {guesses[0]}.block_count"
    return guesses[0], (note,)


def _length(tokens: Any) -> int | None:
    if tokens is None:
        return None
    if not isinstance(tokens, _native.StringTable):
        raise ModelFileError("key tokenizer.ggml.tokens is no array of strings")
    return len(tokens)


def _floats(info: TensorInfo) -> Floats:
    if info.format != "f32" or len(info.shape) != 1:
        raise UnsupportedError(
            f"tensor {info.name} is {info.format}{list(info.shape)}, expected a vector of f32"
        )
    values = info.data().view(np.float32)
    if not (np.isfinite(values) & (values > 0)).all():
        raise ModelFileError(f"tensor {info.name} has factors that are not positive")
    return values.copy()


def _weights(
    infos: Mapping[str, TensorInfo],
    config: Mapping[str, Any],
    family: FamilyNames,
    num_rows: int,
    num_layers: int,
) -> Iterator[tuple[str, Tensor]]:
    """num_layers: of the file; those past the configuration's predict further tokens ahead and are left out."""
    sizes = extents(config, num_rows, family)
    turn = (config["head_dim"], config.get("rotary_dim", 0)) if family.interleaved else None
    used = set(family.unread)
    for name, path, row in _expected(family, config, infos):
        info = infos.get(name)
        if name in family.unread:
            continue
        if info is None:
            if row.optional:
                continue
            raise ModelFileError(f"has no tensor {name}")
        used.add(name)
        shape = _wanted(row.shape.split(), sizes, info.shape)
        if info.shape != shape:
            raise ModelFileError(
                f"tensor {name} has shape {list(info.shape)}, the metadata ask for {list(shape)} ({row.shape})"
            )
        yield from _parameters(info, path, row, sizes, turn)
    extra = range(config["num_hidden_layers"], num_layers)
    unused = [n for n in infos if n not in used and not n.endswith(IGNORED) and _layer(n) not in extra]
    if unused:
        more = f" and {len(unused) - 4} more" if len(unused) > 4 else ""
        raise UnsupportedError(f"tensors {', '.join(unused[:4])}{more} are not used by this architecture")


def _wanted(names: list[str], sizes: Mapping[str, int], there: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a row asks for; "*" takes what is there."""
    if len(names) != len(there):
        return tuple(sizes.get(name, 0) for name in names)
    return tuple(n if name == "*" else sizes[name] for name, n in zip(names, there, strict=True))


def _layer(name: str) -> int:
    match = re.match(r"blk\.(\d{1,9})\.", name)
    return int(match[1]) if match else -1


def _expected(
    family: FamilyNames, config: Mapping[str, Any], infos: Mapping[str, TensorInfo]
) -> Iterator[tuple[str, str, Row]]:
    """(tensor name, path prefix, row) of everything the family may have. Lazy: numbers of layers are the file's word."""
    for row in family.model:
        yield row.tensor, "", row
    for stack in family.stacks:
        for layer in range(config[stack.count]):
            for row in stack.rows:
                yield f"{stack.tensors}{layer}.{row.tensor}", f"{stack.paths}{layer}.", row
    for layer in range(config["num_hidden_layers"] if family.layer else 0):
        block = f"blk.{layer}."
        if family.either and not any(all(block + name in infos for name in way) for way in family.either):
            missing = " or ".join(", ".join(block + name for name in way) for way in family.either)
            raise ModelFileError(f"has no tensors {missing}")
        for row in family.layer:
            yield block + row.tensor, f"layers.{layer}.", row


def _parameters(
    info: TensorInfo, prefix: str, row: Row, sizes: Mapping[str, int], turn: tuple[int, int] | None
) -> Iterator[tuple[str, Tensor]]:
    if row.turn and turn:
        turn = (sizes[row.turn], sizes[row.turn])
    if row.pick:
        of, first, count = (sizes[name] for name in row.pick)
        shape = (info.shape[0] // of * count, *info.shape[1:])
        if row.view:
            shape = tuple(sizes[name] for name in row.view.split())
        yield prefix + row.path, Tensor(info, shape, first, turn if row.heads else None, (of, count))
        return
    if row.view:
        view = tuple(sizes[name] for name in row.view.split())
        if prod(view) != prod(info.shape):
            raise ModelFileError(f"tensor {info.name} has shape {list(info.shape)}, expected {list(view)}")
        yield prefix + row.path, Tensor(info, view)
        return
    if not row.cut:
        yield prefix + row.path, Tensor(info, info.shape, turn=turn if row.heads else None)
        return
    first = 0
    for path, extent in row.cut:
        yield prefix + path, Tensor(info, (sizes[extent], *info.shape[1:]), first)
        first += sizes[extent]


def _tokenizer(
    metadata: Mapping[str, Any], architecture: str
) -> tuple[TokenizerSpec | None, tuple[str, ...]]:
    """The tokenizer, and a note where the file has one that is not implemented: the model still takes token ids."""
    if "tokenizer.ggml.model" not in metadata:
        return None, ()
    from tokamak.tokenizers.files.gguf import spec_from_metadata

    try:
        return spec_from_metadata(metadata, architecture), ()
    except UnsupportedError as error:
        return None, (f"no text, only token ids: {error}",)
