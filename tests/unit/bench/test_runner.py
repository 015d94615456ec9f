"""A C++ engine in its own process answers as its pipe says, and one that is not there is no peer."""

from __future__ import annotations

import importlib
import json
import shutil
import stat
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tokamak.bench import runner
from tokamak.bench.peers import LlamaCpp, open_peer
from tokamak.cli.main import main
from tokamak.engine.loading import default_model
from tokamak.errors import UnavailableError, UnsupportedError

# Answers as reference_runner.cpp does, of a model with three tokens whose logits are ids and positions.
SPEAKER = """#!/usr/bin/env python3
import struct, sys
a, b = sys.stdin.buffer, sys.stdout.buffer
print("error no such file" if "missing" in sys.argv[1] else "ready 3 1", flush=True)
while line := a.readline().split():
    count = int(line[1])
    body = a.read(count if line[0] == b"tokens" else 4 * count)
    if line[0] == b"tokens":
        b.write(b"ok %d\\n" % count + struct.pack("<%di" % count, *body))
    elif line[0] == b"seconds":
        b.write(b"ok 0.5 0.25\\n")
    elif line[0] == b"nodes":
        b.write(b"node 7 %d 1\\nl_out-0" % count + struct.pack("<%df" % count, *range(count)) + b"end\\n")
    elif count > 4:
        b.write(b"error 5 tokens are more than the context\\n")
    else:
        ids = struct.unpack("<%di" % count, body)
        b.write(b"ok %d 3\\n" % count + b"".join(struct.pack("<3f", i, n, 0) for n, i in enumerate(ids)))
    b.flush()
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "speaker"
    path.write_text(SPEAKER)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_answers_are_read_as_they_are_written(program):
    with closing(open_peer("bitnet.cpp", "x.gguf", context=4, threads=1, runner=program)) as peer:
        assert "only an f16 cache" in peer.version
        assert peer.tokens("\u00e9!") == [0xC3, 0xA9, 0x21]
        assert peer.logits([2, 0]).tolist() == [[2, 0, 0], [0, 1, 0]]
        ((name, value),) = peer.nodes([1, 2])
        assert (name, value.tolist()) == ("l_out-0", [[0], [1]])
        assert peer.seconds([1], 2) == (0.5, 0.25)
        with pytest.raises(UnsupportedError, match="more than the context"):
            peer.logits([0] * 5)
        assert peer.logits([1]).shape == (1, 3)


def test_a_model_that_it_does_not_load_is_unsupported(program):
    with pytest.raises(UnsupportedError, match="no such file"):
        runner.Runner("bitnet.cpp", program, "missing.gguf", context=4, threads=1)


def test_a_program_that_ends_is_unsupported(tmp_path):
    with pytest.raises(UnsupportedError, match="ended with 1"):
        runner.Runner("bitnet.cpp", Path(shutil.which("false")), "x", context=4, threads=1)
    with pytest.raises(UnavailableError, match="cannot be run"):
        runner.Runner("bitnet.cpp", tmp_path / "none", "x", context=4, threads=1)


def test_without_a_tree_there_is_no_peer_and_no_pass(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TOKAMAK_CACHE_DIR", str(tmp_path))
    assert main(["crosscheck", "--against", "bitnet.cpp", "--json", "--quiet"]) == 4
    report = json.loads(capsys.readouterr().out)
    assert (report["status"], report["logits"]) == ("native_only", None)
    assert runner.PINS["bitnet.cpp"].commit in report["reason"]
    with pytest.raises(UnavailableError, match="holds no libllama"):
        runner.compiled(tmp_path, tmp_path)


def test_a_pin_that_cannot_be_fetched_is_unavailable(tmp_path, monkeypatch):
    pin = runner.Pin(str(tmp_path / "nowhere"), "0" * 40)
    monkeypatch.setitem(runner.PINS, "bitnet.cpp", pin)
    said = []
    with pytest.raises(UnavailableError, match="git clone"):
        runner.build("bitnet.cpp", tmp_path, say=said.append)
    assert "nowhere" in said[0]
    with pytest.raises(UnavailableError, match="not pinned"):
        runner.build("llama.cpp", tmp_path)


def test_the_runner_of_an_installed_llama_cpp_gives_its_values(tmp_path):
    """Compiled against headers of today; those of 2024 are bitnet.cpp's."""
    llama_cpp = pytest.importorskip("llama_cpp")
    site = Path(llama_cpp.__file__).parents[1]
    if not (site / "include" / "llama.h").is_file() or shutil.which("c++") is None:
        pytest.skip("llama_cpp was installed without headers, or there is no compiler")
    tree = tmp_path / "tree"
    shutil.copytree(site / "include", tree / "include")
    shutil.copytree(Path(llama_cpp.__file__).parent / "lib", tree / "lib", symlinks=True)
    program, ids = runner.compiled(tree, tmp_path / "cache"), [1, 2, 3, 4]
    assert runner.compiled(tree, tmp_path / "cache") == program
    form = {"context": 64, "threads": 1}
    with (
        closing(runner.Runner("llama.cpp", program, default_model(), **form)) as apart,
        closing(LlamaCpp(default_model(), **form)) as here,
    ):
        assert apart.tokens("Once upon") == here.tokens("Once upon")
        assert np.array_equal(apart.logits(ids), here.logits(ids))
        theirs, ours = apart.nodes(ids), here.nodes(ids)
        assert [name for name, _ in theirs] == [name for name, _ in ours]
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(theirs, ours, strict=True))
        assert min(apart.seconds(ids, 2)) > 0


def test_the_source_of_the_runner_is_installed():
    package = Path(importlib.import_module("tokamak.bench").__file__).parent
    assert (package / "reference_runner.cpp").is_file()
