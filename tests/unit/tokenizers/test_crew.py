"""Threads of batches: made once, named, there again after a fork."""

import os
import sys
import threading
from pathlib import Path

import pytest

from tokamak.tokenizers import Tokenizer
from vocabularies import TEXT, byte_level

TOKENIZER = Tokenizer(byte_level())
TEXTS = [TEXT] * 40
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads are listed in /proc")


def crew():
    tasks = Path("/proc/self/task")
    named = ((t.name, (t / "comm").read_text().strip()) for t in tasks.iterdir())
    return {task for task, name in named if name.startswith("tokamak-text")}


def test_threads_are_named_and_made_once():
    want = [TOKENIZER.encode(t) for t in TEXTS]
    assert [r.tolist() for r in TOKENIZER.encode_batch(TEXTS, threads=3)] == want
    first = crew()
    assert len(first) >= 2
    for _ in range(5):
        TOKENIZER.encode_batch(TEXTS, threads=3)
    assert crew() == first


def test_callers_at_the_same_time_each_get_their_own_rows():
    want = [TOKENIZER.encode(t) for t in TEXTS]
    rows = {}

    def call(i):
        rows[i] = [r.tolist() for r in TOKENIZER.encode_batch(TEXTS, threads=3)]

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for c in callers:
        c.start()
    for c in callers:
        c.join()
    assert all(rows[i] == want for i in range(4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forking with threads is what this is about
def test_a_child_of_a_fork_makes_its_own():
    TOKENIZER.encode_batch(TEXTS, threads=3)
    child = os.fork()
    if child == 0:
        same = [r.tolist() for r in TOKENIZER.encode_batch(TEXTS, threads=3)] == [
            TOKENIZER.encode(t) for t in TEXTS
        ]
        os._exit(0 if same and len(crew()) >= 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
