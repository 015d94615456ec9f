"""Image encoders beside a model: GGUF files of architecture "clip" (mmproj), or the vision part of a Hugging Face directory.

`hf_vision.py` presents a directory in the terms of GGUF, so this strict reader serves both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokamak.errors import ModelFileError, TokamakError, UnsupportedError
from tokamak.loaders.gguf import GgufModel, Tensor, TensorInfo, open_gguf
from tokamak.loaders.hf_vision import has_vision, open_vision_directory
from tokamak.loaders.names.vision import BLOCK, CLASS, REFUSED, TOWER, VISION, VisionNames
from tokamak.loaders.writer import TensorSource, write_gguf
from tokamak.quant import FORMATS
from tokamak.types import Array, Floats, Weight

__all__ = [
    "Preprocessing",
    "VisionCheckpoint",
    "has_vision",
    "is_image_encoder",
    "is_image_encoder_file",
    "open_image_encoder",
    "write_image_encoder",
]

ARCHITECTURE = "clip"
MOST = 1 << 16  # of every size
MOST_PATCHES = 1 << 14  # of an image
MOST_LAYERS = 1 << 10
MOST_TILES = 64  # of a picture
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP
# Keys that say nothing about what is computed, or that others say again.
IGNORED = frozenset(
    {
        "clip.has_text_encoder",
        "clip.has_vision_encoder",
        "clip.has_llava_projector",
        "clip.vision.projection_dim",
        "clip.vision.image_crop_resolution",
        "clip.vision.image_split_resolution",
        "clip.vision.mm_projector_type",
    }
)
FIXED: Mapping[str, tuple[Any, ...]] = {
    "clip.use_silu": (False,),
    "clip.has_audio_encoder": (False,),
    "clip.vision.mm_patch_merge_type": ("flat",),
    "clip.vision.image_aspect_ratio": ("pad", "square"),
}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From a picture to pixels. size: of the square that the tower sees. mean, std: of the channels, of values 0 .. 1.

    mode: "crop" (the shorter side becomes `shortest`, then the middle is cut out) or "squash" (both sides become `size`).
    resample: as numbered by Pillow. tiles: a large picture is cut into at least and at most so many squares, and seen as a
    whole besides; (1, 1): never.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mode: str
    shortest: int
    resample: int = 3
    tiles: tuple[int, int] = (1, 1)


@dataclass(frozen=True, slots=True)
class VisionCheckpoint:
    """An image encoder as the layers above see it.

    projector: of `models.PROJECTORS`. config: of `models.clip`. tower, weights: parameters of the tower and the projector.
    merge: patches of a side that become one row. class_rows: rows before the patches. token_id: the placeholder of an
    image's row, None: unknown; tokens: its names. before, after: text around an image.
    """

    path: str
    projector: str
    config: Mapping[str, Any]
    tower: Mapping[str, Weight]
    weights: Mapping[str, Weight]
    preprocessing: Preprocessing
    merge: int
    class_rows: int
    token_id: int | None
    tokens: tuple[str, ...]
    before: str
    after: str
    metadata: Mapping[str, Any]
    nbytes: int

    @property
    def side(self) -> int:
        """Patches of a side."""
        return self.preprocessing.size // int(self.config["patch_size"])

    @property
    def num_rows(self) -> int:
        """Rows of the decoder that one picture takes, or each of its tiles."""
        return (self.side // self.merge) ** 2


@dataclass(frozen=True, slots=True)
class Computed:
    """A `types.Weight` made of others: f32."""

    array: Floats
    name: str
    format: str = "f32"

    @property
    def shape(self) -> tuple[int, ...]:
        """As the array."""
        return self.array.shape

    def rows(self) -> Array:
        """uint8[rows, row_nbytes]."""
        return np.ascontiguousarray(self.array).view(np.uint8).reshape(-1, 4 * self.array.shape[-1])

    def release(self) -> None:
        """Nothing: it is no file."""


def is_image_encoder(metadata: Mapping[str, Any]) -> bool:
    """Whether a GGUF file is an image encoder for some model, and none itself."""
    return metadata.get("general.architecture") == ARCHITECTURE


def is_image_encoder_file(path: Path) -> bool:
    """Whether a path is that of such a file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            return False
    return is_image_encoder(open_gguf(path).metadata)


def open_image_encoder(path: str | Path) -> VisionCheckpoint:
    """An mmproj file, or a Hugging Face directory that has a vision part.

    Raises: ModelFileError for what is broken; UnsupportedError for other models, and projectors that are not implemented.
    """
    try:
        folder = Path(path)
        model = open_vision_directory(folder) if folder.is_dir() else open_gguf(folder)
        if not is_image_encoder(model.metadata):
            named = model.metadata.get("general.architecture")
            raise UnsupportedError(f"is a model of architecture {named!r:.80}, not an image encoder (mmproj)")
        return _Reader(model).checkpoint()
    except TokamakError as error:
        raise error.located(str(path)) from error.__cause__


