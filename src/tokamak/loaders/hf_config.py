"""A Hugging Face config.json to the `{arch}.*` keys of GGUF, so that both kinds of model are read by one strict reader.

Strict too: a setting that is neither read here, nor known to be harmless, nor empty, is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from tokamak.errors import ModelFileError, UnsupportedError
from tokamak.loaders.names import FamilyNames
from tokamak.loaders.names.hf import HfFamily
from tokamak.types import Floats

__all__ = ["Keys", "keys_of"]

_T = TypeVar("_T")

# Settings that say nothing about what one step computes, or that the tensors say again.
HARMLESS = frozenset(
    {
        "_name_or_path",
        "n_ctx",
        "task_specific_params",
        "architectures",
        "auto_map",
        "model_type",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "use_cache",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "sep_token_id",
        "eod_token_id",
        "unk_token_id",
        "decoder_start_token_id",
        "initializer_range",
        "initializer_factor",
        "pretraining_tp",
        "attention_dropout",
        "attention_probs_dropout_prob",
        "hidden_dropout_prob",
        "gradient_checkpointing",
        "type_vocab_size",
        "hidden_dropout",
        "resid_pdrop",
        "resid_dropout",
        "embd_pdrop",
        "embd_dropout",
        "attn_pdrop",
        "dropout",
        "classifier_dropout",
        "attention_bias",
        "attention_in_bias",
        "attention_out_bias",
        "mlp_bias",
        "use_bias",
        "use_qkv_bias",
        "qkv_bias",
        "bias",
        "vocab_size",
        "tie_word_embeddings",
        "output_router_logits",
        "router_aux_loss_coef",
        "router_jitter_noise",
        "router_z_loss_coef",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
        "reorder_and_upcast_attn",
        "scale_attention_softmax_in_fp32",
        "attention_softmax_in_fp32",
        "id2label",
        "label2id",
        "return_dict",
        "output_attentions",
        "output_hidden_states",
        "max_window_layers",
        "use_sliding_window",
        "head_dim",
        "is_decoder",
        "is_encoder_decoder",
        "chunk_size_feed_forward",
        "problem_type",
        "layer_types",
        "cache_implementation",
        "hidden_activation",
        "model_max_length",
        "validate_runner_input",
        "inference_runner",
        "embedding_dropout",
        "unsloth_version",
        "initial_context_length",  # rope says it again
        "output_past",
    }
)
ROPE = (
    "original_max_position_embeddings",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "partial_rotary_factor",
    "rotary_pct",
    "rotary_emb_base",
)


@dataclass(slots=True)
class Keys:
    """metadata: GGUF keys; types: of each in the file. tensors: factor tensors that GGUF has and config.json holds as lists."""

    metadata: dict[str, Any] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, Floats] = field(default_factory=dict)

    def put(self, key: str, value: Any) -> None:
        """A whole number as uint32, others as float32, bool or string; an array as it is."""
        if isinstance(value, np.ndarray):
            self.metadata[key], self.types[key] = value, f"array[{value.dtype.name}]"
            return
        kind = "bool" if isinstance(value, bool) else "uint32" if isinstance(value, int) else "string"
        self.metadata[key], self.types[key] = value, "float32" if isinstance(value, float) else kind

    def put_all(self, arch: str, values: Mapping[str, Any]) -> None:
        """Keys of an architecture."""
        for suffix, value in values.items():
            self.put(f"{arch}.{suffix}", value)


class _Reader:
    """Values of a config.json; remembers which were asked for."""

    def __init__(self, config: Mapping[str, Any], hf: HfFamily) -> None:
        self.config, self.hf, self.read = config, hf, set[str]()

    def get(self, name: str, default: Any = None) -> Any:
        key = self.hf.config.get(name, name)
        self.read |= {key, name}
        value = self.config.get(key)
        value = self.config.get(name) if value is None else value
        return self.hf.defaults.get(name, default) if value is None else value

    def integer(self, name: str, default: int | None = None) -> int:
        value = self.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
            raise ModelFileError(f"config.json: {name} is {value!r:.80}, expected a whole number above 0")
        return value

    def count(self, name: str) -> int:
        """A whole number that may be 0."""
        return self.integer(name) if self.get(name) != 0 else 0

    def number(self, name: str, default: float | None = None) -> float:
        return _number(self.get(name, default), name)

    def finish(self) -> None:
        """Raises: UnsupportedError for settings that were not read and may matter."""
        left = {k: v for k, v in self.config.items() if k not in self.read | HARMLESS}
        unread = sorted(k for k, v in left.items() if v not in (None, False, 0, "", [], {}))
        if unread:
            raise UnsupportedError(
                f"config.json: {', '.join(unread)} may change what the model computes and is not implemented"
            )


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ModelFileError(f"config.json: {name} is {value!r:.80}, expected a finite number")
    return float(value)


def keys_of(config: Mapping[str, Any], hf: HfFamily, names: FamilyNames) -> Keys:
    """The GGUF keys of a configuration. Raises: ModelFileError, UnsupportedError naming the setting."""
    _needed(config, hf)
    config = {**config, **(_told(hf.derive, config) if hf.derive else {})}
    keys, reader, arch = Keys(), _Reader(config, hf), hf.architecture
    reader.read.update(hf.understood)
    _check_fixed(config, hf, reader)
    hidden, context = reader.integer("hidden_size"), reader.integer("max_position_embeddings")
    heads = reader.integer("num_attention_heads") if names.attends else 0
    head_dim = reader.integer("head_dim", hidden // heads or None) if heads else 0
    wide = 4 * hidden if hf.layers == "h" else None
    _check_scale(reader, head_dim)
    sizes = {
        "block_count": reader.integer("num_hidden_layers"),
        "context_length": context,
        "embedding_length": hidden,
        "feed_forward_length": reader.integer("intermediate_size", wide) if heads else 0,
        "attention.head_count": heads,
        names.norm_key: reader.number(names.norm_name, reader.get("layer_norm_eps")),
        "vocab_size": reader.integer("vocab_size"),
    }
    keys.put_all(arch, sizes)
    if heads:
        _heads(keys, reader, hf, heads, head_dim)
    tables = (names.numbers, reader.number), (names.counts, reader.integer), (names.some, reader.count)
    for table, read in tables:
        for suffix, name in table.items():
            if reader.get(name) is not None:
                keys.put(f"{arch}.{suffix}", read(name))
    for suffix, name in names.flags.items():
        if isinstance(value := reader.get(name), bool):
            keys.put(f"{arch}.{suffix}", value)
    for suffix, allowed in names.fixed.items():
        if allowed is not None and f"{arch}.{suffix}" not in keys.metadata:
            keys.put(f"{arch}.{suffix}", allowed[0])
        elif allowed is None and suffix.endswith("_epsilon"):  # the same epsilon twice
            keys.put(f"{arch}.{suffix}", keys.metadata[f"{arch}.{names.norm_key}"])
    if names.stacks and isinstance(start := config.get("decoder_start_token_id"), int):
        keys.put(f"{arch}.decoder_start_token_id", start)
    if not names.causal:
        keys.put(f"{arch}.attention.causal", value=False)
    _window(keys, reader, names, hf)
    if names.rope:
        _Rope(keys, reader, arch, head_dim, context).put()
    keys.put_all(arch, _told(hf.extra, config) if hf.extra else {})
    reader.read |= set(ROPE)
    reader.finish()
    return keys


def _check_scale(reader: _Reader, head_dim: int) -> None:
    if (scalar := reader.get("query_pre_attn_scalar", head_dim)) != head_dim:
        raise UnsupportedError(
            f"config.json: query_pre_attn_scalar is {scalar!r:.80}, implemented: the head's {head_dim}"
        )


def _heads(keys: Keys, reader: _Reader, hf: HfFamily, heads: int, head_dim: int) -> None:
    """Heads of keys, and how wide they are; where only some layers attend, a count for each."""
    arch, kv_heads = hf.architecture, reader.integer("num_key_value_heads", heads)
    if hf.attends:
        layers = _told(hf.attends, reader.config)
        if len(layers) != reader.integer("num_hidden_layers"):
            raise ModelFileError("config.json: layer_types does not name every layer")
        counts = np.where(layers, kv_heads, 0).astype(np.int32)
        keys.put(f"{arch}.attention.head_count_kv", counts)
    else:
        keys.put(f"{arch}.attention.head_count_kv", kv_heads)
    keys.put(f"{arch}.attention.key_length", head_dim)
    keys.put(f"{arch}.attention.value_length", head_dim)


def _told(read: Callable[[Mapping[str, Any]], _T], config: Mapping[str, Any]) -> _T:
    """What a family's own function makes of a configuration.  Raises: ModelFileError for missing and odd values."""
    try:
        return read(config)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise ModelFileError(
            f"config.json: a setting is missing or no number: {type(error).__name__} {error}"
        ) from None


