"""llama.cpp as a reference engine, in this process, through the C interface that llama-cpp-python binds.

Values of inner nodes come from llama.cpp's own callback of the graph: it is asked before each node whether the value is wanted and
called after it. The interface shows tensors as pointers; how one lies in memory is that of ggml's header since 2023.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from tokamak.errors import InvalidParams, UnavailableError, UnsupportedError
from tokamak.types import Floats

__all__ = ["LlamaCpp"]

TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}  # ids of ggml, for the cache
F32 = 0
ERROR = 4  # level of its log
SAME = frozenset({"VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"})  # the value of another node, seen otherwise
NEEDED = ("ggml_backend_tensor_get", "ggml_get_name", "ggml_op_desc", "ggml_nbytes")


class _Tensor(ctypes.Structure):
    """The beginning of ggml_tensor. ne: extents, innermost first; nb: their strides in bytes."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
    )


class _Graph:
    """What llama.cpp's callback brought: (name, f32[n, ...]) of the nodes with a row per token."""

    def __init__(self, lib: Any, release: str) -> None:
        self.ggml = _ggml(lib, release)
        self.rows = 0  # of nodes that are kept, 0: nothing is asked
        self.found: list[tuple[str, Floats]] = []
        self.callback = lib.ggml_backend_sched_eval_callback(self._seen)

    def _seen(self, tensor: int, ask: bool, _: object) -> bool:  # the C interface's
        if not self.rows:
            return not ask  # nothing is wanted, and what is running goes on
        shape = self._shape(tensor)
        wanted = shape is not None and self.ggml.ggml_op_desc(tensor).decode() not in SAME
        if ask:
            return wanted
        if wanted and shape:
            self.found.append((self.ggml.ggml_get_name(tensor).decode(errors="replace"), self._read(tensor)))
        return True

    def _shape(self, tensor: int) -> tuple[int, ...] | None:
        """Extents, outermost first, of a float tensor whose first is the tokens; else None."""
        head = _Tensor.from_address(tensor)
        shape = [int(n) for n in reversed(head.ne)]
        while len(shape) > 1 and shape[0] == 1 != self.rows:
            del shape[0]
        return tuple(shape) if head.type == F32 and shape[0] == self.rows and len(shape) > 1 else None

    def _read(self, tensor: int) -> Floats:
        head = _Tensor.from_address(tensor)
        raw = np.empty(self.ggml.ggml_nbytes(tensor), np.uint8)
        self.ggml.ggml_backend_tensor_get(tensor, raw.ctypes.data, 0, raw.nbytes)
        shape = tuple(int(n) for n in reversed(head.ne))
        strides = tuple(int(n) for n in reversed(head.nb))
        view = np.lib.stride_tricks.as_strided(raw.view(np.float32), shape, strides)
        return np.array(view, dtype=np.float32).reshape(self.rows, -1)


def _ggml(lib: Any, release: str) -> Any:
    """The library of tensors beside llama.cpp's own.  Raises: UnsupportedError where it shows no values of nodes."""
    missing = [] if hasattr(lib, "ggml_backend_sched_eval_callback") else ["ggml_backend_sched_eval_callback"]
    folder = Path(lib.__file__).parent / "lib"
    found = None
    for path in sorted((*folder.glob("*ggml-base*"), *folder.glob("*ggml*"))):
        try:
            found = ctypes.CDLL(os.fspath(path))
        except OSError:
            continue
        if hasattr(found, NEEDED[0]):
            break
    missing += [name for name in NEEDED if not hasattr(found, name)]
    if found is None or missing:
        raise UnsupportedError(
            f"{release} has no {', '.join(missing)} in {folder}, so values of llama.cpp's nodes cannot be read; "
            "pip install --upgrade llama-cpp-python"
        )
    for name, result in zip(NEEDED, (None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t), strict=True):
        getattr(found, name).restype = result
        getattr(found, name).argtypes = [ctypes.c_void_p]
    found.ggml_backend_tensor_get.argtypes = [
        *(ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_size_t, ctypes.c_size_t),
    ]
    return found


@cache
def _silent(lib: Any) -> Any:
    """A log that nobody reads, which lives as long as the library does."""
    return lib.llama_log_callback(lambda *_: None)


