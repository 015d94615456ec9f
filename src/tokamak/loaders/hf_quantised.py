"""Matrices that GPTQ, AWQ, compressed-tensors and BitNet left in a Hugging Face directory, as weight formats that run.

All four say w[n, k] = scale[n, group of k] * (code[n, k] - zero[n, group of k]). Where groups are neighbouring columns in
multiples of 32 this is q4_0 (zero 8) or q8_0 as it stands, ternary ones are tq2_0; others become f16. Nothing is rounded
but scales that f16 does not hold, to it. Source: what AutoGPTQ, AutoAWQ, compressed-tensors and transformers write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tokamak.errors import ModelFileError, UnsupportedError
from tokamak.loaders.safetensors import StoredTensor
from tokamak.quant import FORMATS
from tokamak.types import Array, Floats

__all__ = ["Unpacked", "unpacked"]

Stored = Mapping[str, StoredTensor]
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # nibble of column i among 8
F16_NORMAL = (2.0**-14, 65504.0)
BLOCKS = {
    "q4_0": np.dtype([("d", "<f2"), ("qs", "u1", 16)]),
    "q8_0": np.dtype([("d", "<f2"), ("qs", "i1", 32)]),
}


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A matrix made of what a quantiser left; as `StoredTensor`, as far as one is asked. shape: [N, K]."""

    name: str
    format: str
    shape: tuple[int, ...]
    sources: tuple[StoredTensor, ...]
    read: Callable[[], Array]

    def data(self) -> Array:
        """u8[nbytes], made anew each time."""
        return self.read()

    def release(self) -> None:
        """Give the mapped pages back."""
        for source in self.sources:
            source.release()


