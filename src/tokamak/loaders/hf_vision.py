"""The two halves of a Hugging Face directory that has an image encoder: the model that writes, and the encoder in the terms of GGUF."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tokamak.errors import ModelFileError, UnsupportedError
from tokamak.loaders.gguf import GgufModel, TensorInfo
from tokamak.loaders.names.vision import CLASS, HF_VISION, TEXT_DEFAULTS, HfVisionNames
from tokamak.loaders.safetensors import StoredTensor, open_tensors, read_bytes, read_object
from tokamak.types import Array

__all__ = ["has_vision", "open_vision_directory", "text_part"]

KEPT = ("f32", "f16", "bf16")
TEXT = (("model.language_model.", "model."), ("language_model.", ""), ("lm_head.", "lm_head."))
TOWERS = (
    "model.vision_tower.vision_model.",
    "model.vision_tower.",
    "vision_tower.vision_model.",
    "vision_tower.",
)
PROJECTIONS = ("model.multi_modal_projector.", "multi_modal_projector.")
# Settings of the vision half; those of a whole model that say nothing here are not looked at.
UNDERSTOOD = {
    *(
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "image_size",
        "patch_size",
    ),
    *("layer_norm_eps", "hidden_act", "model_type", "num_channels", "projection_dim", "vocab_size"),
    *(
        "attention_dropout",
        "initializer_range",
        "initializer_factor",
        "dtype",
        "torch_dtype",
        "architectures",
    ),
    *("hidden_dropout_prob", "projection_dropout", "dropout", "drop_path_rate", "_name_or_path"),
    *(
        "vision_use_head",
        "transformers_version",
        "norm_type",
        "use_mean_pooling",
        "use_absolute_position_embeddings",
    ),
    *("layer_scale_init_value", "attention_bias", "use_mask_token", "use_qk_norm"),
}
FIXED: Mapping[str, tuple[Any, ...]] = {
    "num_channels": (3,),
    "norm_type": ("layer_norm",),
    "use_qk_norm": (False,),
    "use_absolute_position_embeddings": (True,),
    "use_mean_pooling": (True,),
}
ACTS = {"quick_gelu": False, "gelu_pytorch_tanh": True, "gelu": True}  # whether clip.use_gelu says it


def has_vision(folder: Path) -> bool:
    """Whether a directory is that of a model with an image encoder that is read."""
    if not (folder / "config.json").is_file():
        return False
    config = read_object(read_bytes(folder / "config.json"), folder / "config.json")
    return config.get("model_type") in HF_VISION and isinstance(config.get("vision_config"), dict)


def text_part(
    config: dict[str, Any], files: dict[str, StoredTensor]
) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    """Configuration and tensors of the model that writes; of others as they are."""
    names = HF_VISION.get(str(config.get("model_type")))
    if names is None:
        return config, files
    given = config.get("text_config")
    if not isinstance(given, dict):
        raise ModelFileError("config.json: text_config is missing")
    kind = given.get("model_type", names.text)
    text = {"model_type": kind, **(TEXT_DEFAULTS.get(kind, {})), **given}
    if "quantization_config" in config:
        text["quantization_config"] = config["quantization_config"]
    found = {}
    for name, tensor in files.items():
        for prefix, ours in TEXT:
            if name.startswith(prefix):
                found[ours + name.removeprefix(prefix)] = tensor
                break
    text["tie_word_embeddings"] = "lm_head.weight" not in found
    return text, found


class _Directory:
    """What `TensorInfo.part` asks for."""

    def __init__(self, metadata: Mapping[str, Any], made: Mapping[str, StoredTensor]) -> None:
        self.made, self.nbytes = made, sum(t.nbytes for t in made.values())
        self.value_types = dict.fromkeys(metadata, "")

    def data(self, name: str) -> Array:
        """u8[nbytes]: a view of the file, or f32 made of another type."""
        tensor = self.made[name]
        return tensor.data() if tensor.format in KEPT else tensor.values().reshape(-1).view(np.uint8)

    def release(self, name: str) -> None:
        """Give mapped pages back."""
        self.made[name].release()


def open_vision_directory(folder: Path) -> GgufModel:
    """The image encoder of a directory as metadata and tensors of GGUF.  Raises: ModelFileError, UnsupportedError."""
    config = read_object(read_bytes(folder / "config.json"), folder / "config.json")
    names = HF_VISION.get(str(config.get("model_type")))
    vision = config.get("vision_config")
    if names is None or not isinstance(vision, dict):
        raise UnsupportedError("has no image encoder that is read; known: " + ", ".join(HF_VISION))
    metadata = _keys(config, vision, names)
    metadata |= _preprocessing(folder, int(metadata["clip.vision.image_size"]))
    made = _tensors(open_tensors(folder), names)
    part = _Directory(metadata, made)
    infos = {}
    for name, tensor in made.items():
        kept, shape = tensor.format in KEPT, tensor.shape
        if name in ("v.position_embd.weight", CLASS) and len(shape) == 3:
            shape = shape[1:] if name != CLASS else shape[2:]
        nbytes = tensor.nbytes if kept else 4 * int(np.prod(shape))
        infos[name] = TensorInfo(name, tensor.format if kept else "f32", shape, 0, nbytes, part)
    return GgufModel(str(folder), (), metadata, infos, part)


def _keys(config: Mapping[str, Any], given: Mapping[str, Any], names: HfVisionNames) -> dict[str, Any]:
    """GGUF's keys.  Raises: UnsupportedError naming the setting that is not implemented."""
    kind = given.get("model_type", next(iter(names.towers)))
    if kind not in names.towers:
        raise UnsupportedError(f"config.json: an image encoder of type {kind!r:.80} is not implemented")
    vision = {**names.towers[kind], **given}
    _check(config, vision, own=names.towers[kind])
    layers = vision.get("num_hidden_layers")
    sizes = {
        "embedding_length": vision.get("hidden_size"),
        "feed_forward_length": vision.get("intermediate_size"),
        "attention.head_count": vision.get("num_attention_heads"),
        "attention.layer_norm_epsilon": vision.get("layer_norm_eps"),
        "image_size": _one(vision.get("image_size")),
        "patch_size": _one(vision.get("patch_size")),
        "block_count": layers,
    }
    metadata: dict[str, Any] = {"general.architecture": "clip", "clip.projector_type": names.projector}
    metadata |= {f"clip.vision.{key}": value for key, value in sizes.items()}
    metadata["clip.use_gelu"] = ACTS[vision["hidden_act"]]
    feature = config.get("vision_feature_layer", names.feature)
    if not isinstance(feature, int) or not isinstance(layers, int) or feature == 0:
        raise UnsupportedError(
            f"config.json: vision_feature_layer is {feature!r:.80}; one layer is implemented"
        )
    metadata["clip.vision.feature_layer"] = [feature if feature > 0 else layers + 1 + feature]
    if "downsample_ratio" in config:
        metadata["clip.vision.projector.scale_factor"] = _factor(config["downsample_ratio"])
    token = config.get("image_token_id", config.get("image_token_index"))
    if isinstance(token, int):
        metadata["tokamak.vision.token_id"] = token
    return metadata


