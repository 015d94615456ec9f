"""Adapters on disk: LoRA in GGUF or as PEFT writes it, and control vectors in GGUF.

They come as float32 by parameter path of the model they are for, in the order of rows that the model wants; what a file
says about scale (alpha, rank) is multiplied into B. What would be lost (other tensors, other kinds) is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tokamak.errors import InvalidParams, ModelFileError, UnsupportedError
from tokamak.loaders.checkpoint import Checkpoint
from tokamak.loaders.gguf import Tensor, TensorInfo, half_split_order, open_gguf
from tokamak.loaders.names.hf import HF_FAMILIES, HfFamily
from tokamak.loaders.safetensors import open_tensors, read_bytes, read_object
from tokamak.quant import FORMATS
from tokamak.types import Array, Floats

__all__ = ["Adapter", "Delta", "OpenedAdapter", "open_adapter"]

# of adapter_config.json: settings that change what is computed, and the values that change nothing
_PEFT_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "modules_to_save": (None, []),
    "use_dora": (False, None),
    "layer_replication": (None,),
    "megatron_config": (None,),
    "use_qalora": (False, None),
    "lora_bias": (False, None),
    "alora_invocation_tokens": (None,),
    "target_parameters": (None, []),
}
_MODULE = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<table>embedding_)?(?P<side>[AB])(?:\.(?!weight)\w+)?(?:\.weight)?"
)
_TABLE = "token_embd.weight"


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter to load with a model.

    path: a GGUF file, or a directory that PEFT wrote. scale: how much it counts for requests that do not say. name: what
    requests call it, None: the file's name without its end. layers: of a control vector, the first and the last.
    """

    path: str
    scale: float = 1.0
    name: str | None = None
    layers: tuple[int, int] | None = None

    @property
    def title(self) -> str:
        """What requests call it."""
        return self.name or Path(self.path).stem


class Delta(NamedTuple):
    """W x becomes W x + b a x. a: f32[rank, K], b: f32[N, rank]. looks_up: of a table, then a is one too, f32[V, rank]."""

    a: Floats
    b: Floats
    looks_up: bool = False


@dataclass(frozen=True, slots=True)
class OpenedAdapter:
    """What was read. deltas: by parameter path. directions: by layer, f32[hidden_size]."""

    adapter: Adapter
    deltas: Mapping[str, Delta]
    directions: Mapping[int, Floats]


@dataclass(frozen=True, slots=True)
class _Rows:
    """What `Tensor` asks for of a file, for an array."""

    array: Array

    nbytes = 0

    @property
    def value_types(self) -> dict[str, str]:
        return {}

    def data(self, _name: str) -> Array:
        return np.ascontiguousarray(self.array).reshape(-1).view(np.uint8)

    def release(self, _name: str) -> None:
        return None


def open_adapter(adapter: Adapter, checkpoint: Checkpoint) -> OpenedAdapter:
    """Read an adapter for a model.

    Raises: ModelFileError for a broken file; UnsupportedError for one of another architecture, of another kind or for
    tensors that cannot be adapted; InvalidParams for a scale that is no number.
    """
    if not math.isfinite(adapter.scale):
        raise InvalidParams(f"the scale of adapter {adapter.title!r} is {adapter.scale}; it must be finite")
    if Path(adapter.path).is_dir():
        return OpenedAdapter(adapter, dict(_peft(Path(adapter.path), checkpoint)), {})
    model = open_gguf(adapter.path)
    if model.metadata.get("general.architecture") == "controlvector":
        return OpenedAdapter(adapter, {}, _directions(adapter, model.tensors, checkpoint))
    kind = model.metadata.get("general.type"), model.metadata.get("adapter.type")
    if kind != ("adapter", "lora"):
        raise UnsupportedError(
            f"{adapter.path}: keys general.type and adapter.type are {kind!r}; adapters of type lora are read"
        )
    theirs = model.metadata.get("general.architecture")
    ours = checkpoint.metadata.get("general.architecture")
    if theirs != ours:
        raise UnsupportedError(f"{adapter.path}: is an adapter of {theirs!r:.80}, the model is {ours!r:.80}")
    alpha = model.metadata.get("adapter.lora.alpha", 0.0)
    if not isinstance(alpha, float | int) or not math.isfinite(alpha):
        raise ModelFileError(f"{adapter.path}: key adapter.lora.alpha is {alpha!r:.80}")
    return OpenedAdapter(adapter, dict(_gguf(model.tensors, checkpoint, float(alpha), adapter.path)), {})


