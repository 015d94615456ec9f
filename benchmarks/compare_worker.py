"""One engine of compare_llama_cpp.py and compare_engines.py: loads a model, then answers lines.

`pp COUNT SEED`: read a prompt of COUNT tokens. `tg:BATCH:DEPTH COUNT SEED`: make COUNT tokens for each of BATCH
sequences at once, after a prompt of DEPTH tokens (without a prompt: of one). `memory 0 0`. `read 0 0`: bytes per second of
reading the packed weights straight on (tokamak only).

usage: compare_worker.py tokamak|llama.cpp MODEL THREADS CONTEXT REPACK KV_DTYPE SEQUENCES
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import ClassVar


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
    def __init__(
        self, model: str, threads: int, context: int, _repack: bool, kv: str, _sequences: int
    ) -> None:
        import tokamak
        from tokamak.observe.machine import Machine

        self.tokamak = tokamak
        self.base = memory("VmHWM")
        start = time.perf_counter()
        self.llm = tokamak.load(model, threads=threads, context=context, kv_dtype=kv, prefix_cache_nbytes=0)
        self.load_s = time.perf_counter() - start
        self.version = Machine.here().commit or Machine.here().tokamak
        self.vocab_size = self.llm.tokenizer.vocab_size
        memory_ = self.llm.program.memory()
        self.facts = {"weight_nbytes": memory_["weights"], "macs_per_token": self.macs()}

    def macs(self) -> int:
        """Multiply-adds with weight matrices per token."""
        before = sum(r.macs for r in self.llm.program.records())
        self.prompt([300] * 8)
        self.prompt([301] * 9)
        whole = sum(r.macs for r in self.llm.program.records()) - before
        return whole // 17  # the head runs twice, not 17 times: a little too few

    def prompt(self, ids: list[int]) -> int:
        out = self.llm.generate(ids, max_tokens=1, temperature=0.0, ignore_eos=True)
        return out.usage.prompt_tokens

    def decode(self, prompts: list[list[int]], count: int) -> tuple[int, float]:
        """Tokens made, and the seconds for them without those for the prompts."""
        options = {"temperature": 0.0, "ignore_eos": True}
        if len(prompts) == 1 and len(prompts[0]) > 1:
            events = self.llm.stream(prompts[0], max_tokens=count + 1, **options).events()
            next(iter(events))
            start = time.perf_counter()
            return sum(1 for _ in events), time.perf_counter() - start
        start = time.perf_counter()
        made = self.llm.generate(prompts, max_tokens=count, **options)
        return sum(m.usage.completion_tokens for m in made), time.perf_counter() - start


class LlamaCpp:
    facts: ClassVar[dict[str, int]] = {}

    def __init__(self, model: str, threads: int, context: int, repack: bool, kv: str, sequences: int) -> None:
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
        settings.n_ctx, settings.n_batch, settings.n_ubatch = context * sequences, 2048, 512
        settings.n_seq_max = sequences
        settings.type_k = settings.type_v = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8, "q4_0": 2}[kv]
        if kv in ("q8_0", "q4_0"):
            settings.flash_attn_type = 1  # which a quantised V needs
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

    def decode(self, prompts: list[list[int]], count: int) -> tuple[int, float]:
        self.fresh()
        depth = len(prompts[0]) - 1
        if depth:
            self.run(prompts[0][:-1])
        batch = self.lib.llama_batch_init(len(prompts), 0, 1)
        batch.n_tokens = len(prompts)
        start = time.perf_counter()
        for position in range(depth, depth + count):
            for i in range(len(prompts)):
                batch.token[i] = random.randrange(self.vocab_size)
                batch.pos[i], batch.n_seq_id[i], batch.logits[i] = position, 1, 1
                batch.seq_id[i][0] = i
            if code := self.lib.llama_decode(self.context, batch):
                raise SystemExit(f"llama_decode returned {code}")
            self.lib.llama_synchronize(self.context)
        seconds = time.perf_counter() - start
        self.lib.llama_batch_free(batch)
        return count * len(prompts), seconds


def main() -> None:
    engine, model, threads, context, repack, kv, sequences = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an engine prints must not mix with the answers
    made = {"tokamak": Tokamak, "llama.cpp": LlamaCpp}[engine]
    peer = made(model, int(threads), int(context), repack == "1", kv, int(sequences))

    def reply(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    start_facts = {"load_s": peer.load_s, "base_nbytes": peer.base, "version": peer.version, **peer.facts}
    reply(loaded_peak_nbytes=memory("VmHWM"), **start_facts)
    for line in sys.stdin:
        kind, count, seed = line.split()[0], *map(int, line.split()[1:])
        if kind == "memory":
            reply(peak_nbytes=memory("VmHWM"), resident_nbytes=memory("VmRSS"))
            continue
        if kind == "read":
            reply(rates=peer.llm.program.read_rates(int(threads)))
            continue
        kind, batch, depth = [*kind.split(":"), "1", "0"][:3]
        cpu = time.process_time()
        if kind == "pp":
            ids = random_ids(count, peer.vocab_size, seed)
            start = time.perf_counter()
            tokens, seconds = peer.prompt(ids), time.perf_counter() - start
        else:
            prompts = [
                random_ids(int(depth) + 1, peer.vocab_size, seed + 7919 * i) for i in range(int(batch))
            ]
            tokens, seconds = peer.decode(prompts, count)
        reply(tokens=tokens, seconds=seconds, cpu_seconds=time.process_time() - cpu)


if __name__ == "__main__":
    main()
