"""Reference engines that a model is checked against: llama.cpp on the same GGUF file, transformers on the same weights.

Each answers three questions: the ids of a text, the logits of every position, the next greedy token. They are extras; one that
is not installed is UnavailableError, never a pass.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tokamak.errors import InvalidParams, UnavailableError, UnsupportedError
from tokamak.types import Floats


class Peer(Protocol):
    """One reference engine with the model loaded."""

    name: str
    version: str

    def tokens(self, text: str) -> list[int] | None:
        """Ids of a text with the model's special tokens around it; None if the peer has no tokenizer."""

    def logits(self, token_ids: Sequence[int]) -> Floats:
        """f32[n, V] of every position, from a cold cache."""

    def hidden(self, token_ids: Sequence[int]) -> list[Floats]:
        """The stream between layers, f32[n, D] each, first to last; empty if the peer does not show it."""

    def close(self) -> None:
        """Give the memory back."""


def _installed(package: str, what: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        raise UnavailableError(f"{what} is not installed; pip install {package}") from None


class LlamaCpp:
    """llama-cpp-python, with an f32 cache so that only the arithmetic differs."""

    name = "llama.cpp"

    def __init__(self, path: str | os.PathLike[str], *, context: int, threads: int) -> None:
        self.version = "llama-cpp-python " + _installed("llama-cpp-python", "llama.cpp")
        import llama_cpp

        if Path(path).is_dir():
            raise InvalidParams(
                f"{path} is a directory; llama.cpp reads GGUF files (tokamak convert makes one)"
            )
        try:
            self._llama: Any = llama_cpp.Llama(
                model_path=os.fspath(path),
                n_ctx=context,
                n_batch=context,
                n_ubatch=context,
                n_threads=threads,
                n_threads_batch=threads,
                logits_all=True,
                type_k=llama_cpp.GGML_TYPE_F32,
                type_v=llama_cpp.GGML_TYPE_F32,
                flash_attn=False,
                verbose=False,
            )
        except ValueError as error:
            raise UnsupportedError(f"llama.cpp does not load {path}: {error}") from error

    def tokens(self, text: str) -> list[int]:
        """With bos where the file says so; names of special tokens are read."""
        ids: list[int] = self._llama.tokenize(text.encode(), add_bos=True, special=True)
        return ids

    def logits(self, token_ids: Sequence[int]) -> Floats:
        """As `Peer`."""
        self._llama.reset()
        self._llama.eval(list(token_ids))
        return np.array(self._llama.scores[: len(token_ids)], dtype=np.float32)

    def hidden(self, token_ids: Sequence[int]) -> list[Floats]:  # noqa: ARG002 as the protocol has it
        """llama.cpp's interface shows none."""
        return []

    def close(self) -> None:
        """As `Peer`."""
        self._llama.close()


class Transformers:
    """transformers in float32 on a directory, or on a GGUF file of an architecture that it reads."""

    name = "transformers"

    def __init__(self, path: str | os.PathLike[str], *, context: int, threads: int) -> None:  # noqa: ARG002
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
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise UnsupportedError(f"transformers does not load {path}: {error}") from error
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

    def _forward(self, token_ids: Sequence[int], *, hidden: bool) -> Any:
        with self._torch.no_grad():
            ids = self._torch.tensor([list(token_ids)])
            return self._model(input_ids=ids, use_cache=False, output_hidden_states=hidden)

    def logits(self, token_ids: Sequence[int]) -> Floats:
        """As `Peer`."""
        return np.asarray(self._forward(token_ids, hidden=False).logits[0].float().numpy(), dtype=np.float32)

    def hidden(self, token_ids: Sequence[int]) -> list[Floats]:
        """As `Peer`; the last one is after the final norm in most families."""
        states = self._forward(token_ids, hidden=True).hidden_states
        return [np.asarray(state[0].float().numpy(), dtype=np.float32) for state in states]

    def close(self) -> None:
        """As `Peer`."""
        del self._model


PEERS: dict[str, type[LlamaCpp | Transformers]] = {"llama.cpp": LlamaCpp, "transformers": Transformers}


def open_peer(name: str, path: str | os.PathLike[str], *, context: int, threads: int) -> Peer:
    """A peer with the model loaded.  Raises: InvalidParams, UnavailableError, UnsupportedError."""
    if name not in PEERS:
        raise InvalidParams(f"{name!r} is no reference engine; known: {', '.join(PEERS)}")
    return PEERS[name](path, context=context, threads=threads)
