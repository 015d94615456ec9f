"""Packed files that `load` keeps: same bits, made once, made anew when the source or the kernels change."""

from __future__ import annotations

import os

import numpy as np
import pytest

import tiny
import tokamak
from tokamak.engine import kept

IDS = [3, 9, 27, 81, 120]


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKAMAK_CACHE_DIR", str(tmp_path / "cache"))
    return tiny.gguf(tmp_path / "source.gguf", "llama", "q4_k")


def files(tmp_path):
    return sorted((tmp_path / "cache" / kept.FOLDER).glob("*"))


def logits(path, **options):
    with tokamak.load(path, context=64, threads=2, **options) as llm:
        return llm.logits(IDS), llm.program.memory()["weights_mapped"], llm.facts


def test_nothing_is_written_unasked(source, tmp_path):
    logits(source)
    assert files(tmp_path) == []


def test_the_first_load_writes_and_the_second_maps_the_same_bits(source, tmp_path):
    plain, _, facts = logits(source)
    first, mapped, _ = logits(source, keep_packed=True)
    (file,) = files(tmp_path)
    made = file.stat().st_ino
    second, _, again = logits(source, keep_packed=True)
    assert mapped > 0
    assert np.array_equal(first, plain)
    assert np.array_equal(second, plain)
    assert files(tmp_path) == [file]
    assert file.stat().st_ino == made
    assert again["path"] == facts["path"] == str(source)


def test_a_changed_source_gets_a_new_file_and_the_old_one_goes(source, tmp_path):
    logits(source, keep_packed=True)
    old = files(tmp_path)
    facts = source.stat()
    os.utime(source, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1_000_000_000))
    logits(source, keep_packed=True)
    new = files(tmp_path)
    assert len(new) == 1
    assert new != old


def test_a_broken_file_is_made_again(source, tmp_path):
    plain, _, _ = logits(source)
    logits(source, keep_packed=True)
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:1000])
    assert np.array_equal(logits(source, keep_packed=True)[0], plain)
    assert file.stat().st_size > 1000


def test_a_file_of_other_kernels_is_made_again(source, tmp_path, monkeypatch):
    logits(source, keep_packed=True)
    (file,) = files(tmp_path)
    made = file.stat().st_ino
    refusals = []

    def refuse_once(form, name, isa):
        if not refusals:
            refusals.append(name)
            raise tokamak.UnsupportedError("another layout")

    monkeypatch.setattr(kept, "check_layout", refuse_once)
    logits(source, keep_packed=True)
    assert refusals
    assert files(tmp_path) == [file]
    assert file.stat().st_ino != made


@pytest.mark.parametrize("reason", ["executor", "split", "disk"])
def test_what_cannot_be_kept_is_loaded_with_a_note(source, tmp_path, monkeypatch, reason):
    options = {"executor": "reference"} if reason == "executor" else {}
    if reason == "split":
        source = source.rename(tmp_path / "source-00001-of-00001.gguf")
    if reason == "disk":
        monkeypatch.setattr(kept, "FREE", 1 << 60)
    with tokamak.load(source, context=64, keep_packed=True, **options) as llm:
        assert any("not kept" in note for note in llm.facts["notes"])
        assert len(llm.generate("a", max_tokens=2).token_ids) > 0
    assert files(tmp_path) == []
