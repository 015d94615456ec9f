"""A program whose logits are a hash of everything it reads from its paged cache.

It computes no language, but one wrong block, slot, position or length anywhere in a sequence changes every
logit, which a small real model would often hide.
"""

import threading

import numpy as np

from tokamak.errors import InvalidParams, UnsupportedError
from tokamak.types import Limits, Reach

ODD = np.uint64(0x9E3779B97F4A7C15)


def mixed(words):
    words = np.asarray(words, dtype=np.uint64)
    with np.errstate(over="ignore"):
        words = (words ^ (words >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
        return words ^ (words >> np.uint64(29))


class HashProgram:
    """types.Program: logits f32[S, V] from the tokens and positions found in the cache."""

    recurrent, hidden, reach, workers = False, "", None, None

    def __init__(self, vocab_size=97, **limits):
        self.limits = Limits(
            **({"num_blocks": 64, "block_size": 4, "max_rows": 16, "max_sequences": 8} | limits)
        )
        self.vocab_size = vocab_size
        size = self.limits.num_blocks * self.limits.block_size
        self._cache = np.random.default_rng(0).integers(0, 2**63, size, dtype=np.uint64)  # garbage, not zeros
        self._lanes = mixed(np.arange(1, vocab_size + 1, dtype=np.uint64) * ODD)
        self.batches = []
        self.cancelled = threading.Event()
        self.closed = False

    def run(self, batch):
        if self.closed:
            raise InvalidParams("this program is closed")
        self.batches.append(batch)
        assert len(batch.token_ids) <= self.limits.max_rows
        assert len(batch.lengths) <= self.limits.max_sequences
        assert all(a.dtype == np.int32 for a in (batch.token_ids, batch.positions, batch.slots, batch.tables))
        self._store(batch)
        logits = []
        for row in batch.logit_rows:
            sequence = int(np.searchsorted(batch.starts, row, side="right")) - 1
            assert batch.positions[row] < batch.lengths[sequence]
            with np.errstate(over="ignore"):
                word = mixed(self._word(batch, sequence, int(batch.positions[row])))
                lanes = mixed(self._lanes * (word | np.uint64(1)))
            logits.append((lanes >> np.uint64(40)).astype(np.float32) / 2**21)
        return np.array(logits, dtype=np.float32).reshape(-1, self.vocab_size)

    def _store(self, batch):
        with np.errstate(over="ignore"):
            self._cache[batch.slots] = mixed(
                batch.token_ids.astype(np.uint64) * ODD + batch.positions.astype(np.uint64)
            )

    def _word(self, batch, sequence, position):
        return self._sum(self._cache, batch.tables[sequence], np.arange(position + 1))

    def _sum(self, cache, table, positions):
        size = self.limits.block_size
        read = cache[table[positions // size] * size + positions % size]
        return np.sum(mixed(read + positions.astype(np.uint64) * ODD))

    def cancel(self):
        self.cancelled.set()

    def copy_blocks(self, pairs, *, recent=False):
        size = self.limits.block_size
        for source, destination in pairs:
            self._cache[destination * size : (destination + 1) * size] = self._cache[
                source * size : (source + 1) * size
            ]

    def read_blocks(self, blocks, *, recent=False):
        size = self.limits.block_size
        return [np.stack([self._cache[b * size : (b + 1) * size].view(np.uint8) for b in blocks])]

    def write_blocks(self, blocks, contents, *, recent=False):
        size = self.limits.block_size
        for block, raw in zip(blocks, contents[0], strict=True):
            self._cache[block * size : (block + 1) * size] = np.ascontiguousarray(raw).view(np.uint64)

    def shift_blocks(self, blocks, delta, *, recent=False):
        raise UnsupportedError("a hash does not turn")

    def records(self):
        return []

    def memory(self):
        return {"cache": self._cache.nbytes}

    def close(self):
        self.closed = True


class WindowedHashProgram(HashProgram):
    """Reads the last `window` positions, or the chunk so far, in a cache of their own; mixed: the whole text besides."""

    def __init__(self, window=10, chunk=0, *, mixed=True, **limits):
        super().__init__(**({"recent_blocks": 24} | limits))
        self.reach, self.mixed = Reach(frozenset({(window, chunk)})), mixed
        size = self.limits.blocks(recent=True) * self.limits.block_size
        self._recent = np.random.default_rng(1).integers(0, 2**63, size, dtype=np.uint64)

    def _store(self, batch):
        super()._store(batch)
        recent = batch.recent or batch
        self._recent[recent.slots] = self._cache[batch.slots]

    def _word(self, batch, sequence, position):
        recent = batch.recent or batch
        seen = np.arange(self.reach.first(position), position + 1)
        word = self._sum(self._recent, recent.tables[sequence], seen)
        return word + super()._word(batch, sequence, position) if self.mixed else word

    def _kept(self, recent):
        return self._recent if recent else self._cache

    def copy_blocks(self, pairs, *, recent=False):
        blocks = self._kept(recent).reshape(-1, self.limits.block_size)
        for source, destination in pairs:
            blocks[destination] = blocks[source]

    def read_blocks(self, blocks, *, recent=False):
        return [self._kept(recent).reshape(-1, self.limits.block_size)[list(blocks)].view(np.uint8)]

    def write_blocks(self, blocks, contents, *, recent=False):
        rows = np.ascontiguousarray(contents[0]).view(np.uint64)
        self._kept(recent).reshape(-1, self.limits.block_size)[list(blocks)] = rows


class LetterDecoder:
    """Token i is the letter a + i % 26; every 7th is half of a two-letter piece, given out with the next."""

    def __init__(self):
        self.held = ""

    def push(self, token_id):
        self.held += chr(97 + token_id % 26)
        if token_id % 7 == 0:
            return ""
        text, self.held = self.held, ""
        return text

    def flush(self):
        text, self.held = self.held, ""
        return text


class LetterTokenizer:
    """The part of a tokenizer the engine asks for, over the 97 ids of HashProgram: id i is chr(32 + i), 96 ends."""

    vocab_size = 97
    eog_ids = frozenset([96])

    def encode(self, text, add_special=True, parse_special=False):
        return [ord(c) - 32 for c in text]

    def encode_array(self, text, add_special=True, parse_special=False):
        return np.array(self.encode(text), dtype=np.int32)

    def encode_chat(self, messages, add_generation_prompt=True):
        return self.encode("".join(f"{m['role']}: {m['content']}\x7f" for m in messages) + "assistant: ")

    def decode(self, ids, skip_special=False):
        return "".join(chr(32 + i) for i in ids)

    def id_to_bytes(self, token_id):
        return chr(32 + token_id).encode()

    def stream(self, continues=False):
        return LetterStream()


class LetterStream:
    def push(self, token_id):
        return chr(32 + token_id)

    def flush(self):
        return ""
