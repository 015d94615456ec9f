"""Measures a model under different settings: weights are packed once, programs made anew for each.

Speed is that of the program alone, without sampling and text: what settings can change.
"""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from tokamak import executors, models
from tokamak.engine.loading import MAX_BATCH_ROWS, default_model
from tokamak.engine.tuned import Tuned
from tokamak.ir import passes
from tokamak.loaders import open_checkpoint
from tokamak.settings import available_cpus
from tokamak.types import Array, Batch, Limits, PackedBytes, PackedMatrix, Program, Weight

__all__ = ["Bench", "Figures", "PackedInMemory"]

PROMPT, DEPTH, BLOCK = 512, 64, 32
ENOUGH_S = 1.0  # of reading prompts: longer says no more


@dataclass(frozen=True, slots=True)
class Figures:
    """What a setting gives."""

    prompt_tok_s: float
    decode_tok_s: float
    nbytes: int  # working memory beside weights and cache


@dataclass(frozen=True, slots=True)
class PackedInMemory:
    """A `types.PackedWeight` that many programs share."""

    format: str
    shape: tuple[int, ...]
    form: PackedBytes

    def packed(self) -> PackedBytes:
        return self.form

    def rows(self) -> Array:
        """Not kept."""
        return np.zeros((0, 0), np.uint8)

    def release(self) -> None:
        """Nothing: the weights are shared."""


class Bench:
    """A model whose programs are compared."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Raises: ModelFileError, UnsupportedError."""
        checkpoint = open_checkpoint(os.fspath(path) if path is not None else default_model())
        context = PROMPT + DEPTH
        built = models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=context)
        self.graph = passes.optimize(built)
        self.num_tokens = checkpoint.num_tokens
        self.weights: dict[str, Weight] = dict(checkpoint.weights)
        isa, matrices = executors.get("cpu").packed(self.graph, self.weights, available_cpus())
        for name, matrix in matrices.items():
            self.weights[name] = _in_memory(matrix, isa, self.weights[name])
        self._ids = np.random.default_rng(0)

    def program(self, tuned: Tuned) -> Program:
        """A program with these settings."""
        threads = tuned.threads or available_cpus()
        rows = tuned.max_batch_rows or MAX_BATCH_ROWS
        blocks = (PROMPT + DEPTH) // BLOCK
        limits = Limits(blocks, BLOCK, rows, 1, "f16", threads, tuned.threads_batch, (), tuned.tuning)
        return executors.get("cpu").compile(self.graph, self.weights, limits)

    def measure(self, tuned: Tuned, repeats: int = 2, decode: int = 12) -> Figures:
        """Medians over `repeats` prompts of 512 tokens, each followed by `decode` single steps; one if that is slow."""
        program = self.program(tuned)
        rows = program.limits.max_rows
        prompts: list[float] = []
        steps: list[float] = []
        self.step(program, 0, min(rows, 32))  # touches the working memory
        while len(prompts) < repeats and sum(prompts) < ENOUGH_S:
            start = perf_counter()
            for first in range(0, PROMPT, rows):
                self.step(program, first, min(rows, PROMPT - first))
            prompts.append(perf_counter() - start)
            for position in range(PROMPT, PROMPT + decode):
                start = perf_counter()
                self.step(program, position, 1)
                steps.append(perf_counter() - start)
        nbytes = program.memory()["arena"]
        program.close()
        return Figures(PROMPT / statistics.median(prompts), 1 / statistics.median(steps), nbytes)

    def step(self, program: Program, first: int, rows: int) -> None:
        """Rows [first, first + rows) of one sequence; logits of the last."""
        positions = np.arange(first, first + rows, dtype=np.int32)
        ids = self._ids.integers(0, self.num_tokens, rows, dtype=np.int32)
        table = np.arange(-(-(first + rows) // BLOCK), dtype=np.int32)[None]
        starts, lengths = np.array([0, rows], np.int32), np.array([first + rows], np.int32)
        program.run(Batch(ids, positions, positions, starts, lengths, table, np.array([rows - 1], np.int32)))


def _in_memory(matrix: PackedMatrix, isa: str, weight: Weight) -> PackedInMemory:
    form = PackedBytes(isa, matrix.fingerprint, matrix.read(), lambda: None)
    return PackedInMemory(weight.format, weight.shape, form)
