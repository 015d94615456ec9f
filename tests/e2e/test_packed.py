"""A packed file gives the same bits as its source, and is refused when it is damaged, foreign or of another layout."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import tiny
import tokamak
from tokamak import _native
from tokamak.engine.packing import optimize_layout
from tokamak.errors import InvalidParams, ModelFileError, UnsupportedError
from tokamak.executors import packing
from tokamak.executors.cpu import Cpu
from tokamak.loaders import open_checkpoint
from tokamak.loaders.packed import PREFIX

IDS = [3, 9, 27, 81, 120, 7, 33]


def logits(path, **options):
    with tokamak.load(path, context=64, threads=2, **options) as llm:
        return llm.logits(IDS)


def packed(tmp_path, arch="llama", fmt="q8_0", **more):
    source = tiny.gguf(tmp_path / "source.gguf", arch, fmt, **more)
    out = tmp_path / "packed.gguf"
    optimize_layout(source, out)
    return source, out


@pytest.fixture
def pair(tmp_path):
    return packed(tmp_path)


@pytest.mark.parametrize(
    ("arch", "fmt"),
    [
        ("llama", "q4_k"),
        ("llama", "f16"),
        ("qwen2", "q4_0"),
        ("phi3", "q8_0"),
        ("phi2", "q6_k"),
        ("mixtral", "q8_0"),
    ],
)
def test_a_packed_file_gives_the_bits_of_its_source(tmp_path, arch, fmt):
    more = {"num_experts": 4, "num_experts_per_tok": 2} if arch == "mixtral" else {}
    source, out = packed(tmp_path, "llama" if arch == "mixtral" else arch, fmt, **more)
    assert np.array_equal(logits(out), logits(source))


def test_its_weights_stay_in_the_file_and_its_text_is_the_source_s(pair):
    source, out = pair
    with tokamak.load(out, context=64) as llm, tokamak.load(source, context=64) as plain:
        memory = llm.program.memory()
        vectors = plain.program.memory()["weights"] - memory["weights_mapped"]
        assert memory["weights_mapped"] > 0
        assert memory["weights"] == memory["weights_mapped"] + vectors
        assert llm.tokenizer == plain.tokenizer
        assert llm.facts["architecture"] == plain.facts["architecture"]


def flipped(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def where(path, name):
    return next(offset for n, _, _, offset, _ in _native.GgufFile(str(path)).tensors if n == name)


@pytest.mark.parametrize(
    "tensor", ["layers.0.mlp.up_proj.weight", "layers.1.self_attn.v_proj.weight", "output_norm.weight"]
)
def test_a_changed_bit_of_a_weight_is_found_before_the_first_token(pair, tensor):
    _, out = pair
    flipped(out, where(out, tensor) + 100)
    with (
        tokamak.load(out, context=64) as llm,
        pytest.raises(ModelFileError, match="do not match their checksum"),
    ):
        llm.generate(IDS, max_tokens=1)


@pytest.mark.parametrize("tensor", [PREFIX + "sums", PREFIX + "digest"])
def test_a_changed_checksum_is_found_when_the_file_is_opened(pair, tensor):
    _, out = pair
    flipped(out, where(out, tensor))
    with pytest.raises(ModelFileError, match="digest"):
        open_checkpoint(out)


def test_a_changed_header_is_refused(pair):
    _, out = pair
    at = out.read_bytes().index(b"source_sha256") + 40
    flipped(out, at)
    with pytest.raises(ModelFileError, match="digest"):
        open_checkpoint(out)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_a_cut_file_is_refused(pair, share):
    _, out = pair
    content = out.read_bytes()
    out.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelFileError):
        open_checkpoint(out)


def test_a_file_for_another_instruction_set_is_refused(pair, monkeypatch):
    _, out = pair
    isa = next(name for name in _native.isas() if name != _native.isa())
    monkeypatch.setattr("tokamak.executors.get", lambda _: Cpu(isa))
    with pytest.raises(UnsupportedError, match=f"is packed for {_native.isa()}.*{isa}"):
        logits(out)


def test_a_file_of_another_layout_is_refused(pair, monkeypatch):
    _, out = pair
    monkeypatch.setattr(packing, "fingerprint", lambda *_: "0" * 32)
    with pytest.raises(UnsupportedError, match="layout of q8_0"):
        logits(out)


def test_the_reference_reads_sources_only(pair):
    source, out = pair
    with pytest.raises(UnsupportedError, match="only the cpu executor"):
        logits(out, executor="reference")
    with pytest.raises(UnsupportedError, match="no packed form"):
        optimize_layout(source, out, executor="reference")


def test_a_packed_file_is_no_source_and_no_source_is_overwritten(pair):
    source, out = pair
    with pytest.raises(InvalidParams, match="packed already"):
        optimize_layout(out, out.with_name("twice.gguf"))
    with pytest.raises(InvalidParams, match="another name"):
        optimize_layout(source, source)


def test_formats_have_different_fingerprints():
    names = ("q4_0", "q4_k", "q5_k", "q8_0", "f16")
    assert len({packing.fingerprint(_native.isa(), name) for name in names}) == len(names)


def test_a_process_that_ends_while_bytes_are_compared_ends_well(pair):
    _, out = pair
    code = f"import tokamak; tokamak.load({str(out)!r}, context=64)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