def _needed(config: Mapping[str, Any], hf: HfFamily) -> None:
    """Settings that `derive` reads must be whole numbers."""
    named = {row for row in hf.understood if row.endswith(("_dim", "_rank"))} if hf.derive else set()
    for name in sorted(named):
        if name in config and not isinstance(config[name], int):
            raise ModelFileError(f"config.json: {name} is {config[name]!r:.80}, expected a whole number")


def _check_fixed(config: Mapping[str, Any], hf: HfFamily, reader: _Reader) -> None:
    act = reader.get("hidden_act")
    act = config.get("hidden_activation") or act
    if act is not None and act not in hf.acts:
        raise UnsupportedError(f"config.json: activation {act!r:.80}, this architecture has {hf.acts[0]!r}")
    for name, allowed in hf.fixed.items():
        value = config.get(name)
        if name in config and value is not None and value not in allowed:
            raise UnsupportedError(f"config.json: {name} is {value!r:.80}, implemented: {allowed[0]!r}")
        reader.read.add(name)
    reader.read.add("quantization_config")  # hf_quantised reads it


def _window(keys: Keys, reader: _Reader, names: FamilyNames, hf: HfFamily) -> None:
    window = reader.get("sliding_window")
    layers = reader.config.get("layer_types") or []
    if not window or reader.config.get("use_sliding_window") is False or set(layers) == {"full_attention"}:
        return
    if not names.window:
        raise UnsupportedError(
            f"config.json: sliding_window is {window!r:.80}, not implemented for this architecture"
        )
    kinds = {"s": "sliding_attention", "f": "full_attention"}
    expected = [kinds[hf.locals_[i % len(hf.locals_)]] for i in range(len(layers))]
    if layers != expected and "attention.sliding_window_pattern" not in names.lists:
        raise UnsupportedError(
            "config.json: layer_types mixes local and global layers in another order than implemented"
        )
    keys.put(f"{hf.architecture}.attention.sliding_window", reader.integer("sliding_window"))


