"""The encodings that tiktoken has names for: where their files are, what else belongs to them, which model uses which."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tokamak.errors import InvalidParams, TokenizerFileError, UnavailableError
from tokamak.settings import Settings
from tokamak.tokenizers.files.tiktoken import PUBLISHED

SOURCE = "https://openaipublic.blob.core.windows.net/encodings/"
FIM = {"<|fim_prefix|>": 50281, "<|fim_middle|>": 50282, "<|fim_suffix|>": 50283}
_HARMONY_NAMES = {
    "<|startoftext|>": 199998,
    "<|endoftext|>": 199999,
    "<|return|>": 200002,
    "<|constrain|>": 200003,
    "<|channel|>": 200005,
    "<|start|>": 200006,
    "<|end|>": 200007,
    "<|message|>": 200008,
    "<|call|>": 200012,
    "<|endofprompt|>": 200018,
}
HARMONY = _HARMONY_NAMES | {
    f"<|reserved_{i}|>": i
    for i in range(200000, 201088)
    if i not in _HARMONY_NAMES.values() or i == 200018  # both names stand for it
}


@dataclass(frozen=True, slots=True)
class Named:
    """A file of ranks and the special tokens beside those that belong to the file."""

    file: str  # name of the published vocabulary
    more_special: Mapping[str, int] = field(default_factory=dict)
    explicit_n_vocab: int | None = None


NAMES = {
    "gpt2": Named("r50k_base", explicit_n_vocab=50257),
    "r50k_base": Named("r50k_base", explicit_n_vocab=50257),
    "p50k_base": Named("p50k_base", explicit_n_vocab=50281),
    "p50k_edit": Named("p50k_base", FIM),
    "cl100k_base": Named("cl100k_base"),
    "o200k_base": Named("o200k_base"),
    "o200k_harmony": Named("o200k_base", HARMONY),
}
MODELS = {
    **dict.fromkeys(("o1", "o3", "o4-mini", "gpt-5", "gpt-4.1", "gpt-4o"), "o200k_base"),
    **dict.fromkeys(
        ("gpt-4", "gpt-3.5-turbo", "gpt-3.5", "gpt-35-turbo", "davinci-002", "babbage-002"), "cl100k_base"
    ),
    **dict.fromkeys(
        ("text-embedding-ada-002", "text-embedding-3-small", "text-embedding-3-large"), "cl100k_base"
    ),
    **dict.fromkeys(("text-davinci-003", "text-davinci-002", "davinci-codex", "cushman-codex"), "p50k_base"),
    **dict.fromkeys((f"code-davinci-00{i}" for i in (1, 2)), "p50k_base"),
    **dict.fromkeys((f"code-cushman-00{i}" for i in (1, 2)), "p50k_base"),
    **dict.fromkeys((f"text-{n}-001" for n in ("davinci", "curie", "babbage", "ada")), "r50k_base"),
    **dict.fromkeys(("davinci", "curie", "babbage", "ada"), "r50k_base"),
    **dict.fromkeys(("text-davinci-edit-001", "code-davinci-edit-001"), "p50k_edit"),
    **dict.fromkeys(
        (f"text-similarity-{n}-001" for n in ("davinci", "curie", "babbage", "ada")), "r50k_base"
    ),
    **dict.fromkeys(
        (f"text-search-{n}-doc-001" for n in ("davinci", "curie", "babbage", "ada")), "r50k_base"
    ),
    **dict.fromkeys((f"code-search-{n}-code-001" for n in ("babbage", "ada")), "r50k_base"),
    **dict.fromkeys(("gpt2", "gpt-2"), "gpt2"),
}
MODEL_STARTS = {
    **dict.fromkeys(("o1-", "o3-", "o4-mini-", "gpt-5", "gpt-4.5-", "gpt-4.1-", "chatgpt-4o-"), "o200k_base"),
    **dict.fromkeys(("gpt-4o-", "ft:gpt-4o"), "o200k_base"),
    **dict.fromkeys(("gpt-4-", "gpt-3.5-turbo-", "gpt-35-turbo-", "ft:gpt-4"), "cl100k_base"),
    **dict.fromkeys(("ft:gpt-3.5-turbo", "ft:davinci-002", "ft:babbage-002"), "cl100k_base"),
    "gpt-oss-": "o200k_harmony",
}


def file_of(name: str, settings: Settings | None = None) -> bytes:
    """The .tiktoken file of a published vocabulary, from a cache (ours, or tiktoken's own) or, unless offline, the source.

    Raises: UnavailableError with the places and the address if it is nowhere, TokenizerFileError if what is there
    has another hash than the published file.
    """
    settings = settings or Settings.load()
    digest = next(d for d, published in PUBLISHED.items() if published.name == name)
    own = settings.cache_dir / "tiktoken" / f"{name}.tiktoken"
    for path in (own, *_places(name)):
        if path.is_file():
            return _checked(path.read_bytes(), digest, str(path))
    if settings.offline:
        raise UnavailableError(f"{name}.tiktoken is not cached and TOKAMAK_OFFLINE is set: put it at {own}")
    try:
        with urllib.request.urlopen(f"{SOURCE}{name}.tiktoken", timeout=30) as answer:  # noqa: S310  https
            data = _checked(answer.read(), digest, SOURCE)
    except OSError as e:
        raise UnavailableError(f"{SOURCE}{name}.tiktoken: {e}; or put the file at {own}") from e
    own.parent.mkdir(parents=True, exist_ok=True)
    part = own.with_suffix(f".{os.getpid()}")
    part.write_bytes(data)
    part.replace(own)
    return data


def _places(name: str) -> Iterator[Path]:
    """Where tiktoken keeps a file: under the hash of its address."""
    key = hashlib.sha1(f"{SOURCE}{name}.tiktoken".encode()).hexdigest()  # noqa: S324  a file name
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if os.environ.get(variable):
            yield Path(os.environ[variable]) / key
            yield Path(os.environ[variable]) / f"{name}.tiktoken"
    yield Path(tempfile.gettempdir()) / "data-gym-cache" / key


def _checked(data: bytes, digest: str, where: str) -> bytes:
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise TokenizerFileError(f"{where}: sha256 {found}, the published file has {digest}")
    return data


def encoding_name_for_model(model_name: str) -> str:
    """Name of the encoding that a model of OpenAI uses. Raises: KeyError for a model that is not known."""
    if model_name in MODELS:
        return MODELS[model_name]
    for start, name in MODEL_STARTS.items():
        if model_name.startswith(start):
            return name
    raise KeyError(
        f"Could not automatically map {model_name} to a tokeniser. "
        "Please use `tiktoken.get_encoding` to explicitly get the tokeniser you expect."
    )


def known(name: str) -> Named:
    """The encoding of that name. Raises: InvalidParams naming those there are."""
    if name not in NAMES:
        raise InvalidParams(f"Unknown encoding {name!r}; known: {', '.join(NAMES)}")
    return NAMES[name]
