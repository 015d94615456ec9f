"""Which reader a path needs, told by its content: one place for all kinds of tokenizer files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokamak.errors import InvalidParams, TokenizerFileError, UnsupportedError
from tokamak.tokenizers.spec import TokenizerSpec

OBJECT = re.compile(rb"\s*\{")
# Names looked for in a directory, in this order.
NAMES = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "vocab.txt", "spiece.model")


def file_of(path: Path) -> Path:
    """The tokenizer file of a directory; a file is its own. Raises: InvalidParams if the directory has none."""
    if not path.is_dir():
        return path
    found = next((path / name for name in NAMES if (path / name).is_file()), None)
    found = found or next(iter(sorted(path.glob("*.gguf"))), None)
    if found is None:
        raise InvalidParams(f"the directory has none of {', '.join(NAMES)} and no .gguf file")
    return found


def open_spec(
    path: Path, pattern: str | None = None, special_tokens: Mapping[str, int] | None = None
) -> TokenizerSpec:
    """Read a tokenizer file. Raises: as `Tokenizer.load`."""
    try:
        with path.open("rb") as f:
            head = f.read(4)
            if head == b"GGUF":
                return _gguf(path)
            f.seek(0)
            data = f.read()
    except OSError as e:
        raise InvalidParams(f"cannot be read: {e.strerror}") from e
    return _by_content(path, data, pattern, special_tokens)


def _gguf(path: Path) -> TokenizerSpec:
    from tokamak import _native
    from tokamak.tokenizers.files.gguf import spec_from_metadata

    metadata = _native.GgufFile(str(path)).metadata
    return spec_from_metadata(metadata, str(metadata.get("general.architecture", "")))


def _by_content(
    path: Path, data: bytes, pattern: str | None, special_tokens: Mapping[str, int] | None
) -> TokenizerSpec:
    from tokamak.tokenizers.files import hf_json, sentencepiece, tiktoken, vocabularies

    if OBJECT.match(data):
        from tokamak import _native
        from tokamak.tokenizers.files.saving import SPEC_KEY, spec_from_parsed

        columns = _native.scan_tokenizer_json(data)
        parsed = read_json(data if columns is None else columns.rest, hf_json.rust_float)
        if isinstance(parsed.get("model"), dict):
            return hf_json.spec_from_data(parsed, config_beside(path), columns)
        if SPEC_KEY in parsed:
            return spec_from_parsed(parsed)
        if isinstance(parsed.get("config"), dict) and isinstance(parsed.get("vocab"), list):
            return tiktoken.spec_from_tekken(parsed)
        return vocabularies.spec_from_vocab_and_merges(parsed, _merges_beside(path), config_beside(path))
    if tiktoken.looks_like_tiktoken(data):
        return tiktoken.spec_from_tiktoken(data, pattern, special_tokens)
    if sentencepiece.looks_like_model(data):
        return sentencepiece.spec_from_model(data, config_beside(path))
    if vocabularies.looks_like_rwkv(data):
        return vocabularies.spec_from_rwkv(data)
    if vocabularies.looks_like_wordpiece(data):
        return vocabularies.spec_from_wordpiece(data, config_beside(path))
    raise UnsupportedError("not a kind of tokenizer file that is known here")


def read_json(data: bytes | str, parse_float: Callable[[str], float] | None = None) -> dict[str, Any]:
    """A JSON object. Raises: TokenizerFileError if it is none."""
    try:
        parsed = json.loads(data, parse_float=parse_float)
    except (ValueError, RecursionError) as e:
        raise TokenizerFileError(f"not valid JSON: {e}") from e
    if not isinstance(parsed, dict):
        raise TokenizerFileError("not a JSON object")
    return parsed


def _merges_beside(path: Path) -> bytes:
    file = path.parent / "merges.txt"
    if not file.is_file():
        raise TokenizerFileError("a vocab.json needs the merges.txt beside it, which is not there")
    return file.read_bytes()


def config_beside(path: Path) -> dict[str, Any]:
    """tokenizer_config.json next to a file, with special_tokens_map.json and chat_template.jinja, as far as there."""
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        file = path.parent / name
        if file.is_file():
            try:
                config |= json.loads(file.read_bytes())
            except (ValueError, RecursionError, TypeError) as e:
                raise TokenizerFileError(f"{file}: not valid JSON: {e}") from e
    template = path.parent / "chat_template.jinja"
    if template.is_file():
        config["chat_template"] = template.read_text("utf-8")
    return config