def write_image_encoder(source: str | Path, out: str | Path) -> int:
    """Write the image encoder of a Hugging Face directory as an mmproj file; its bytes.  Raises: as `open_image_encoder`."""
    open_image_encoder(source)
    model = open_vision_directory(Path(source))
    sources = [TensorSource(name, info.format, info.shape, info.data) for name, info in model.tensors.items()]
    write_gguf(out, {**model.metadata, "general.type": "mmproj", "clip.has_vision_encoder": True}, sources)
    return Path(out).stat().st_size


class _Reader:
    """One file; remembers which keys and tensors were asked for."""

    def __init__(self, model: GgufModel) -> None:
        self.model, self.read, self.used = model, set[str](), set[str]()
        self.kind = self.projector()
        self.names: VisionNames = VISION[self.kind]

    def get(self, name: str, default: Any = None) -> Any:
        key = name if name.startswith(("clip.", "tokamak.")) else f"clip.vision.{name}"
        self.read.add(key)
        return self.model.metadata.get(key, default)

    def integer(self, name: str, default: int | None = None, *, most: int = MOST) -> int:
        value = self.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise ModelFileError(f"key clip.vision.{name} is {value!r:.80}, expected 1 .. {most}")
        return value

    def floats(self, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
        value = self.get(name, default)
        found = np.asarray(value, dtype=np.float64) if not isinstance(value, str | bytes) else np.zeros(0)
        if found.shape != (3,) or not np.isfinite(found).all():
            raise ModelFileError(f"key clip.vision.{name} is {value!r:.80}, expected three numbers")
        return tuple(float(x) for x in found)

    def projector(self) -> str:
        kind = self.get("clip.projector_type", self.get("projector_type", "mlp"))
        if kind in VISION:
            return str(kind)
        why = f": it needs {REFUSED[kind]}" if kind in REFUSED else ""
        raise UnsupportedError(f"projector {kind!r:.80} is not implemented{why}; known: {', '.join(VISION)}")

    def checkpoint(self) -> VisionCheckpoint:
        config, merge = self.config(), self.merge()
        mode = str(self.get("tokamak.vision.mode", self.names.mode))
        std = self.floats("image_std", STD)
        if min(std) <= 0:
            raise ModelFileError(f"key clip.vision.image_std is {std}, expected numbers above 0")
        size = self.integer("image_size")
        preprocessing = Preprocessing(
            size,
            self.floats("image_mean", MEAN),
            std,
            mode,
            self.integer("tokamak.vision.shortest", size),
            self.integer("tokamak.vision.resample", 3, most=5),
            self.tiles(),
        )
        side = size // config["patch_size"]
        class_rows = int(CLASS in self.model.tensors)
        if size % config["patch_size"] or side % merge or side * side > MOST_PATCHES:
            raise ModelFileError(
                f"images of {size} pixels do not divide into patches of {config['patch_size']}, {merge} of a side merged"
            )
        config |= {"num_positions": side * side + class_rows, "merged": merge * merge}
        tower = dict(self.tower(config))
        weights = {p: self.tensor(n) for n, p in self.ends(self.names.tensors)}
        config |= self.projection(weights)
        config |= {"pre_norm": "pre_layernorm.weight" in tower, "post_norm": "post_layernorm.weight" in tower}
        self.finish()
        token = self.get("tokamak.vision.token_id")
        names = self.names
        return VisionCheckpoint(
            path=self.model.path,
            projector=self.kind,
            config=config,
            tower=tower,
            weights=weights,
            preprocessing=preprocessing,
            merge=merge,
            class_rows=class_rows,
            token_id=token if isinstance(token, int) else None,
            tokens=names.tokens,
            before=names.before,
            after=names.after,
            metadata=self.model.metadata,
            nbytes=self.model.nbytes,
        )

    def config(self) -> dict[str, Any]:
        hidden, heads = self.integer("embedding_length"), self.integer("attention.head_count")
        if hidden % heads:
            raise ModelFileError(
                f"key clip.vision.attention.head_count is {heads}, {hidden} is no multiple of it"
            )
        eps = self.get("attention.layer_norm_epsilon", 1e-5)
        if not isinstance(eps, float) or not math.isfinite(eps) or eps <= 0:
            raise ModelFileError(f"key clip.vision.attention.layer_norm_epsilon is {eps!r:.80}")
        layers = self.integer("block_count", most=MOST_LAYERS)
        deepest = self.get("feature_layer")
        if deepest is not None:
            wanted = np.atleast_1d(np.asarray(deepest))
            if wanted.shape != (1,) or not 1 <= int(wanted[0]) <= layers:
                raise UnsupportedError(
                    f"key clip.vision.feature_layer is {deepest!r:.80}; one layer is implemented"
                )
            layers = int(wanted[0])
        return {
            "hidden_size": hidden,
            "intermediate_size": self.integer("feed_forward_length"),
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "head_dim": hidden // heads,
            "patch_size": self.integer("patch_size"),
            "layer_norm_eps": eps,
            "hidden_act": self.names.tower_act if self.get("clip.use_gelu", False) else "quick_gelu",
            "projector_act": self.names.act,
        }

    def tiles(self) -> tuple[int, int]:
        least, most = self.names.tiles
        least = self.integer("preproc_min_tiles", least, most=MOST_TILES)
        most = self.integer("preproc_max_tiles", most, most=MOST_TILES)
        if least > most:
            raise ModelFileError(
                f"key clip.vision.preproc_min_tiles is {least}, above preproc_max_tiles {most}"
            )
        return least, most

    def merge(self) -> int:
        if self.names.merge:
            return self.names.merge
        factor = self.get("projector.scale_factor", 2)
        if not isinstance(factor, int) or not 1 <= factor <= 16:
            raise ModelFileError(
                f"key clip.vision.projector.scale_factor is {factor!r:.80}, expected 1 .. 16"
            )
        return factor

    def projection(self, weights: Mapping[str, Weight]) -> dict[str, int]:
        """Widths that only the projector's matrices tell."""
        for name in ("linear_1.weight", "linear_2.weight"):
            if name not in weights or len(weights[name].shape) != 2:
                raise ModelFileError(f"has no matrix {name} of the projector")
        return {
            "projector_size": weights["linear_1.weight"].shape[0],
            "projected_size": weights["linear_2.weight"].shape[0],
        }

    def ends(self, table: Mapping[str, str], there: str = "", here: str = "") -> Iterator[tuple[str, str]]:
        """(tensor, path) of what is there."""
        for name, path in table.items():
            for end in (".weight", ".bias"):
                if f"{there}{name}{end}" in self.model.tensors:
                    yield f"{there}{name}{end}", f"{here}{path}{end}"

    def tensor(self, name: str) -> Tensor:
        info = self.model.tensors[name]
        self.used.add(name)
        return Tensor(info, info.shape)

    def tower(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Weight]]:
        for name, path in self.ends(TOWER):
            if path.startswith("post_layernorm") and not self.names.last:
                self.used.add(name)
            elif name == "v.patch_embd.weight":
                self.used.add(name)
                info = self.model.tensors[name]
                yield path, Tensor(info, (info.shape[0], math.prod(info.shape[1:])))
            elif name != "v.position_embd.weight":
                yield path, self.tensor(name)
        yield "embed_positions.weight", self.positions(config)
        for layer in range(config["num_hidden_layers"]):
            found = dict(self.ends(BLOCK, f"v.blk.{layer}.", f"layers.{layer}."))
            turned = self.turned(layer, config)
            for name, path in found.items():
                yield turned(path), self.tensor(name)

    def turned(self, layer: int, config: Mapping[str, Any]) -> Any:
        """Early converters called the first matrix of a feed-forward ffn_down; its shape tells."""
        info = self.model.tensors.get(f"v.blk.{layer}.ffn_down.weight")
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        if info is None or hidden == inner or info.shape != (inner, hidden):
            return lambda path: path
        other = {"up_proj": "down_proj", "down_proj": "up_proj"}
        return lambda path: ".".join(other.get(part, part) for part in path.split("."))

    def positions(self, config: Mapping[str, Any]) -> Computed:
        """What stands for positions; in the class token's row all that it is, since no pixels come for it."""
        info = self.model.tensors.get("v.position_embd.weight")
        if info is None:
            raise ModelFileError("has no tensor v.position_embd.weight")
        shape = (config["num_positions"], config["hidden_size"])
        if info.shape != shape:
            raise ModelFileError(f"tensor {info.name} has shape {list(info.shape)}, expected {list(shape)}")
        table = self.values(info).reshape(shape).copy()
        if CLASS in self.model.tensors:
            table[0] += self.flat(CLASS, shape[1])
            if "v.patch_embd.bias" in self.model.tensors:
                table[0] -= self.flat("v.patch_embd.bias", shape[1])
        return Computed(table, info.name)

    def flat(self, name: str, size: int) -> Floats:
        info = self.model.tensors[name]
        if math.prod(info.shape) != size:
            raise ModelFileError(f"tensor {name} has shape {list(info.shape)}, expected {size} elements")
        return self.values(info).reshape(size)

    def values(self, info: TensorInfo) -> Floats:
        self.used.add(info.name)
        if info.format not in ("f32", "f16", "bf16"):
            raise UnsupportedError(f"tensor {info.name} is {info.format}, expected f32, f16 or bf16")
        return FORMATS[info.format].decode(info.data().reshape(1, -1))

    def finish(self) -> None:
        """Raises: UnsupportedError for keys and tensors that were not read and may matter."""
        for key, allowed in FIXED.items():
            if (value := self.get(key, allowed[0])) not in allowed:
                raise UnsupportedError(f"key {key} is {value!r:.80}, implemented: {allowed[0]!r}")
        unread = [k for k in self.model.metadata if k.startswith("clip.") and k not in self.read | IGNORED]
        if unread:
            raise UnsupportedError(f"keys {', '.join(sorted(unread)[:4])} may change what is computed")
        beyond = range(int(self.model.metadata["clip.vision.block_count"]))
        layers = tuple(f"v.blk.{i}." for i in beyond)
        left = [n for n in self.model.tensors if n not in self.used and not n.startswith(layers)]
        if left:
            more = f" and {len(left) - 4} more" if len(left) > 4 else ""
            raise UnsupportedError(f"tensors {', '.join(left[:4])}{more} are not used by this image encoder")
