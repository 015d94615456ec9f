"""Tokenizers written to files: as tokenizer.json where that says everything, else field by field in a form of our own."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokamak.errors import InvalidParams, TokenizerFileError, UnsupportedError
from tokamak.tokenizers.shaping import template_of
from tokamak.tokenizers.spec import AddedToken, Slot, Step, Strings, TokenizerSpec

SPEC_KEY = "tokamak_tokenizer"  # of the form of our own; its value is the version
VERSION = 1
_CLASSES: dict[str, type] = {"AddedToken": AddedToken, "Slot": Slot}


def written(spec: TokenizerSpec, form: str) -> str:
    """The file's text. form: as in `Tokenizer.save`."""
    if form not in ("auto", "tokenizer.json", "spec"):
        raise InvalidParams(f"form = {form!r}: auto, tokenizer.json or spec")
    if form != "spec":
        from tokamak.tokenizers.files.hf_json import spec_from_data
        from tokamak.tokenizers.files.hf_write import data_from_spec

        try:
            data = data_from_spec(spec)
            lost = difference(spec, spec_from_data(data))
            why = UnsupportedError(f"tokenizer.json cannot say this tokenizer: {lost} would be lost")
        except UnsupportedError as e:
            lost, why = "", e
        if lost is None:
            return json.dumps(data, ensure_ascii=False)
        if form == "tokenizer.json":
            raise why
    return json.dumps({SPEC_KEY: VERSION, **{f.name: pack(getattr(spec, f.name)) for f in fields(spec)}})


def difference(first: TokenizerSpec, second: TokenizerSpec) -> str | None:
    """The first field in which two specs differ in what they do; names of roles, ids for generation and chat do not count."""
    from tokamak.tokenizers.files.hf_write import parts_of

    ignored = {"notes", "pre", "chat_template", "chat_templates", "eog_ids", "roles", "raw_added"}
    ignored |= {"bos_id", "eos_id", "pad_id", "sep_id", "mask_id"}
    for f in fields(first):
        a, b = getattr(first, f.name), getattr(second, f.name)
        if f.name in ("normalizers", "pre_tokenizers"):
            same = parts_of(first)[f.name] == parts_of(second)[f.name]
        elif f.name in ("single", "pair"):
            count = 1 if f.name == "single" else 2
            same = template_of(first, count) == template_of(second, count)
        elif f.name == "trim_keeps_prefix":
            same = a == b or not first.trim_offsets
        elif isinstance(a, Strings) and isinstance(b, Strings):
            same = list(a) == list(b)
        elif isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
            same = np.array_equal(a, b)
        else:
            same = a == b
        if not same and f.name not in ignored:
            return f.name
    return None


def _written_array(array: NDArray[Any]) -> Any:
    raw = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {"array": raw, "dtype": array.dtype.str}


def pack(value: Any, keep: Callable[[NDArray[Any]], Any] = _written_array) -> Any:
    """A field of a spec as JSON can say it. keep: what stands for an array; by default its bytes do."""
    if isinstance(value, Strings):
        return {"strings": [keep(np.asarray(value.blob)), keep(np.asarray(value.offsets))]}
    if isinstance(value, np.ndarray):
        return keep(value)
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, Step):
        return {"step": value.type, "options": {k: pack(v, keep) for k, v in value.options}}
    if isinstance(value, (AddedToken, Slot)):
        return {type(value).__name__: [getattr(value, f.name) for f in fields(value)]}
    if isinstance(value, frozenset):
        return {"set": sorted(value)}
    if isinstance(value, Mapping):
        return {"map": dict(value)}
    return [pack(v, keep) for v in value] if isinstance(value, tuple) else value


def unpack(value: Any, kept: Callable[[str, str], NDArray[Any]] | None = None) -> Any:
    """The field again. kept: the array that `keep` named {"kept": name, "dtype": ...}."""
    if isinstance(value, list):
        return tuple(unpack(v, kept) for v in value)
    if not isinstance(value, dict):
        return value
    (key, first), *rest = value.items()
    if key == "strings":
        return Strings(*(unpack(part, kept) for part in first))
    if key == "array":
        return np.frombuffer(base64.b64decode(first, validate=True), np.dtype(rest[0][1]))
    if key == "kept" and kept is not None:
        return kept(first, rest[0][1])
    if key == "bytes":
        return base64.b64decode(first, validate=True)
    if key == "step":
        return Step.of(first, **{k: unpack(v, kept) for k, v in rest[0][1].items()})
    if key in _CLASSES:
        return _CLASSES[key](*first)
    return frozenset(first) if key == "set" else dict(first)


def spec_from_parsed(parsed: Mapping[str, Any]) -> TokenizerSpec:
    """Read what `written` wrote in our own form. Raises: TokenizerFileError for another version or a broken field."""
    if parsed[SPEC_KEY] != VERSION:
        raise TokenizerFileError(f"{SPEC_KEY} is {parsed[SPEC_KEY]!r}, this program reads {VERSION}")
    names = {f.name for f in fields(TokenizerSpec)}
    strange = sorted(set(parsed) - names - {SPEC_KEY})
    if strange:
        raise TokenizerFileError(f"a field {strange[0]!r} that is not known here")
    try:
        return spec_of({name: unpack(value) for name, value in parsed.items() if name != SPEC_KEY})
    except (KeyError, TypeError, ValueError, binascii.Error, IndexError) as e:
        if isinstance(e, TokenizerFileError):
            raise
        raise TokenizerFileError(f"a field has an unexpected form: {type(e).__name__}: {e}") from e


def spec_of(given: Mapping[str, Any]) -> TokenizerSpec:
    """A spec of fields that were read. Raises: TokenizerFileError, KeyError or TypeError if one is not what it has to be."""
    kinds: dict[str, type | tuple[type, ...]] = {"tokens": Strings, "roles": np.ndarray, "kind": str}
    kinds |= {"scores": (np.ndarray, type(None)), "merges": (Strings, type(None)), "eog_ids": frozenset}
    kinds |= dict.fromkeys(("normalizers", "pre_tokenizers", "decoders", "added", "prefix", "suffix"), tuple)
    for name, kind in kinds.items():
        if name in given and not isinstance(given[name], kind):
            raise TokenizerFileError(f"the field {name} has an unexpected form")
    for name in ("tokens", "merges"):
        strings = given.get(name)
        arrays = () if strings is None else ((strings.blob, np.uint8), (strings.offsets, np.int64))
        if not all(isinstance(array, np.ndarray) and array.dtype == kind for array, kind in arrays):
            raise TokenizerFileError(f"the arrays of {name} have an unexpected form")
    if given["roles"].dtype != np.uint8:
        raise TokenizerFileError("the field roles has an unexpected form")
    return TokenizerSpec(**given)
