"""Fill-in-the-middle: the marks a vocabulary has for it, and the prompt made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokamak.engine.llm import LLM
from tokamak.server.problems import Problem

BAR = "\uff5c"  # the full-width bar of DeepSeek's names
# Names in the vocabularies of CodeLlama, StarCoder, Qwen, DeepSeek, Codestral, Granite and GLM.
PREFIX = (
    "<|fim_prefix|>",
    "<fim_prefix>",
    "<fim-prefix>",
    f"<{BAR}fim▁begin{BAR}>",
    "<PRE>",
    "▁<PRE>",
    "[PREFIX]",
    "<|code_prefix|>",
)
SUFFIX = (
    "<|fim_suffix|>",
    "<fim_suffix>",
    "<fim-suffix>",
    f"<{BAR}fim▁hole{BAR}>",
    "<SUF>",
    "▁<SUF>",
    "[SUFFIX]",
    "<|code_suffix|>",
)
MIDDLE = (
    "<|fim_middle|>",
    "<fim_middle>",
    "<fim-middle>",
    f"<{BAR}fim▁end{BAR}>",
    "<MID>",
    "▁<MID>",
    "[MIDDLE]",
    "<|code_middle|>",
)
OTHERS = ("<|fim_pad|>", "<fim_pad>", "<|repo_name|>", "<|file_sep|>", "<EOT>", "▁<EOT>")
FILE_MARK = "<|file_sep|>"


@dataclass(frozen=True, slots=True)
class Marks:
    """Token ids. ends: of marks that end a completion."""

    prefix: int
    suffix: int
    middle: int
    file: int | None
    ends: tuple[int, ...]


def marks_of(llm: LLM) -> Marks | None:
    """Those of a model, None if it has none."""
    tokenizer = llm.tokenizer
    if tokenizer is None:
        return None
    known = {token.content: token.id for token in tokenizer.added_tokens}
    found = [next((known[n] for n in names if n in known), None) for names in (PREFIX, SUFFIX, MIDDLE)]
    prefix, suffix, middle = found
    if prefix is None or suffix is None or middle is None:
        return None
    ends = tuple(known[name] for name in (*PREFIX, *SUFFIX, *MIDDLE, *OTHERS) if name in known)
    return Marks(prefix, suffix, middle, known.get(FILE_MARK), ends)


def prompt_of(
    llm: LLM, marks: Marks | None, before: str, after: str, files: Sequence[tuple[str, str]] = ()
) -> list[int]:
    """Ids that ask for what stands between two texts; files: (name, text) that belong to the same project.

    Raises: Problem 400 if the model has no marks for it.
    """
    tokenizer = llm.tokenizer
    if marks is None or tokenizer is None:
        raise Problem(400, "the model's vocabulary has no marks for infilling", code="not_supported")

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special=False, parse_special=False)

    start = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    context: list[int] = []
    for name, text in files:
        context += [marks.file, *ids(f"{name}\n{text}")] if marks.file is not None else ids(f"{text}\n")
    return [*start, *context, marks.prefix, *ids(before), marks.suffix, *ids(after), marks.middle]
