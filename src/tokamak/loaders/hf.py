"""A Hugging Face directory (config.json and safetensors) as if it were a GGUF file.

Every tensor of the architecture's table (`names.FAMILIES`) is made from stored ones on request: reordered, transposed,
stacked, or simply mapped. So one strict reader serves both kinds of model, and converting is writing down what is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tokamak.errors import ModelFileError, UnsupportedError
from tokamak.loaders.gguf import GgufModel, TensorInfo, half_split_order
from tokamak.loaders.hf_config import Keys, keys_of
from tokamak.loaders.hf_mxfp4 import with_experts_unpacked
from tokamak.loaders.hf_quantised import Unpacked, unpacked
from tokamak.loaders.hf_vision import text_part
from tokamak.loaders.names import FAMILIES, FamilyNames, Row
from tokamak.loaders.names.hf import HF_FAMILIES, HfFamily
from tokamak.loaders.safetensors import StoredTensor, open_tensors, read_bytes, read_object
from tokamak.quant import FORMATS
from tokamak.types import Array

__all__ = ["is_hf_directory", "open_directory"]

POOLINGS = {"pooling_mode_mean_tokens": 1, "pooling_mode_cls_token": 2, "pooling_mode_lasttoken": 3}
NAMED = {
    "pooling_mode_mean": "pooling_mode_mean_tokens",
    "pooling_mode_cls": "pooling_mode_cls_token",
}
PACKED = ("q4_0", "q8_0", "tq2_0", "mxfp4")  # of matrices that were quantised already
KEPT = ("f32", "f16", "bf16", *PACKED)  # formats that stay; others become f32
Source = StoredTensor | Unpacked


@dataclass(frozen=True, slots=True)
class _Made:
    """A tensor made from stored ones: `read` gives its bytes, u8[nbytes]."""

    format: str
    shape: tuple[int, ...]
    sources: tuple[Source, ...]
    read: Callable[[], Array]


class _Directory:
    """What `TensorInfo.part` asks for."""

    def __init__(self, keys: Keys, tensors: Mapping[str, _Made], nbytes: int) -> None:
        self.value_types, self.metadata, self.nbytes = dict(keys.types), keys.metadata, nbytes
        self.made = tensors

    def data(self, name: str) -> Array:
        """u8[nbytes]: a view of the file where nothing had to be changed."""
        return self.made[name].read()

    def release(self, name: str) -> None:
        """Give mapped pages back."""
        for source in self.made[name].sources:
            source.release()


def is_hf_directory(path: Path) -> bool:
    """Whether a directory has a configuration and weights."""
    return (path / "config.json").is_file() and any(path.glob("*.safetensors"))


def open_directory(path: str | Path) -> GgufModel:
    """The directory as metadata and tensors of GGUF.

    Raises: ModelFileError for a broken or incomplete one; UnsupportedError for architectures, settings and dtypes that
    are not implemented.
    """
    folder = Path(path)
    config = read_object(read_bytes(folder / "config.json"), folder / "config.json")
    config, files = text_part(config, open_tensors(folder))
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in HF_FAMILIES:
        raise UnsupportedError(
            f"config.json: model_type {kind!r:.80} is not implemented; known: {', '.join(HF_FAMILIES)}"
        )
    hf = HF_FAMILIES[kind]
    family = FAMILIES[hf.architecture]
    if family.form:
        experts = config.get("num_local_experts") or config.get("num_experts") or 0
        counts = {"expert_count": experts, "block_count": config.get("num_hidden_layers")}
        family = FAMILIES[family.form(counts) or hf.architecture]
    keys = keys_of(config, hf, family)
    keys.put("general.architecture", hf.architecture)
    keys.put("general.type", "model")
    keys.put("general.name", str(config.get("_name_or_path") or folder.resolve().name))
    if (pooling := _pooling(folder)) is not None:
        keys.put(f"{hf.architecture}.pooling_type", pooling)
    settings = config.get("quantization_config")
    in_mxfp4 = isinstance(settings, dict) and settings.get("quant_method") == "mxfp4"
    stored = with_experts_unpacked(files) if in_mxfp4 else unpacked(files, config)
    _check_ranked(config, hf, stored)
    tied = bool(config.get("tie_word_embeddings", hf.defaults.get("tie_word_embeddings", False)))
    made = dict(_Maker(hf, family, keys, stored, config).tensors(tied=tied))
    part = _Directory(keys, made, sum(t.nbytes for t in files.values()))
    infos = {
        name: TensorInfo(name, one.format, one.shape, 0, _nbytes(one), part) for name, one in made.items()
    }
    return GgufModel(str(path), (), keys.metadata, infos, part)


def _pooling(folder: Path) -> int | None:
    """GGUF's number of what sentence-transformers pools with; None without its directory.  Raises: UnsupportedError."""
    _check_modules(folder / "modules.json")
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return None
    said = read_object(read_bytes(path), path)
    if (mode := said.get("pooling_mode")) is not None:  # of sentence-transformers from 5 on
        said = {f"pooling_mode_{mode}": True}
    chosen = [name for name, on in said.items() if on is True and name.startswith("pooling_mode_")]
    chosen = [NAMED.get(name, name) for name in chosen]
    if len(chosen) != 1 or chosen[0] not in POOLINGS:
        raise UnsupportedError(
            f"{path.name} pools with {chosen or 'something else'}; one of {', '.join(POOLINGS)} is implemented"
        )
    return POOLINGS[chosen[0]]