class _Rope:
    """Rotary embedding: `rope_parameters` of transformers 5, `rope_theta` and `rope_scaling` of those before."""

    def __init__(self, keys: Keys, reader: _Reader, arch: str, head_dim: int, context: int) -> None:
        self.keys, self.arch, self.head_dim, self.context = keys, arch, head_dim, context
        self.sharpens = "kv_lora_rank" in reader.config  # scores over latents know mscale
        scaling = reader.get("rope_parameters") or reader.get("rope_scaling") or {}
        if not isinstance(scaling, dict):
            raise ModelFileError(f"config.json: rope_scaling is {scaling!r:.80}")
        if "full_attention" in scaling:
            local = scaling.get("sliding_attention", {})
            scaling = scaling["full_attention"]
            if local.get("rope_type", "default") != "default":
                raise UnsupportedError("config.json: scaled rope in local layers is not implemented")
            self.put_one("rope.freq_base_swa", _number(local.get("rope_theta", 10000.0), "rope_theta"))
        self.scaling = scaling
        self.theta = _number(scaling.get("rope_theta") or reader.get("rope_theta", 10000.0), "rope_theta")
        part = scaling.get("partial_rotary_factor") or reader.get("partial_rotary_factor", 1.0)
        self.rotary = int(round(head_dim * _number(part, "partial_rotary_factor"), 6))
        self.original = scaling.get("original_max_position_embeddings") or reader.get(
            "original_max_position_embeddings"
        )

    def put_one(self, suffix: str, value: Any) -> None:
        self.keys.put(f"{self.arch}.{suffix}", value)

    def factor(self) -> float:
        value = _number(self.scaling.get("factor", 1.0), "rope_scaling.factor")
        if value <= 0:
            raise ModelFileError(f"config.json: rope_scaling.factor is {value}, expected more than 0")
        return value

    def put(self) -> None:
        kind = self.scaling.get("rope_type") or self.scaling.get("type") or "default"
        self.put_one("rope.freq_base", self.theta)
        self.put_one("rope.dimension_count", self.head_dim if kind == "proportional" else self.rotary)
        kinds = {
            "default": lambda: None,
            "linear": self.linear,
            "dynamic": self.dynamic,
            "proportional": self.proportional,
            "llama3": self.llama3,
            "yarn": self.yarn,
            "longrope": self.longrope,
            "su": self.longrope,
        }
        if kind not in kinds:
            raise UnsupportedError(
                f"config.json: rope type {kind!r:.80} is not implemented; known: {', '.join(kinds)}"
            )
        kinds[kind]()

    def linear(self) -> None:
        self.put_one("rope.scaling.type", "linear")
        self.put_one("rope.scaling.factor", self.factor())

    def dynamic(self) -> None:
        """A key of our own: no kind of scaling in GGUF grows with the context, and within the trained one nothing changes."""
        self.put_one("rope.scaling.dynamic_factor", self.factor())

    def proportional(self) -> None:
        """Frequencies of the whole head of which the first part turns."""
        factors = np.full(self.head_dim // 2, 1e30, np.float32)
        factors[: self.rotary // 2] = self.factor()
        self.keys.tensors["rope_freqs.weight"] = factors

    def llama3(self) -> None:
        """The factors that divide the frequencies, as a tensor."""
        low, high = (
            _number(self.scaling.get(f"{n}_freq_factor"), f"{n}_freq_factor") for n in ("low", "high")
        )
        original = _number(self.original, "original_max_position_embeddings")
        frequencies = self.theta ** (-np.arange(0, self.rotary, 2, dtype=np.float64) / self.rotary)
        wavelengths = 2 * np.pi / frequencies
        smooth = (original / wavelengths - low) / (high - low)
        middle = 1 / ((1 - smooth) / self.factor() + smooth)
        factors = np.where(wavelengths < original / high, 1.0, middle)
        factors = np.where(wavelengths > original / low, self.factor(), factors)
        self.keys.tensors["rope_freqs.weight"] = factors.astype(np.float32)

    def yarn(self) -> None:
        original = self.original or self.context
        self.put_one("rope.scaling.type", "yarn")
        self.put_one("rope.scaling.factor", self.factor())
        self.put_one(
            "rope.scaling.original_context_length", int(_number(original, "original_max_position_embeddings"))
        )
        for name in ("beta_fast", "beta_slow"):
            if self.scaling.get(name) is not None:
                self.put_one(f"rope.scaling.yarn_{name}", _number(self.scaling[name], name))
        if self.scaling.get("truncate") is False:
            self.put_one(
                "rope.scaling.yarn_truncate", value=False
            )  # a key of our own: others always truncate
        sharper = [_number(self.scaling.get(n) or 0, n) for n in ("mscale", "mscale_all_dim")]
        if sharper[0] != sharper[1] and self.sharpens:
            raise UnsupportedError(
                "config.json: yarn with two mscales is not implemented for this architecture"
            )
        if sharper[0] and self.sharpens:
            self.put_one("rope.scaling.yarn_log_multiplier", 0.1 * sharper[0])
        value = self.scaling.get("attention_factor")
        if value is None and all(sharper) and not self.sharpens:
            value = self.grown(sharper[0]) / self.grown(sharper[1])
        if value is not None:
            value = _number(value, "attention_factor") / self.grown(1.0)  # yarn multiplies by that itself
            self.put_one("rope.scaling.attn_factor", value)

    def grown(self, weight: float) -> float:
        """What yarn multiplies sine and cosine by."""
        return max(0.1 * weight * math.log(self.factor()), 0.0) + 1.0

    def longrope(self) -> None:
        original = int(_number(self.original or self.context, "original_max_position_embeddings"))
        self.put_one("rope.scaling.original_context_length", original)
        for name in ("long", "short"):
            values = self.scaling.get(f"{name}_factor")
            if not isinstance(values, list) or len(values) != self.rotary // 2:
                raise ModelFileError(
                    f"config.json: rope_scaling.{name}_factor must be {self.rotary // 2} numbers"
                )
            self.keys.tensors[f"rope_factors_{name}.weight"] = np.array(
                [_number(v, f"{name}_factor") for v in values], dtype=np.float32
            )
        stretch = self.context / original
        attention = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
        if self.scaling.get("attention_factor") is not None:
            attention = _number(self.scaling["attention_factor"], "attention_factor")
        self.put_one("rope.scaling.attn_factor", attention)