def _values(info: TensorInfo) -> Floats:
    values: Floats = FORMATS[info.format].decode(info.data().reshape(info.shape[0], -1)).astype(np.float32)
    return values.reshape(info.shape)


def _gguf(
    infos: Mapping[str, TensorInfo], checkpoint: Checkpoint, alpha: float, path: str
) -> Iterator[tuple[str, Delta]]:
    left = set(infos)
    homes: dict[str, list[tuple[str, Tensor]]] = {}
    for name, weight in checkpoint.weights.items():
        if isinstance(weight, Tensor):
            homes.setdefault(weight.name, []).append((name, weight))
    for name, info in infos.items():
        stem = name.removesuffix(".lora_a")
        if stem == name:
            continue
        if f"{stem}.lora_b" not in infos or stem not in homes:
            raise UnsupportedError(f"{path}: tensor {name} has no lora_b, or no tensor {stem} of the model")
        left -= {name, f"{stem}.lora_b"}
        a, b = _values(info), _values(infos[f"{stem}.lora_b"])
        whole = homes[stem][0][1].info.shape
        looks_up = stem == _TABLE
        _fits(stem, a.T if looks_up else a, b, whole[::-1] if looks_up else whole)
        b = b * np.float32(alpha / b.shape[1]) if alpha else b
        for home, tensor in homes[stem]:
            yield home, Delta(a, b if looks_up else _as_tensor(b, tensor), looks_up)
    if left:
        raise UnsupportedError(f"{path}: tensor {min(left)} is no part of a lora pair")


def _as_tensor(b: Floats, tensor: Tensor) -> Floats:
    """Rows of B as the model has the rows of the tensor: cut and ordered alike."""
    part = _Rows(np.ascontiguousarray(b, dtype=np.float32))
    info = TensorInfo(tensor.name, "f32", b.shape, 0, b.nbytes, part)
    moved = replace(tensor, info=info, shape=(tensor.shape[0], b.shape[1]))
    rows: Floats = np.ascontiguousarray(moved.rows()).view(np.float32)
    return rows.reshape(tensor.shape[0], b.shape[1])


def _fits(name: str, a: Floats, b: Floats, shape: tuple[int, ...]) -> None:
    if a.ndim != 2 or b.ndim != 2 or len(shape) != 2:
        experts = " (adapters of experts are not implemented)" if len(shape) == 3 else ""
        raise UnsupportedError(f"the adapter of {name} is no pair of matrices for a matrix{experts}")
    if (b.shape[0], a.shape[1]) != shape or len(a) != b.shape[1] or not len(a):
        raise ModelFileError(
            f"the adapter of {name} has the shapes {list(a.shape)} and {list(b.shape)}, the model's is {list(shape)}"
        )


def _peft(folder: Path, checkpoint: Checkpoint) -> Iterator[tuple[str, Delta]]:
    config = read_object(read_bytes(folder / "adapter_config.json"), folder / "adapter_config.json")
    for key, plain in _PEFT_PLAIN.items():
        if key in config and config[key] not in plain:
            raise UnsupportedError(f"{folder}: {key} is {config[key]!r:.80}, which is not implemented")
    sides: dict[str, dict[str, Floats]] = {}
    tables = set[str]()
    for name, tensor in open_tensors(folder).items():
        match = _MODULE.fullmatch(name)
        if match is None:
            raise UnsupportedError(f"{folder}: tensor {name} is no part of a lora pair")
        sides.setdefault(match["module"], {})[match["side"]] = tensor.values()
        tables |= {match["module"]} if match["table"] else set()
    hf, homes = _written_as(checkpoint, list(sides), folder)
    for module, pair in sides.items():
        if set(pair) != {"A", "B"}:
            raise ModelFileError(f"{folder}: module {module} has {' and '.join(pair)} only")
        home, weight = homes[module], checkpoint.weights[homes[module]]
        looks_up = module in tables
        _fits(module, pair["A"], pair["B"], weight.shape[::-1] if looks_up else weight.shape)
        scale = _peft_scale(config, module, len(pair["A"]), folder)
        if looks_up:
            yield home, Delta(np.ascontiguousarray(pair["A"].T), pair["B"] * np.float32(scale), looks_up=True)
            continue
        yield (
            home,
            Delta(pair["A"], _model_order(pair["B"] * np.float32(scale), home, weight, hf, checkpoint)),
        )