@dataclass(frozen=True, slots=True)
class _Grid:
    """scale * step. steps: i16[N, K] less their zeros, all in [low, high]. scales: f32[N, G]. groups: i[K] where the columns of
    a group are not neighbours."""

    shape: tuple[int, int]
    steps: Callable[[], Array]
    scales: Callable[[], Floats]
    low: int
    high: int
    groups: Array | None = None

    def format(self) -> str:
        """The smallest format that holds it as it is."""
        sizes = np.abs(scales := self.scales())
        columns = self.shape[1]
        fits = bool(((sizes == 0) | (sizes == sizes.astype(np.float16))).all()) or bool(
            ((sizes >= F16_NORMAL[0]) & (sizes <= F16_NORMAL[1])).all()
        )
        if not fits or float(sizes.max(initial=0)) * max(-self.low, self.high) > F16_NORMAL[1]:
            return "f32"
        if self.groups is not None or columns % (32 * scales.shape[1]):
            return "f16"
        if self.low >= -1 and self.high <= 1 and columns % (256 * scales.shape[1]) == 0:
            return "tq2_0"
        if self.low >= -128 and self.high <= 127:
            return "q4_0" if self.low >= -8 and self.high <= 7 else "q8_0"
        return "f16"

    def bytes(self, name: str) -> Array:
        """u8[nbytes] in that format."""
        steps, scales = self.steps(), self.scales()
        if name in BLOCKS:
            blocks = np.empty((self.shape[0], self.shape[1] // 32), dtype=BLOCKS[name])
            blocks["d"] = np.repeat(scales, blocks.shape[1] // scales.shape[1], axis=1)
            steps = steps.reshape(*blocks.shape, 32)
            if name == "q8_0":
                blocks["qs"] = steps
            else:
                codes = (steps + 8).astype(np.uint8)
                blocks["qs"] = codes[..., :16] | (codes[..., 16:] << np.uint8(4))
            return blocks.reshape(-1).view(np.uint8)
        if self.groups is None:
            wide = np.repeat(scales, self.shape[1] // scales.shape[1], axis=1)
        else:
            wide = scales[:, self.groups]
        return FORMATS[name].encode((wide * steps).astype(np.float32, copy=False)).reshape(-1)


def unpacked(stored: Stored, config: Mapping[str, Any]) -> dict[str, StoredTensor | Unpacked]:
    """The tensors of a directory with packed matrices under the names that they had before.

    config: its config.json. Raises: UnsupportedError naming a way to quantise that is not implemented; ModelFileError.
    """
    settings = config.get("quantization_config")
    if settings is None:
        return dict(stored)
    if not isinstance(settings, dict):
        raise ModelFileError(f"config.json: quantization_config is {settings!r:.80}")
    method = settings.get("quant_method")
    if not isinstance(method, str) or method not in READERS:
        raise UnsupportedError(
            f"config.json: quantization_config: weights quantised by {method!r:.80} are not read; "
            f"known: {', '.join(READERS)}"
        )
    mark, read = READERS[method]
    found: dict[str, StoredTensor | Unpacked] = {}
    used: set[str] = set()
    for name in stored:
        module = name.removesuffix(mark)
        if module == name:
            continue
        try:
            grid = read(_Module(module, stored, used), settings)
        except (AttributeError, TypeError, ValueError) as error:  # settings of another kind, empty tensors
            raise ModelFileError(f"tensors of {module} do not hold together: {error}") from error
        if grid is not None:
            found[f"{module}.weight"] = _made(f"{module}.weight", grid, stored, module)
    return found | {name: tensor for name, tensor in stored.items() if name not in used and name not in found}


def _made(name: str, grid: _Grid, stored: Stored, module: str) -> Unpacked:
    kind = grid.format()
    sources = tuple(t for n, t in stored.items() if n.rpartition(".")[0] == module)
    return Unpacked(name, kind, grid.shape, sources, partial(grid.bytes, kind))


@dataclass(frozen=True, slots=True)
class _Module:
    """The tensors of one linear module."""

    name: str
    stored: Stored
    used: set[str]

    def has(self, part: str) -> bool:
        return f"{self.name}.{part}" in self.stored

    def integers(self, part: str, *, rank: int = 2, dtypes: tuple[str, ...] = ("I32",)) -> Array:
        """A view of integers. Raises: ModelFileError if it is missing or no such tensor."""
        tensor = self.tensor(part)
        if tensor.dtype not in dtypes or len(tensor.shape) != rank:
            raise ModelFileError(
                f"tensor {tensor.name} is {tensor.dtype}{list(tensor.shape)}, expected {rank} axes of {dtypes[0]}"
            )
        kinds = {"I32": np.int32, "I64": np.int64, "I8": np.int8, "U8": np.uint8}
        return tensor.data().view(kinds[tensor.dtype]).reshape(tensor.shape)

    def scales(self, part: str, rows: int, *, turned: bool) -> Callable[[], Floats]:
        """f32[N, G] of [G, N] if turned, else of [N, G] or of one number."""
        tensor = self.tensor(part)
        shape = tensor.shape[::-1] if turned else tensor.shape
        if tensor.dtype not in ("F16", "BF16", "F32") or (
            shape != (1,) and (len(shape) != 2 or shape[0] != rows)
        ):
            raise ModelFileError(
                f"tensor {tensor.name} is {tensor.dtype}{list(tensor.shape)}, no scales of {rows} rows"
            )
        if 0 in shape:
            raise ModelFileError(f"tensor {tensor.name} is empty")

        def read() -> Floats:
            values = tensor.values()
            return (
                np.ascontiguousarray(values.T)
                if turned
                else np.broadcast_to(values.reshape(-1, shape[-1]), (rows, shape[-1]))
            )

        return read

    def tensor(self, part: str) -> StoredTensor:
        """Raises: ModelFileError if there is none."""
        name = f"{self.name}.{part}"
        if name not in self.stored:
            raise ModelFileError(f"has no tensor {name}, which {self.name} needs")
        self.used.add(name)
        return self.stored[name]

    def fits(self, part: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        """Raises: ModelFileError unless a shape is the one that the others ask for."""
        if found != wanted:
            raise ModelFileError(
                f"tensor {self.name}.{part} has shape {list(found)}, expected {list(wanted)}"
            )


def _fields(words: Array, bits: int, axis: int) -> Array:
    """u8: the 32 / bits fields of each int32, lowest first, along an axis."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32).reshape(
        [-1 if i == axis + 1 else 1 for i in range(words.ndim + 1)]
    )
    fields = (np.expand_dims(words.view(np.uint32), axis + 1) >> shifts) & np.uint32((1 << bits) - 1)
    shape = list(words.shape)
    shape[axis] *= 32 // bits
    return fields.astype(np.uint8).reshape(shape)


def _bits(settings: Mapping[str, Any], known: tuple[int, ...]) -> int:
    bits = settings.get("bits", settings.get("w_bit", 4))
    if bits not in known:
        raise UnsupportedError(
            f"config.json: quantization_config.bits is {bits!r:.80}, implemented: {', '.join(map(str, known))}"
        )
    return int(bits)


def _grouped(module: _Module, settings: Mapping[str, Any], columns: int, count: int) -> Array | None:
    """The group of each column, None if they are neighbours, as many in each."""
    size = settings.get("group_size", settings.get("q_group_size", -1))
    size = columns if size in (-1, None, 0) else size
    if not isinstance(size, int) or size < 1 or -(-columns // size) != count:
        raise ModelFileError(
            f"{module.name} has {count} groups of {columns} columns, group_size is {size!r:.40}"
        )
    plain = np.arange(columns) // size
    groups = module.integers("g_idx", rank=1).astype(np.intp) if module.has("g_idx") else plain
    module.fits("g_idx", groups.shape, (columns,))
    if groups.min() < 0 or groups.max() >= count:
        raise ModelFileError(f"tensor {module.name}.g_idx names groups outside 0 .. {count - 1}")
    return None if columns % size == 0 and np.array_equal(groups, plain) else groups


def _gptq(module: _Module, settings: Mapping[str, Any]) -> _Grid:
    """qweight i32[K bits / 32, N], qzeros i32[G, N bits / 32] (less one before version 2), scales [G, N], g_idx i32[K]."""
    bits = _bits(settings, (2, 4, 8))
    words, zero_words = module.integers("qweight"), module.integers("qzeros")
    columns, rows = words.shape[0] * 32 // bits, words.shape[1]
    scales = module.scales("scales", rows, turned=True)
    count = module.tensor("scales").shape[0]
    module.fits("qzeros", zero_words.shape, (count, rows * bits // 32))
    one = settings.get("checkpoint_format", "gptq") != "gptq_v2"
    groups = _grouped(module, settings, columns, count)

    def zeros() -> Array:
        return _fields(zero_words, bits, 1).T.astype(np.int16) + np.int16(one)

    def codes() -> Array:
        return _fields(words, bits, 0).T

    return _less_zeros((rows, columns), codes, zeros, scales, bits, groups)


def _awq(module: _Module, settings: Mapping[str, Any]) -> _Grid:
    """qweight i32[K, N / 8], qzeros i32[G, N / 8], both with columns in AWQ's order; scales [G, N]."""
    if settings.get("version", "gemm") != "gemm":
        raise UnsupportedError(f"config.json: AWQ version {settings['version']!r:.80}, implemented: 'gemm'")
    bits = _bits(settings, (4,))
    words, zero_words = module.integers("qweight"), module.integers("qzeros")
    columns, rows = words.shape[0], words.shape[1] * 8
    scales = module.scales("scales", rows, turned=True)
    count = module.tensor("scales").shape[0]
    module.fits("qzeros", zero_words.shape, (count, rows // 8))
    groups = _grouped(module, settings, columns, count)

    def ordered(packed: Array) -> Array:
        fields = _fields(packed, 4, 1).reshape(packed.shape[0], -1, 8)
        return fields[:, :, AWQ_ORDER].reshape(packed.shape[0], -1).T

    return _less_zeros(
        (rows, columns),
        lambda: ordered(words),
        lambda: ordered(zero_words).astype(np.int16),
        scales,
        bits,
        groups,
    )


def _less_zeros(
    shape: tuple[int, int],
    codes: Callable[[], Array],
    zeros: Callable[[], Array],
    scales: Callable[[], Floats],
    bits: int,
    groups: Array | None,
) -> _Grid:
    """The grid of unsigned codes u8[N, K] and zeros i16[N, G]."""

    def steps() -> Array:
        z = zeros()
        wide = np.repeat(z, shape[1] // z.shape[1], axis=1) if groups is None else z[:, groups]
        out: Array = np.subtract(codes(), wide, dtype=np.int16)
        return out

    found = zeros()
    return _Grid(shape, steps, scales, -int(found.max()), (1 << bits) - 1 - int(found.min()), groups)


def _compressed(module: _Module, settings: Mapping[str, Any]) -> _Grid | None:
    """weight_packed i32[N, K bits / 32] of codes + 2^(bits - 1), or weight i8[N, K]; weight_scale [N, G]; zeros likewise."""
    _check_compressed(settings)
    if not module.has("weight_scale"):
        return None
    bits, packed = 8, module.has("weight_packed")
    if packed:
        words = module.integers("weight_packed")
        rows, columns = map(int, module.integers("weight_shape", rank=1, dtypes=("I64", "I32"))[:2])
        bits = next((b for b in (4, 8) if words.shape == (rows, -(-columns * b // 32))), 0)
        if not bits:
            raise UnsupportedError(f"tensor {module.name}.weight_packed is no matrix of 4 or 8 bits")
    else:
        words = module.integers("weight", dtypes=("I8",))
        rows, columns = words.shape
    scales, half = module.scales("weight_scale", rows, turned=False), 1 << (bits - 1)
    count = module.tensor("weight_scale").shape[-1]
    groups = _compressed_groups(module, columns, count)
    for part in ("input_scale", "input_zero_point"):  # activations have scales of their own here
        if module.has(part):
            module.tensor(part)

    def codes() -> Array:
        return _fields(words, bits, 1)[:, :columns] if packed else (words.view(np.uint8) ^ np.uint8(128))

    def zeros() -> Array:
        if not module.has("weight_zero_point"):
            return np.full((rows, count), half, dtype=np.int16)
        if packed:
            fields = _fields(module.integers("weight_zero_point"), bits, 0)[:rows]
            module.fits("weight_zero_point", fields.shape, (rows, count))
            return fields.astype(np.int16)
        stated = module.integers("weight_zero_point", dtypes=("I8",)).astype(np.int16)
        module.fits("weight_zero_point", stated.shape, (rows, count))
        return stated + np.int16(half)

    return _less_zeros((rows, columns), codes, zeros, scales, bits, groups)


def _check_compressed(settings: Mapping[str, Any]) -> None:
    for group in (settings.get("config_groups") or {}).values():
        if (group.get("weights") or {}).get("type", "int") != "int":
            raise UnsupportedError(
                "config.json: compressed-tensors with floats of 8 or 4 bits is not implemented"
            )
    if (settings.get("sparsity_config") or {}).get("format", "dense") != "dense":
        raise UnsupportedError("config.json: compressed-tensors with sparse weights is not implemented")


def _compressed_groups(module: _Module, columns: int, count: int) -> Array | None:
    """The group of each column, None if they are neighbours."""
    if not module.has("weight_g_idx"):
        if columns % count:
            raise ModelFileError(f"{module.name} has {count} groups of {columns} columns")
        return None
    groups = module.integers("weight_g_idx", rank=1).astype(np.intp)
    module.fits("weight_g_idx", groups.shape, (columns,))
    if groups.min() < 0 or groups.max() >= count:
        raise ModelFileError(f"tensor {module.name}.weight_g_idx names groups that have no scale")
    return groups


def _bitnet(module: _Module, settings: Mapping[str, Any]) -> _Grid | None:
    """weight u8[N / 4, K], rows n, n + N / 4, ... in rising pairs of bits, t + 1; weight_scale divides unless "autobitlinear"."""
    if settings.get("use_rms_norm"):
        raise UnsupportedError("config.json: bitnet with use_rms_norm is not implemented")
    if module.tensor("weight").dtype != "U8":
        module.used.discard(f"{module.name}.weight")
        if settings.get("quantization_mode") == "online" and module.name.endswith("_proj"):
            raise UnsupportedError(
                "config.json: bitnet weights that are rounded as they run (online) are not implemented"
            )
        return None
    packed = module.integers("weight", dtypes=("U8",))
    rows, columns = packed.shape[0] * 4, packed.shape[1]
    stated = module.scales("weight_scale", rows, turned=False)
    multiplies = settings.get("linear_class", "bitlinear") == "autobitlinear"

    def steps() -> Array:
        codes = (packed[None] >> np.array([0, 2, 4, 6], np.uint8)[:, None, None]) & np.uint8(3)
        return codes.reshape(rows, columns).astype(np.int16) - np.int16(1)

    def scales() -> Floats:
        return stated() if multiplies else (1 / stated()).astype(np.float32)

    if (packed & (packed >> np.uint8(1)) & np.uint8(0x55)).any():
        raise ModelFileError(f"tensor {module.name}.weight holds codes of 3, which no ternary weight has")
    return _Grid((rows, columns), steps, scales, -1, 1)


# by quant_method: the end of the name of the tensor that marks a module, and what reads it
READERS: Mapping[str, tuple[str, Callable[[_Module, Mapping[str, Any]], _Grid | None]]] = {
    "gptq": (".qweight", _gptq),
    "awq": (".qweight", _awq),
    "compressed-tensors": (".weight_scale", _compressed),
    "bitnet": (".weight", _bitnet),
}
