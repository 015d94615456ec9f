"""Fill in the middle: the tokens a model marks the parts with, and the prompt made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokamak.errors import UnsupportedError

if TYPE_CHECKING:
    from tokamak.tokenizers import Tokenizer

# role -> (keys of a GGUF file, newest first; names in vocabularies)
ROLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "prefix": (
        ("fim_pre_token_id", "prefix_token_id"),
        ("<|fim_prefix|>", "<fim_prefix>", "<fim-prefix>", "<｜fim▁begin｜>", "▁<PRE>", "<PRE>", "<|code_prefix|>", "[PREFIX]"),
    ),
    "suffix": (
        ("fim_suf_token_id", "suffix_token_id"),
        ("<|fim_suffix|>", "<fim_suffix>", "<fim-suffix>", "<｜fim▁hole｜>", "▁<SUF>", "<SUF>", "<|code_suffix|>", "[SUFFIX]"),
    ),
    "middle": (
        ("fim_mid_token_id", "middle_token_id"),
        ("<|fim_middle|>", "<fim_middle>", "<fim-middle>", "<｜fim▁end｜>", "▁<MID>", "<MID>", "<|code_middle|>", "[MIDDLE]"),
    ),
    "pad": (("fim_pad_token_id",), ("<|fim_pad|>", "<fim_pad>", "<fim-pad>", "<PAD>")),
    "repository": (("fim_rep_token_id",), ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>")),
    "file": (("fim_sep_token_id",), ("<|file_sep|>", "<file_sep>", "<|file_separator|>")),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FimTokens:
    """Token ids of the marks; those that are None the model does not have."""

    prefix: int
    suffix: int
    middle: int | None
    pad: int | None = None
    repository: int | None = None
    file: int | None = None

    @property
    def ends(self) -> tuple[int, ...]:
        """Marks that end what is filled in."""
        return tuple(i for i in (self.pad, self.repository, self.file) if i is not None)


def fim_ids(metadata: Mapping[str, Any]) -> dict[str, int]:
    """Role -> token id, as far as a GGUF file names them."""
    found: dict[str, int] = {}
    for role, (keys, _) in ROLES.items():
        for key in keys:
            value = metadata.get(f"tokenizer.ggml.{key}")
            if isinstance(value, int) and role not in found:
                found[role] = value
    return found


def fim_tokens(tokenizer: Tokenizer | None, named: Mapping[str, int]) -> FimTokens:
    """The marks of a model: those its file names, else those of well-known names.

    Raises: UnsupportedError for a model without marks for prefix and suffix.
    """
    if tokenizer is None:
        raise UnsupportedError("infill is about text, and the model file has no tokenizer")
    ids: dict[str, int | None] = {}
    for role, (_, names) in ROLES.items():
        known = (tokenizer.token_to_id(name) for name in names)
        value = named.get(role)
        ids[role] = value if value is not None else next((i for i in known if i is not None), None)
        if value is not None and not 0 <= value < tokenizer.vocab_size:
            raise UnsupportedError(
                f"the file says that token {value} marks the {role}; there are {tokenizer.vocab_size}"
            )
    prefix, suffix = ids["prefix"], ids["suffix"]
    if prefix is None or suffix is None:
        raise UnsupportedError(
            "the model has no tokens that mark prefix and suffix, so it was not taught to fill in the middle"
        )
    return FimTokens(prefix, suffix, ids["middle"], ids["pad"], ids["repository"], ids["file"])


def fim_prompt(
    tokenizer: Tokenizer,
    marks: FimTokens,
    prefix: str,
    suffix: str,
    *,
    suffix_first: bool = False,
    files: Sequence[tuple[str, str]] = (),
) -> list[int]:
    """Token ids of a prompt. files: (name, text) of the same repository, put first. suffix_first: for models taught so."""

    def plain(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special=False)
        return ids

    ids = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    for name, text in files:
        ids += [marks.file] if marks.file is not None else []
        ids += plain(f"{name}\n{text}\n" if marks.file is not None else f"{text}\n")
    if files and marks.file is not None:
        ids += [marks.file]
    before, after = [marks.prefix, *plain(prefix)], [marks.suffix, *plain(suffix)]
    ids += after + before if suffix_first else before + after
    return ids + ([marks.middle] if marks.middle is not None else [])
