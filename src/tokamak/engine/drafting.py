"""A draft model beside a large one: opened, checked against its vocabulary, given a cache of its own."""

from __future__ import annotations

import dataclasses
import os

from tokamak import executors, models
from tokamak.errors import InvalidParams, TokamakError, UnsupportedError
from tokamak.ir import passes
from tokamak.loaders import open_checkpoint
from tokamak.loaders.discover import find_tokenizer
from tokamak.tokenizers import Tokenizer
from tokamak.types import Limits, Program


def open_draft(
    path: str | os.PathLike[str] | None,
    executor: str,
    limits: Limits,
    tokenizer: Tokenizer | None,
    context: int,
) -> Program | None:
    """The program of a draft model, None without one. limits, tokenizer, context: of the large model.

    Raises: InvalidParams if the vocabularies differ; UnsupportedError if it keeps a state that cannot go back; as `load`.
    """
    if path is None:
        return None
    checkpoint = open_checkpoint(os.fspath(path))
    try:
        own = find_tokenizer(checkpoint).tokenizer
        if own is None or tokenizer is None or spellings(own) != spellings(tokenizer):
            raise InvalidParams(
                "the draft model has another vocabulary than the large one; drafts are token ids"
            )
        graph = models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=context)
        blocks = min(limits.num_blocks, limits.max_sequences * -(-context // limits.block_size))
        own_limits = dataclasses.replace(limits, num_blocks=blocks, recent_blocks=0)
        program = executors.get(executor).compile(passes.optimize(graph), checkpoint.weights, own_limits)
    except TokamakError as error:
        raise error.located(checkpoint.path) from error
    if program.recurrent:
        program.close()
        raise UnsupportedError(
            f"{checkpoint.path}: keeps a state that cannot go back to before a wrong guess"
        )
    return program


def spellings(tokenizer: Tokenizer) -> list[bytes]:
    """Bytes of every token id."""
    return [tokenizer.id_to_bytes(i) for i in range(tokenizer.vocab_size)]
