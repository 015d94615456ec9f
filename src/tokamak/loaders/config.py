"""GGUF keys to a configuration with Hugging Face names: strict, every key read or refused.

A key `{arch}.*` that is neither read nor known to be harmless may change the maths, so the model is refused and
the key named. Source of the keys: docs/gguf.md of ggml.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tokamak.errors import ModelFileError, UnsupportedError
from tokamak.loaders.names.rows import FamilyNames

__all__ = ["MAX_VOCAB_SIZE", "extents", "read_config", "resolve_vocab_size"]

MAX_VOCAB_SIZE = 2_000_000  # the largest vocabularies in use have a quarter million

# They say nothing about what one step computes: bookkeeping of converters, and how embeddings are pooled.
HARMLESS = frozenset(
    {
        "vocab_size",
        "tensor_data_layout",
        "rope.scaling.finetuned",
        "pooling_type",
        "attention.causal",
        "nextn_predict_layers",
        "classifier.pooling_type",
        "classifier.output_labels",
    }
)
LARGEST = 2**31 - 1
ROPE_NAMES = ("rope_theta", "rotary_dim", "rope_scaling", "rope_freq_factors")


class Keys:
    """The `{arch}.*` keys of a file; remembers which were asked for."""

    def __init__(self, metadata: Mapping[str, Any], architecture: str) -> None:
        self.prefix = f"{architecture}."
        self.values = {k[len(self.prefix) :]: v for k, v in metadata.items() if k.startswith(self.prefix)}
        self.read: set[str] = set()

    def integer(self, suffix: str, default: int | None = None, *, least: int = 1) -> int:
        """An integer of `least` .. 2^31 - 1; an array of equal ones (a value per layer) counts as one."""
        value = self._take(suffix)
        if isinstance(value, np.ndarray) and value.size and value.dtype.kind in "iu":
            if not (value == value[0]).all():
                raise UnsupportedError(
                    f"key {self.prefix}{suffix} differs between layers, which is not implemented"
                )
            value = int(value[0])
        if value is None:
            value = self._default(suffix, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= LARGEST:
            raise ModelFileError(
                f"key {self.prefix}{suffix} is {value!r:.80}, expected an integer from {least} up"
            )
        return value

    def per_layer(self, suffix: str) -> tuple[Any, ...]:
        """One number or boolean per layer, as Python values."""
        value = self._take(suffix)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iufb":
            raise ModelFileError(f"key {self.prefix}{suffix} is {value!r:.80}, expected an array")
        return tuple(value.tolist())

    def largest(self, suffix: str, default: int | None) -> tuple[int, tuple[int, ...]]:
        """The one count that layers with any share, and the count of every layer if the key is an array."""
        value = self.values.get(suffix)
        if not isinstance(value, np.ndarray):
            return self.integer(suffix, default, least=0), ()
        each = self.per_layer(suffix)
        found = set(each) - {0}
        if len(found) > 1 or not all(isinstance(n, int) and 0 <= n <= LARGEST for n in each):
            raise UnsupportedError(f"key {self.prefix}{suffix} differs between layers by more than 0")
        return found.pop() if found else 0, each

    def width(self, suffix: str, *, some: bool) -> int:
        """A count from 1 up; some: that layers may lack."""
        return self.largest(suffix, None)[0] if some else self.integer(suffix)

    def number(self, suffix: str, default: float | None = None) -> float:
        """A finite float."""
        value = self._take(suffix)
        if value is None:
            value = self._default(suffix, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ModelFileError(f"key {self.prefix}{suffix} is {value!r:.80}, expected a finite number")
        return float(value)

    def flag(self, suffix: str) -> bool:
        """A boolean that is there."""
        value = self._take(suffix)
        if not isinstance(value, bool):
            raise ModelFileError(f"key {self.prefix}{suffix} is {value!r:.80}, expected a boolean")
        return value

    def text(self, suffix: str, default: str) -> str:
        value = self._take(suffix)
        if value is None:
            return default
        if not isinstance(value, str):
            raise ModelFileError(f"key {self.prefix}{suffix} is {value!r:.80}, expected a string")
        return value

    def expect(self, suffix: str, allowed: tuple[Any, ...], why: str) -> None:
        """Refuse a key that is there with another value."""
        value = self._take(suffix)
        if value is not None and (isinstance(value, np.ndarray) or value not in allowed):
            raise UnsupportedError(f"key {self.prefix}{suffix} is {value!r:.80}: {why}")

    def pattern(self, suffix: str, period: int, layers: int) -> None:
        """Refuse a key that is there and makes other layers local than all but every `period`-th."""
        value = self._take(suffix)
        expected = [(i + 1) % period != 0 for i in range(layers)]
        told = value.tolist() if isinstance(value, np.ndarray) else value
        if told not in (None, period, expected) or isinstance(told, bool):
            raise UnsupportedError(
                f"key {self.prefix}{suffix} is {value!r:.80}, implemented: every layer but each {period}th is local"
            )

    def finish(self, ignored: tuple[str, ...] = ()) -> None:
        """Raises: UnsupportedError naming every key that was not read and is not known to be harmless."""
        unread = sorted(set(self.values) - self.read - HARMLESS - set(ignored))
        if unread:
            names = ", ".join(self.prefix + key for key in unread)
            raise UnsupportedError(
                f"metadata keys {names} may change what the model computes and are not implemented"
            )

    def _take(self, suffix: str) -> Any:
        self.read.add(suffix)
        return self.values.get(suffix)

    def _default(self, suffix: str, default: Any) -> Any:
        if default is None:
            raise ModelFileError(f"key {self.prefix}{suffix} is missing")
        return default


def read_config(
    metadata: Mapping[str, Any],
    architecture: str,
    family: FamilyNames,
    factors: Mapping[str, np.ndarray[Any, Any]],
) -> dict[str, Any]:
    """The configuration of a file, without what only its tensors tell (vocab_size, tie_word_embeddings).

    factors: the factor tensors that are there, by name: "rope_freqs", "rope_factors_long", "rope_factors_short".
    Raises: ModelFileError for a missing or mistyped key; UnsupportedError for one that is not implemented.
    """
    keys = Keys(metadata, architecture)
    keys.expect("attention.causal", (family.causal,), "not implemented for this architecture")
    layers = keys.integer("block_count")
    config: dict[str, Any] = {
        "hidden_size": keys.integer("embedding_length"),
        "intermediate_size": keys.width("feed_forward_length", some=family.hybrid),
        "num_hidden_layers": layers - keys.integer("nextn_predict_layers", 0, least=0),
        "max_position_embeddings": keys.integer("context_length"),
        family.norm_name: keys.number(family.norm_key),
    }
    config |= _heads(keys, family, config["hidden_size"]) if family.attends else {}
    config |= _own(keys, family)
    _check(config, keys.prefix, family)
    window = keys.integer("attention.sliding_window", 0, least=0)
    if window and not family.window:
        raise UnsupportedError(
            f"key {keys.prefix}attention.sliding_window is not implemented for this architecture"
        )
    if window:
        config["sliding_window"] = window
    if family.period:
        keys.pattern("attention.sliding_window_pattern", family.period, layers)
    if keys.values.get("rope.scaling.yarn_log_multiplier") and "kv_lora_rank" not in config:
        raise UnsupportedError(
            f"key {keys.prefix}rope.scaling.yarn_log_multiplier is not implemented for this architecture"
        )
    scaling = _rope_scaling(keys, factors, config["max_position_embeddings"])
    if scaling:
        config["rope_scaling"] = scaling
    if "rope_freqs" in factors:
        config["rope_freq_factors"] = factors["rope_freqs"]
    keys.finish(family.ignored)
    if not family.rope:
        config = {k: v for k, v in config.items() if k not in ROPE_NAMES}
    if any(row.tensor == "position_embd.weight" for row in family.model):
        config["num_positions"] = config["max_position_embeddings"]
    config |= family.derive(config) if family.derive else {}
    return {k: v for k, v in config.items() if v is not None}


def _heads(keys: Keys, family: FamilyNames, hidden: int) -> dict[str, Any]:
    """Counts and widths of heads, and where a hybrid has them."""
    heads = keys.integer("attention.head_count", least=int(not family.hybrid))
    if not family.hybrid:
        kv_heads = keys.integer("attention.head_count_kv", heads)
        each: tuple[int, ...] = ()
    else:
        kv_heads, each = keys.largest("attention.head_count_kv", heads)
    whole = hidden // heads if heads and hidden % heads == 0 else None
    head_dim = keys.integer("attention.key_length", whole)
    if "attention.value_length" not in family.some:
        keys.expect(
            "attention.value_length", (head_dim,), "values of another width than keys are not implemented"
        )
    config: dict[str, Any] = {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "rope_theta": keys.number("rope.freq_base", 10000.0),
        "rotary_dim": keys.integer("rope.dimension_count", head_dim),
    }
    if each:
        config["layer_types"] = tuple("full_attention" if n else "linear_attention" for n in each)
    return config


def _own(keys: Keys, family: FamilyNames) -> dict[str, Any]:
    """What only this family has."""
    if not family.counts:
        for suffix in ("expert_count", "expert_used_count"):
            keys.expect(suffix, (0,), "mixtures of experts are not implemented for this architecture")
    for suffix, allowed in family.fixed.items():
        if allowed is None:
            keys.read.add(suffix)
        else:
            keys.expect(suffix, allowed, "not implemented for this architecture")
    there = keys.values
    own: dict[str, Any] = dict(family.means)
    own |= {name: keys.number(s) for s, name in family.numbers.items() if s in there}
    own |= {name: keys.flag(s) for s, name in family.flags.items() if s in there}
    own |= {name: keys.per_layer(s) for s, name in family.lists.items() if s in there}
    own |= {name: keys.integer(s, least=0) for s, name in family.some.items() if s in there}
    own |= {name: keys.integer(s) for s, name in family.counts.items()}
    if own.get("num_experts_per_tok", 0) > own.get("num_experts", 0):
        raise ModelFileError(f"key {keys.prefix}expert_used_count is more than {keys.prefix}expert_count")
    return own


def _check(config: Mapping[str, Any], prefix: str, family: FamilyNames) -> None:
    if not 0 <= config[family.norm_name] <= 1:
        raise ModelFileError(f"key {prefix}{family.norm_key} is {config[family.norm_name]}, expected 0 .. 1")
    if not family.attends:
        return
    if config["num_attention_heads"] % max(1, config["num_key_value_heads"]):
        raise ModelFileError(
            f"key {prefix}attention.head_count is {config['num_attention_heads']}, no multiple of "
            f"{prefix}attention.head_count_kv, {config['num_key_value_heads']}"
        )
    if config["rotary_dim"] % 2 or config["rotary_dim"] > config["head_dim"]:
        raise ModelFileError(
            f"key {prefix}rope.dimension_count is {config['rotary_dim']}, expected an even number up to the head's "
            f"{config['head_dim']}"
        )
    if config["rope_theta"] <= 0:
        raise ModelFileError(f"key {prefix}rope.freq_base is {config['rope_theta']}, expected more than 0")


def _rope_scaling(
    keys: Keys, factors: Mapping[str, np.ndarray[Any, Any]], trained: int
) -> dict[str, Any] | None:
    kind = keys.text("rope.scaling.type", "linear")
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 1.0)) or 1.0
    original = keys.integer("rope.scaling.original_context_length", trained)
    attention = keys.number("rope.scaling.attn_factor", 1.0)
    yarn = _yarn(keys, factor, attention * keys.number("rope.scaling.yarn_attn_factor", 1.0))
    if factor < 0:
        raise ModelFileError(f"key {keys.prefix}rope.scaling.factor is {factor}, expected more than 0")
    long, short = factors.get("rope_factors_long"), factors.get("rope_factors_short")
    if (long is None) != (short is None):
        raise ModelFileError(
            "has one of the tensors rope_factors_long.weight and rope_factors_short.weight, not both"
        )
    if long is not None:
        scaling = {"rope_type": "longrope", "original_max_position_embeddings": original}
        if "rope.scaling.attn_factor" in keys.values:
            scaling["attention_factor"] = attention
        return scaling | {"long_factor": long, "short_factor": short}
    grows = keys.number("rope.scaling.dynamic_factor", 0.0)
    if grows:
        return {"rope_type": "dynamic", "factor": grows, "original_max_position_embeddings": original}
    if kind == "yarn":
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original} | yarn
    if kind == "longrope":
        raise ModelFileError(
            "rope scaling is longrope, but the tensors rope_factors_long.weight and _short are missing"
        )
    if kind not in ("none", "linear"):
        raise UnsupportedError(
            f"key {keys.prefix}rope.scaling.type is {kind!r:.80}, known: none, linear, yarn, longrope"
        )
    if attention != 1.0:
        raise UnsupportedError(
            f"key {keys.prefix}rope.scaling.attn_factor is {attention} without yarn or longrope"
        )
    return {"rope_type": "linear", "factor": factor} if kind == "linear" and factor != 1.0 else None


def _yarn(keys: Keys, factor: float, attention: float) -> dict[str, Any]:
    keys.expect("rope.scaling.yarn_ext_factor", (1.0,), "another extrapolation than 1 is not implemented")
    yarn: dict[str, Any] = {
        "beta_fast": keys.number("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": keys.number("rope.scaling.yarn_beta_slow", 1.0),
    }
    if "rope.scaling.yarn_truncate" in keys.values:
        yarn["truncate"] = keys.flag("rope.scaling.yarn_truncate")
    sharpening = keys.number("rope.scaling.yarn_log_multiplier", 0.0)
    if sharpening:  # of scores, by families that know it; sine and cosine then stay as they are
        yarn |= dict.fromkeys(("mscale", "mscale_all_dim"), 10.0 * sharpening)
    if attention != 1.0:
        # In GGUF it multiplies what yarn itself puts on sine and cosine; in Hugging Face configs it replaces it.
        yarn["attention_factor"] = attention * (0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0)
    return yarn


def resolve_vocab_size(num_tokens: int | None, num_rows: int) -> int:
    """How many token ids exist: as many as the vocabulary lists, else as the embedding has rows.

    num_rows may be larger (padded); it stays the width of the logits.
    Raises: ModelFileError for 0, for more than 2 million, and for tokens without an embedding.
    """
    size = num_rows if num_tokens is None else num_tokens
    if not 0 < size <= MAX_VOCAB_SIZE or num_rows > MAX_VOCAB_SIZE:
        raise ModelFileError(
            f"has {size} tokens and {num_rows} rows in token_embd.weight, expected 1 to {MAX_VOCAB_SIZE}"
        )
    if size > num_rows:
        raise ModelFileError(f"lists {size} tokens, but token_embd.weight has only {num_rows} rows")
    return size


def extents(config: Mapping[str, Any], num_rows: int, family: FamilyNames | None = None) -> dict[str, int]:
    """The names that `rows.Row.shape` uses: short ones, and every count of the configuration by its own name.

    num_rows: rows of the embedding.
    """
    head_dim = config.get("head_dim", 0)
    query = config.get("num_attention_heads", 0) * head_dim
    key = config.get("num_key_value_heads", 0) * head_dim
    inner = config.get("intermediate_size", 0)
    short = {
        "vocab": num_rows,
        "hidden": config["hidden_size"],
        "inter": inner,
        "gate_up": 2 * inner,
        "q": query,
        "kv": key,
        "qkv": query + 2 * key,
        "head": head_dim,
        "positions": config["max_position_embeddings"],
        "experts": config.get("num_experts", 0),
        "expert_inter": config.get("moe_intermediate_size", inner),
        "shared_inter": config.get("shared_expert_intermediate_size", inner),
        "types": config.get("type_vocab_size", 0),
        "labels": config.get("num_labels", 0),
        "zero": 0,
        "one": 1,
    }
    counts = {k: v for k, v in config.items() if isinstance(v, int)}
    return counts | short | (family.sizes(config) if family and family.sizes else {})