def _peft_scale(config: Mapping[str, Any], module: str, rank: int, folder: Path) -> float:
    """alpha / rank, or / its root where the configuration says so; a pattern may name another alpha for a module."""
    alpha = config.get("lora_alpha", 8)
    for pattern, other in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = other
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise ModelFileError(f"{folder}: lora_alpha is {alpha!r:.80}, expected a number")
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _written_as(checkpoint: Checkpoint, modules: list[str], folder: Path) -> tuple[HfFamily, dict[str, str]]:
    """The family whose names these are, and the parameter path of each module."""
    architecture = checkpoint.metadata.get("general.architecture")
    missing = modules[:1]
    for hf in HF_FAMILIES.values():
        if hf.architecture != architecture:
            continue
        homes = {m: _path(m, hf, checkpoint) for m in modules}
        missing = [m for m, home in homes.items() if not home]
        if modules and not missing:
            return hf, homes
    first = missing[0] if missing else "(none)"
    experts = "; adapters of experts are not implemented" if ".experts" in first else ""
    raise UnsupportedError(f"{folder}: the model has no matrix for module {first}{experts}")


def _path(module: str, hf: HfFamily, checkpoint: Checkpoint) -> str:
    """Parameter path of the matrix of a module, "" if the model has none."""
    ours = {theirs: path for path, theirs in hf.paths.items()}
    for prefix in hf.prefixes:
        rest = module.removeprefix(prefix)
        layer, name = "", rest
        if match := re.fullmatch(rf"{re.escape(hf.layers)}\.(\d+)\.(.+)", rest):
            layer, name = f"layers.{match[1]}.", match[2]
        found = layer + ours.get(f"{name}.weight", f"{name}.weight")
        if found in checkpoint.weights:
            return found
    return ""


def _model_order(b: Floats, home: str, tensor: Any, hf: HfFamily, checkpoint: Checkpoint) -> Floats:
    """Rows of B from the order of Hugging Face to the model's: heads apart, pairs of rope in halves."""
    if re.sub(r"^layers\.\d+\.", "", home) in hf.made:
        raise UnsupportedError(
            f"adapters of {home} are not implemented: the model computes it from another tensor"
        )
    config: Mapping[str, Any] = checkpoint.config
    turn = getattr(tensor, "turn", None)
    if hf.mixed_heads and "qkv_proj" in home:
        heads = int(config["num_attention_heads"])
        b = b.reshape(heads, 3, -1, b.shape[1]).transpose(1, 0, 2, 3).reshape(b.shape)
    if hf.paired and turn is not None:
        b = b[half_split_order(len(b), *turn)]
    return np.ascontiguousarray(b)


def _directions(
    adapter: Adapter, infos: Mapping[str, TensorInfo], checkpoint: Checkpoint
) -> dict[int, Floats]:
    config: Mapping[str, Any] = checkpoint.config
    num_layers, width = int(config["num_hidden_layers"]), int(config["hidden_size"])
    first, last = adapter.layers or (1, num_layers)
    if not 1 <= first <= last:
        raise InvalidParams(f"layers {first} to {last}: a control vector has directions from layer 1 up")
    found = {}
    for name, info in infos.items():
        stem, _, number = name.partition(".")
        if stem != "direction" or not number.isascii() or not number.isdigit():
            raise UnsupportedError(f"{adapter.path}: tensor {name} is no direction.N of a control vector")
        if info.shape != (width,):
            raise ModelFileError(f"{adapter.path}: tensor {name} has shape {list(info.shape)}, not [{width}]")
        layer = int(number)
        if not 1 <= layer < num_layers:
            raise UnsupportedError(f"{adapter.path}: {name} is for a layer that is not 1 .. {num_layers - 1}")
        if first <= layer <= last:
            found[layer] = _values(info)
    return found