def _check(config: Mapping[str, Any], vision: Mapping[str, Any], *, own: Mapping[str, Any]) -> None:
    """Raises: UnsupportedError for settings that are not as implemented. own: those of the type of encoder."""
    understood = {*UNDERSTOOD, "select"}
    left = (k for k, v in vision.items() if k not in understood and v not in (None, False, 0, "", [], {}))
    if unread := sorted(left):
        raise UnsupportedError(
            f"config.json: vision_config has {', '.join(unread)}, which may change what is computed"
        )
    act, others = vision.get("hidden_act"), {k: vision.get(k, allowed[0]) for k, allowed in FIXED.items()}
    wrong = {f"vision_config.{k}": value for k, value in others.items() if value not in FIXED[k]}
    if act not in ACTS or (act == "gelu") != (own["hidden_act"] == "gelu"):
        wrong["vision_config.hidden_act"] = act
    if (hidden := config.get("projector_hidden_act", "gelu")) != "gelu":
        wrong["projector_hidden_act"] = hidden
    if (select := config.get("vision_feature_select_strategy", "default")) != own.get("select", "default"):
        wrong["vision_feature_select_strategy"] = select
    for name, value in wrong.items():
        raise UnsupportedError(f"config.json: {name} is {value!r:.80}, which is not implemented")