def _check_modules(path: Path) -> None:
    """Raises: UnsupportedError where sentence-transformers does more with the states than pooling and a length of 1."""
    if not path.is_file():
        return
    said = re.findall(rb'"type"\s*:\s*"[^"]*?(\w+)"', read_bytes(path))
    if more := sorted({name.decode() for name in said} - {"Transformer", "Pooling", "Normalize"}):
        raise UnsupportedError(f"{path.name}: {', '.join(more)} behind the model is not implemented")


def _check_ranked(config: Mapping[str, Any], hf: HfFamily, stored: Mapping[str, Source]) -> None:
    """Raises: UnsupportedError for a head that is fed in another way than implemented."""
    for name, wanted in hf.ranked.items():
        if set(hf.behind.values()) & set(stored) and config.get(name, wanted) != wanted:
            raise UnsupportedError(
                f"config.json: {name} is {config[name]!r:.80}, implemented with a ranking head: {wanted!r}"
            )


def _nbytes(made: _Made) -> int:
    fmt = FORMATS[made.format]
    return prod(made.shape) // fmt.block_size * fmt.type_size


class _Maker:
    """Finds stored tensors for the rows of a family's table and says how each becomes what GGUF has."""

    def __init__(
        self,
        hf: HfFamily,
        family: FamilyNames,
        keys: Keys,
        stored: Mapping[str, Source],
        config: Mapping[str, Any],
    ) -> None:
        self.hf, self.family, self.keys, self.stored = hf, family, keys, stored
        self.used: set[str] = set()
        facts = {k.removeprefix(f"{hf.architecture}."): v for k, v in keys.metadata.items()}
        self.num_layers = int(facts["block_count"])
        self.head_dim = int(facts.get("attention.key_length", 0))
        self.rotary = int(facts.get("rope.dimension_count", self.head_dim))
        self.heads = int(facts["attention.head_count"])
        self.facts = facts | {"config.json": config}
        self.counts = {name: int(facts.get(key, 0)) for key, name in family.some.items()}
        self.counts["num_hidden_layers"] = self.num_layers
        self.num_experts = int(facts.get("expert_count", 0))

    def tensors(self, *, tied: bool) -> Iterator[tuple[str, _Made]]:
        for row in self.family.model:
            if row.path.startswith("lm_head") and tied:
                self.used |= {name for name in self.names(row.path, "") if name in self.stored}
                continue
            if (made := self.make(row, "")) is not None:
                yield row.tensor, made
            elif row.path == "lm_head.weight":
                raise ModelFileError("has no tensor lm_head.weight, and tie_word_embeddings is not set")
        for name, factors in self.keys.tensors.items():
            yield name, _Made("f32", factors.shape, (), partial(_bytes_of, factors))
        for layer in range(self.num_layers if self.family.layer else 0):
            for row in {row.tensor: row for row in reversed(self.family.layer)}.values():
                if (made := self.make(row, f"{self.hf.layers}.{layer}.")) is not None:
                    yield f"blk.{layer}.{row.tensor}", made
        for stack in self.family.stacks:
            for layer in range(self.counts[stack.count]):
                for row in stack.rows:
                    there = replace(row, path=stack.paths + row.path)
                    if (made := self.make(there, f"{self.hf.sides[stack.paths]}{layer}.")) is not None:
                        yield f"{stack.tensors}{layer}.{row.tensor}", made
        left = [n for n in self.stored if n not in self.used and not n.endswith(self.hf.ignored)]
        if self.hf.ahead:
            left = [n for n in left if self.layer_of(n) < self.num_layers]
        if left:
            more = f" and {len(left) - 4} more" if len(left) > 4 else ""
            raise UnsupportedError(f"tensors {', '.join(left[:4])}{more} are not used by this architecture")

    def layer_of(self, name: str) -> int:
        match = re.search(rf"\b{re.escape(self.hf.layers)}\.(\d{{1,9}})\.", name)
        return int(match[1]) if match else -1

    def names(self, path: str, layer: str) -> Iterator[str]:
        """What the tensor of a path may be called."""
        theirs = [self.hf.paths.get(path, path), *(self.hf.others[p] for p in [path] if p in self.hf.others)]
        return (f"{prefix}{layer}{name}" for name in theirs for prefix in self.hf.prefixes)

    def find(self, path: str, layer: str) -> Source | None:
        for name in self.names(path, layer):
            if name in self.stored:
                self.used.add(name)
                return self.stored[name]
        return None

    def make(self, row: Row, layer: str) -> _Made | None:
        """None where an optional tensor is missing."""
        if row.cut and row.tensor not in self.hf.whole:  # files of this kind have the pieces
            return None
        if row.path in self.hf.behind and self.hf.behind[row.path] not in self.stored:
            return None
        if self.hf.lacks and self.hf.lacks(row.tensor, self.facts):
            return None
        if row.path in self.hf.made or row.path in self.hf.values:
            return self.computed(row, layer)
        found = self.find(self.hf.whole.get(row.tensor, row.path), layer)
        made = self.stack(row.path, layer) if found is None else _plain(found)
        if made is None:
            if row.optional:
                return None
            raise ModelFileError(f"has no tensor {next(self.names(row.path, layer))}")
        return self.adapted(row, made)

    def computed(self, row: Row, layer: str) -> _Made | None:
        """A tensor that is a part of another one, in another order."""
        numbers = row.path in self.hf.values
        name, change = (self.hf.values if numbers else self.hf.made)[row.path]
        found = self.find(name, layer)
        if found is None:
            if row.optional:
                return None
            raise ModelFileError(f"has no tensor {next(self.names(name, layer))}")
        made = _in_f32(_plain(found)) if numbers else _plain(found)
        try:
            shape = change(np.zeros(made.shape, np.uint8), self.facts).shape
        except (ValueError, IndexError):
            raise ModelFileError(f"tensor {found.name} has the shape {list(made.shape)}") from None
        return self.adapted(row, _changed(made, lambda x: change(x, self.facts), shape))

    def adapted(self, row: Row, made: _Made) -> _Made:
        """Orders of rows and offsets of values as GGUF has them; vectors and tables of positions in f32."""
        if self.hf.transposed and len(made.shape) == 2 and row.path.split(".")[-2].endswith("_proj"):
            made = _changed(made, lambda x: x.T, (made.shape[1], made.shape[0]))
        turns = self.hf.alternating and made.format not in PACKED
        if turns and row.tensor == "ffn_down_exps.weight":
            count, inner, outer = made.shape
            made = _changed(made, lambda x: x.transpose(0, 2, 1), (count, outer, inner))
        if self.hf.mixed_heads and "qkv_proj" in row.path:
            made = self.parted(made)
        if row.heads and self.family.interleaved and not self.hf.paired:
            order = np.argsort(half_split_order(made.shape[0], self.head_dim, self.rotary))
            made = _ordered(made, order)
        if self.hf.one_more and row.path.endswith("norm.weight") and row.tensor != "ssm_norm.weight":
            made = _changed(_in_f32(made), lambda x: x + np.float32(1), made.shape)
        small = (
            len(made.shape) == 1
            or row.tensor.endswith(".bias")
            or row.path.startswith("embed_positions")
            or row.tensor.startswith("ffn_gate_inp")
        )
        return _in_f32(made) if small or made.format not in KEPT else made

    def parted(self, made: _Made) -> _Made:
        """Rows of Q, then of K, then of V, from rows of each group: its queries, its key, its value."""
        groups = int(self.facts["attention.head_count_kv"])
        if made.shape[0] != (self.heads + 2 * groups) * self.head_dim:
            raise ModelFileError(f"tensor {made.sources[0].name} has the shape {list(made.shape)}")
        rows = np.arange(made.shape[0]).reshape(groups, -1, self.head_dim)
        parts = (rows[:, :-2], rows[:, -2], rows[:, -1])
        return _ordered(made, np.concatenate([part.reshape(-1) for part in parts]))

    def stack(self, path: str, layer: str) -> _Made | None:
        """The matrices of all experts, from one tensor each or from one that has gates and ups."""
        if path in self.hf.stacks:
            template = self.hf.stacks[path]
            for prefix in self.hf.prefixes:
                names = [f"{prefix}{layer}{template.format(e)}" for e in range(self.num_experts)]
                if names and all(name in self.stored for name in names):
                    self.used.update(names)
                    return _stacked([_plain(self.stored[name]) for name in names])
        if path in self.hf.halves:
            name, half = self.hf.halves[path]
            found = next(
                (f"{p}{layer}{name}" for p in self.hf.prefixes if f"{p}{layer}{name}" in self.stored), None
            )
            if found is not None and self.hf.alternating:
                self.used.add(found)
                return _every_other(_plain(self.stored[found]), half)
            if found is not None and len(self.stored[found].shape) == 3:
                self.used.add(found)
                made = _plain(self.stored[found])
                count, both, width = made.shape
                part = slice(half * (both // 2), (half + 1) * (both // 2))
                return _changed(made, lambda x: x[:, part], (count, both // 2, width))
        return None


def _every_other(made: _Made, half: int) -> _Made:
    """Of [experts, (inputs,) outputs], packed ones [experts, outputs, inputs], the gates or the ups, outputs before inputs."""
    if made.format in PACKED:
        experts, both, inputs = made.shape
        rows = (experts, both, -1)
        return replace(
            made,
            shape=(experts, both // 2, inputs),
            read=lambda: np.ascontiguousarray(made.read().reshape(rows)[:, half::2]).reshape(-1),
        )
    *rest, both = made.shape
    shape = (rest[0], both // 2, *rest[1:])
    return _changed(made, lambda x: np.moveaxis(x[..., half::2], -1, 1), shape)


def _plain(stored: Source) -> _Made:
    if not stored.shape or 0 in stored.shape:
        raise ModelFileError(f"tensor {stored.name} has the shape {list(stored.shape)}")
    made = _Made(stored.format, stored.shape, (stored,), stored.data)
    return made if made.format in KEPT else _in_f32(made)


def _in_f32(made: _Made) -> _Made:
    if made.format == "f32":
        return made
    if made.format not in (*KEPT, "f64"):
        raise UnsupportedError(
            f"tensor {made.sources[0].name} is {made.format}, expected a floating-point dtype"
        )
    fmt = FORMATS[made.format]
    return replace(
        made, format="f32", read=lambda: fmt.decode(made.read().reshape(1, -1)).reshape(-1).view(np.uint8)
    )


def _bytes_of(array: Array) -> Array:
    return array.view(np.uint8)


def _ordered(made: _Made, order: Array) -> _Made:
    """Rows in another order, whatever their format."""
    rows = made.shape[0]
    return replace(made, read=lambda: made.read().reshape(rows, -1)[order].reshape(-1))


_WORDS = {"f32": np.float32, "f16": np.uint16, "bf16": np.uint16}


def _changed(made: _Made, change: Callable[[Array], Array], shape: tuple[int, ...]) -> _Made:
    """`change` applied to the elements: as numbers in f32, else as words that are only moved."""
    if made.format in PACKED:
        raise UnsupportedError(
            f"tensor {made.sources[0].name}: quantised weights of this architecture would have to be turned or cut, "
            "which is not implemented"
        )

    def read() -> Array:
        elements: Array = made.read().view(_WORDS[made.format]).reshape(made.shape)
        return np.ascontiguousarray(change(elements)).reshape(-1).view(np.uint8)

    return replace(made, shape=shape, read=read)


def _stacked(parts: list[_Made]) -> _Made:
    kinds = {(p.format, p.shape) for p in parts}
    if len(kinds) != 1:
        raise ModelFileError(
            f"experts differ: {sorted(kinds)[:2]}, tensor {parts[0].sources[0].name} for one"
        )
    first = parts[0]

    def read() -> Array:
        return np.concatenate([p.read() for p in parts])

    sources = tuple(s for p in parts for s in p.sources)
    return _Made(first.format, (len(parts), *first.shape), sources, read)
