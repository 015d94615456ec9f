"""One engine of compare_llama_cpp.py: loads a model, then answers lines of `pp COUNT SEED`, `tg COUNT SEED`, `memory 0 0`.

usage: compare_worker.py tokamak|llama.cpp MODEL THREADS CONTEXT REPACK
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path


def memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}")


def random_ids(count: int, vocab_size: int, seed: int) -> list[int]:
    """Ids of ordinary tokens: the first 260 of a vocabulary are controls and bytes."""
    rng = random.Random(seed)
    low = 260 if vocab_size > 1000 else 3
    return [rng.randrange(low, vocab_size) for _ in range(count)]


class Tokamak:
    def __init__(self, model: str, threads: int, context: int, _repack: bool) -> None:
        import tokamak
        from tokamak.observe.machine import Machine

        self.tokamak = tokamak
        self.base = memory("VmHWM")
        start = time.perf_counter()
        self.llm = tokamak.load(model, threads=threads, context=context)
        self.load_s = time.perf_counter() - start
        self.version = Machine.here().commit or Machine.here().tokamak
        self.vocab_size = self.llm.tokenizer.vocab_size

    def prompt(self, ids: list[int]) -> int:
        out = self.llm.generate(ids, max_tokens=1, temperature=0.0, ignore_eos=True)
        return out.usage.prompt_tokens

    def decode(self, first: int, count: int) -> int:
        out = self.llm.generate([first], max_tokens=count, temperature=0.0, ignore_eos=True)
        return out.usage.completion_tokens


class LlamaCpp:
    def __init__(self, model: str, threads: int, context: int, repack: bool) -> None:
        import ctypes

        import llama_cpp as lib

        self.lib, self.ctypes = lib, ctypes
        self.version = lib.__version__
        silent = lib.llama_log_callback(lambda *_: None)
        self.silent = silent  # llama.cpp keeps the pointer
        lib.llama_log_set(silent, ctypes.c_void_p(0))
        lib.llama_backend_init()
        self.base = memory("VmHWM")
        start = time.perf_counter()
        params = lib.llama_model_default_params()
        params.use_extra_bufts = repack
        params.n_gpu_layers = 0
        self.model = lib.llama_model_load_from_file(model.encode(), params)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {model}")
        settings = lib.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = context, 2048, 512
        settings.n_threads = settings.n_threads_batch = threads
        self.context = lib.llama_init_from_model(self.model, settings)
        self.load_s = time.perf_counter() - start
        self.vocab_size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))

    def run(self, ids: list[int]) -> None:
        array = (self.lib.llama_token * len(ids))(*ids)
        code = self.lib.llama_decode(self.context, self.lib.llama_batch_get_one(array, len(ids)))
        if code:
            raise SystemExit(f"llama_decode returned {code}")
        self.lib.llama_synchronize(self.context)

    def fresh(self) -> None:
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), False)

    def prompt(self, ids: list[int]) -> int:
        self.fresh()
        self.run(ids)
        return len(ids)

    def decode(self, first: int, count: int) -> int:
        self.fresh()
        token = first
        for _ in range(count):
            self.run([token])
            token = random.randrange(self.vocab_size)
        return count


def main() -> None:
    engine, model, threads, context, repack = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an engine prints must not mix with the answers
    made = {"tokamak": Tokamak, "llama.cpp": LlamaCpp}[engine]
    peer = made(model, int(threads), int(context), repack == "1")

    def reply(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    reply(load_s=peer.load_s, base_nbytes=peer.base, loaded_peak_nbytes=memory("VmHWM"), version=peer.version)
    for line in sys.stdin:
        kind, count, seed = line.split()[0], *map(int, line.split()[1:])
        if kind == "memory":
            reply(peak_nbytes=memory("VmHWM"), resident_nbytes=memory("VmRSS"))
            continue
        ids = random_ids(count if kind == "pp" else 1, peer.vocab_size, seed)
        start = time.perf_counter()
        tokens = peer.prompt(ids) if kind == "pp" else peer.decode(ids[0], count)
        reply(tokens=tokens, seconds=time.perf_counter() - start)


if __name__ == "__main__":
    main()