def _one(size: Any) -> Any:
    """A square's side, which some write twice."""
    return size[0] if isinstance(size, list) and len(set(size)) == 1 else size


def _factor(ratio: Any) -> int:
    if not isinstance(ratio, int | float) or not 0 < ratio <= 1 or abs(1 / ratio - round(1 / ratio)) > 1e-6:
        raise ModelFileError(
            f"config.json: downsample_ratio is {ratio!r:.80}, expected 1 over a whole number"
        )
    return round(1 / ratio)


def _preprocessing(folder: Path, size: int) -> dict[str, Any]:
    """How pictures become pixels, as the directory's processor has it.  Raises: UnsupportedError for another way."""
    found: dict[str, Any] = {}
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            whole = read_object(read_bytes(folder / name), folder / name)
            nested = whole.get("image_processor", whole if name.startswith("pre") else {})
            found = {**found, **(nested if isinstance(nested, dict) else {})}
    if not found:
        return {}
    for name in ("do_resize", "do_rescale", "do_normalize"):
        if found.get(name, True) is not True:
            raise UnsupportedError(
                f"preprocessor_config.json: {name} is {found[name]!r:.80}, implemented: True"
            )
    if abs(found.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9 or found.get("do_pad"):
        raise UnsupportedError("preprocessor_config.json: rescale_factor or do_pad is not as implemented")
    wanted = found.get("size", size)
    sides = wanted if isinstance(wanted, dict) else {"shortest_edge": wanted}
    crop = found.get("crop_size", {"height": size, "width": size})
    cropped = set(crop.values()) if isinstance(crop, dict) else {crop}
    keys = {f"clip.vision.{k}": found[k] for k in ("image_mean", "image_std") if k in found}
    keys["tokamak.vision.resample"] = found.get("resample", 3)
    for name, key in (("min_patches", "min"), ("max_patches", "max")):
        if name in found:
            keys[f"clip.vision.preproc_{key}_tiles"] = found[name]
    if "shortest_edge" in sides and found.get("do_center_crop", True) and cropped == {size}:
        keys |= {"tokamak.vision.mode": "crop", "tokamak.vision.shortest": sides["shortest_edge"]}
    elif {sides.get("height"), sides.get("width")} == {size} and not found.get("do_center_crop"):
        keys["tokamak.vision.mode"] = "squash"
    else:
        raise UnsupportedError(
            f"preprocessor_config.json: pictures of {sides!r:.80} for an encoder of {size} pixels"
        )
    return keys


def _tensors(files: Mapping[str, StoredTensor], names: HfVisionNames) -> dict[str, StoredTensor]:
    """GGUF's names of what belongs to the encoder."""
    made: dict[str, StoredTensor] = {}
    for name, tensor in files.items():
        tower = next((name.removeprefix(p) for p in TOWERS if name.startswith(p)), None)
        projection = next((name.removeprefix(p) for p in PROJECTIONS if name.startswith(p)), None)
        if tower is not None and tower.startswith(names.unread):
            continue
        if tower is not None:
            made[_of_tower(tower, names)] = tensor
        elif projection is not None:
            stem, _, end = projection.rpartition(".")
            made[f"{names.projection.get(stem, stem)}.{end}"] = tensor
    return made


def _of_tower(name: str, names: HfVisionNames) -> str:
    if not name.startswith(names.layers):
        return names.tower.get(name, name)
    number, _, rest = name.removeprefix(names.layers).partition(".")
    stem, _, end = rest.rpartition(".")
    if rest in names.block:  # a vector without .weight
        return f"v.blk.{number}.{names.block[rest]}.weight"
    return f"v.blk.{number}.{names.block.get(stem, stem)}.{end}"
