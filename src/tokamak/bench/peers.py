"""Reference engines that a model is checked against: llama.cpp and bitnet.cpp on the same GGUF file, transformers on the same weights.

Each answers the same questions: the ids of a text, the logits of every position, the values of its inner nodes, how long it takes.
They are extras; one that is not installed is UnavailableError, never a pass.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tokamak.bench.llama_cpp import LlamaCpp
from tokamak.bench.runner import PINS, Runner, compiled, standing
from tokamak.errors import InvalidParams, UnavailableError, UnsupportedError
from tokamak.settings import Settings
from tokamak.types import Floats

__all__ = ["PEERS", "LlamaCpp", "Peer", "Runner", "Transformers", "open_peer"]

PEERS = ("llama.cpp", "transformers", *PINS)


class Peer(Protocol):
    """One reference engine with the model loaded."""

    name: str
    version: str

    def tokens(self, text: str) -> list[int] | None:
        """Ids of a text with the model's special tokens around it; None if the peer has no tokenizer."""

    def logits(self, token_ids: Sequence[int]) -> Floats:
        """f32[n, V] of every position, from a cold cache."""

    def nodes(self, token_ids: Sequence[int]) -> list[tuple[str, Floats]]:
        """(the peer's name, f32[n, D]) of inner values with a row per token, in the order of execution."""

    def seconds(self, token_ids: Sequence[int], num_tokens: int) -> tuple[float, float]:
        """How long it takes to read `token_ids`, and to write `num_tokens` greedily after them, from a cold cache."""

    def close(self) -> None:
        """Give the memory back."""


def _installed(package: str, what: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        raise UnavailableError(f"{what} is not installed; pip install {package}") from None


class Transformers:
    """transformers on a directory, or on a GGUF file of an architecture that it reads. dtype: f32 or bf16, of its arithmetic."""

    name = "transformers"

    def __init__(
        self, path: str | os.PathLike[str], *, context: int, threads: int, dtype: str = "f32"
    ) -> None:
        del context  # it has no cache of a fixed size
        self.version = "transformers " + _installed("transformers", "transformers")
        _installed("torch", "torch, which transformers needs,")
        import torch

        transformers: Any = importlib.import_module("transformers")
        torch.set_num_threads(threads)
        transformers.logging.set_verbosity_error()
        place = Path(path)
        where: dict[str, Any] = {"pretrained_model_name_or_path": str(place), "local_files_only": True}
        if not place.is_dir():
            where = where | {"pretrained_model_name_or_path": str(place.parent), "gguf_file": place.name}
        kind = torch.bfloat16 if dtype == "bf16" else torch.float32
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=kind)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise UnsupportedError(f"transformers does not load {path}: {error}") from error
        self.version += f" in {dtype}"
        self._torch, self._model = torch, model.eval()
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(**where)
        except (OSError, ValueError, ImportError, KeyError, TypeError):
            self._tokenizer = None

    def tokens(self, text: str) -> list[int] | None:
        """None for a model directory without a tokenizer."""
        if self._tokenizer is None:
            return None
        ids: list[int] = self._tokenizer(text)["input_ids"]
        return ids

    def logits(self, token_ids: Sequence[int]) -> Floats:
        """As `Peer`."""
        with self._torch.no_grad():
            found = self._model(input_ids=self._torch.tensor([list(token_ids)]), use_cache=False)
        return np.asarray(found.logits[0].float().numpy(), dtype=np.float32)

    def nodes(self, token_ids: Sequence[int]) -> list[tuple[str, Floats]]:
        """As `Peer`: what each module returns, under the module's path."""
        found: list[tuple[str, Floats]] = []
        rows = len(token_ids)

        def keep(name: str, value: Any) -> None:
            value = value[0] if isinstance(value, tuple) and value else value
            if not self._torch.is_tensor(value) or not value.is_floating_point() or value.dim() not in (2, 3):
                return
            value = value.detach().float().reshape(-1, value.shape[-1])
            if value.shape[0] == rows:
                found.append((name, np.array(value.numpy(), dtype=np.float32)))

        hooks = [
            module.register_forward_hook(lambda _, __, out, name=name: keep(name, out))
            for name, module in self._model.named_modules()
            if name
        ]
        try:
            self.logits(token_ids)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def seconds(self, token_ids: Sequence[int], num_tokens: int) -> tuple[float, float]:
        """As `Peer`, with its own cache."""
        torch = self._torch
        with torch.no_grad():
            start = time.perf_counter()
            out = self._model(input_ids=torch.tensor([list(token_ids)]), use_cache=True, logits_to_keep=1)
            chosen = out.logits[:, -1:].argmax(-1)
            read = time.perf_counter()
            for _ in range(num_tokens):
                out = self._model(input_ids=chosen, past_key_values=out.past_key_values, use_cache=True)
                chosen = out.logits[:, -1:].argmax(-1)
        return read - start, time.perf_counter() - read

    def close(self) -> None:
        """As `Peer`."""
        del self._model


def open_peer(
    name: str,
    path: str | os.PathLike[str],
    *,
    context: int,
    threads: int,
    kv_dtype: str = "f32",
    dtype: str = "f32",
    runner: str | os.PathLike[str] | None = None,
) -> Peer:
    """A peer with the model loaded.

    context: most tokens of one text. kv_dtype: of the cache of the C++ engines. dtype: f32 or bf16, the arithmetic of transformers.
    runner: of a C++ engine, a source tree that is built or a runner made from one; without
    it bitnet.cpp is looked for where `runner.build` puts it, and llama.cpp is the installed package.
    Raises: InvalidParams, UnavailableError, UnsupportedError.
    """
    if name not in PEERS:
        raise InvalidParams(f"{name!r} is no reference engine; known: {', '.join(PEERS)}")
    if name == "transformers":
        return Transformers(path, context=context, threads=threads, dtype=dtype)
    form: dict[str, Any] = {
        "context": context,
        "threads": threads,
        "kv_dtype": kv_dtype,
    }
    if name in PINS or runner is not None:
        cache = Settings.load().cache_dir / "reference"
        tree = Path(runner) if runner is not None else standing(name, cache)
        return Runner(name, compiled(tree, cache), path, **form)
    return LlamaCpp(path, **form)