class LlamaCpp:
    """One model and one context. kv_dtype: of its cache, f32 unless told, so that only the arithmetic differs."""

    name = "llama.cpp"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        context: int,
        threads: int,
        kv_dtype: str = "f32",
    ) -> None:
        try:
            self.version = "llama-cpp-python " + version("llama-cpp-python")
        except PackageNotFoundError:
            raise UnavailableError("llama.cpp is not installed; pip install llama-cpp-python") from None
        if Path(path).is_dir():
            raise InvalidParams(
                f"{path} is a directory; llama.cpp reads GGUF files (tokamak convert makes one)"
            )
        self._lib: Any = importlib.import_module("llama_cpp.llama_cpp")
        importlib.import_module("llama_cpp")  # which sets its own log when it is first imported
        self._said: list[str] = []
        self._log = self._lib.llama_log_callback(
            lambda level, text, _: (
                self._said.append(text.decode(errors="replace")) if level == ERROR else None
            )
        )
        self._lib.llama_log_set(self._log, ctypes.c_void_p(0))
        self._lib.llama_backend_init()
        self._context, self._model = None, self._load(path)
        self._vocab = self._lib.llama_model_get_vocab(self._model)
        self._width = int(self._lib.llama_vocab_n_tokens(self._vocab))
        self._graph: _Graph | None = None
        self._form = {"context": context, "threads": threads, "kv_dtype": kv_dtype}
        self._start(None)
        self._path = os.fspath(path)

    def _load(self, path: str | os.PathLike[str]) -> Any:
        params = self._lib.llama_model_default_params()
        params.n_gpu_layers = 0
        model = self._lib.llama_model_load_from_file(os.fspath(path).encode(), params)
        if not model:
            why = " ".join("".join(self._said[-3:]).split())
            raise UnsupportedError(f"llama.cpp does not load {path}: {why}")
        return model

    def _start(self, graph: _Graph | None) -> None:
        """A context; one that tells values of nodes is slower, so it is made when it is asked for."""
        lib, form = self._lib, self._form
        if self._context:
            lib.llama_free(self._context)
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = form["context"]
        if hasattr(params, "n_outputs_max"):
            params.n_outputs_max = form["context"]
        params.n_threads = params.n_threads_batch = form["threads"]
        params.type_k = params.type_v = TYPES[str(form["kv_dtype"])]
        rounded = form["kv_dtype"] in ("q8_0", "q4_0")  # whose V llama.cpp reads with flash attention only
        params.flash_attn_type = 1 if rounded else 0
        if graph is not None:
            params.cb_eval = graph.callback
        self._graph, self._context = graph, lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise UnsupportedError("llama.cpp makes no context for this model and cache type")

    def tokens(self, text: str) -> list[int]:
        """With bos where the file says so; names of special tokens are read."""
        raw, room = text.encode(), len(text.encode()) + 8
        ids = (self._lib.llama_token * room)()
        count = self._lib.llama_tokenize(self._vocab, raw, len(raw), ids, room, True, True)
        return list(ids[:count])

    def _read(self, ids: Sequence[int], start: int, *, every: bool) -> None:
        """Read ids at positions from start; every: keep the logits of each, else of the last."""
        lib, count = self._lib, len(ids)
        batch = lib.llama_batch_init(count, 0, 1)
        try:
            batch.n_tokens = count
            for i, one in enumerate(ids):
                batch.token[i], batch.pos[i], batch.n_seq_id[i] = one, start + i, 1
                batch.seq_id[i][0], batch.logits[i] = 0, int(every or i == count - 1)
            if code := lib.llama_decode(self._context, batch):
                raise UnsupportedError(f"llama.cpp does not read the tokens (llama_decode returns {code})")
            lib.llama_synchronize(self._context)
        finally:
            lib.llama_batch_free(batch)

    def _clear(self) -> None:
        if memory := self._lib.llama_get_memory(self._context):
            self._lib.llama_memory_clear(memory, True)  # the C interface's

    def _rows(self, count: int) -> Floats:
        flat = np.ctypeslib.as_array(self._lib.llama_get_logits(self._context), shape=(count * self._width,))
        return np.array(flat, dtype=np.float32).reshape(count, self._width)

    def logits(self, token_ids: Sequence[int]) -> Floats:
        """As `Peer`."""
        self._clear()
        self._read(token_ids, 0, every=True)
        return self._rows(len(token_ids))

    def nodes(self, token_ids: Sequence[int]) -> list[tuple[str, Floats]]:
        """As `Peer`.  Raises: UnsupportedError if this build of llama.cpp shows no values."""
        if self._graph is None:
            self._start(_Graph(self._lib, self.version))
        graph = self._graph
        if graph is None:
            return []
        graph.found, graph.rows = [], len(token_ids)
        try:
            self.logits(token_ids)
        finally:
            graph.rows = 0
        return graph.found

    def seconds(self, token_ids: Sequence[int], num_tokens: int) -> tuple[float, float]:
        """As `Peer`."""
        if self._graph is not None:
            self._start(None)
        self._clear()
        start = time.perf_counter()
        self._read(token_ids, 0, every=False)
        chosen = int(self._rows(1)[0].argmax())
        read = time.perf_counter()
        for i in range(num_tokens):
            self._read([chosen], len(token_ids) + i, every=False)
            chosen = int(self._rows(1)[0].argmax())
        return read - start, time.perf_counter() - read

    def close(self) -> None:
        """As `Peer`."""
        free: list[tuple[Callable[[Any], None], Any]] = [
            (self._lib.llama_free, self._context),
            (self._lib.llama_model_free, self._model),
        ]
        self._context = self._model = None
        for function, what in free:
            if what:
                function(what)
        self._lib.llama_log_set(_silent(self._lib), ctypes.c_void_p(0))  # ours dies with this object
