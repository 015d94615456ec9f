"""Images of tokenizers: the same ids from a mapped file; anything wrong with one makes it as good as none."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from reference_data import unpacked
from tokamak import _native
from tokamak.errors import TokenizerFileError
from tokamak.tokenizers import Step, Strings, Tokenizer, TokenizerSpec, images
from tokamak.tokenizers.spec import UNKNOWN, roles_of
from vocabularies import TEXT, byte_level, sentencepiece

PIECES = ["?", "the", "th", "t", "h", "e", "##e", "##he", "a", " ", "er", "\u2581", "\u2581the", "\u2581t"]


def small(kind: str, **fields) -> TokenizerSpec:
    size = len(PIECES)
    whole = {"tokens": Strings.of(PIECES), "roles": roles_of(size, [(0, UNKNOWN)]), "unk_id": 0}
    if kind == "unigram":
        whole["scores"] = -1.0 - np.arange(size) / 8
    return TokenizerSpec(kind=kind, **whole, **fields)


BYTES = Strings.of([*(bytes([b]) for b in range(256)), b"th", b"the"])
SPECS = {
    "bpe": byte_level(),
    "spm": sentencepiece(),
    "unigram": small("unigram"),
    "wordpiece": small("wordpiece", continuing_prefix="##", pre_tokenizers=(Step.of("BertPreTokenizer"),)),
    "words": small("words", pre_tokenizers=(Step.of("Whitespace"),)),
    "trie": TokenizerSpec(kind="trie", tokens=BYTES, roles=roles_of(len(BYTES))),
    "characters": small("characters", merges=Strings.of(["t h", "th e"])),
}


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A tokenizer file that is large enough for an image, of a vocabulary that no other module holds an engine of."""
    monkeypatch.setattr(images, "SMALLEST", 1)
    Tokenizer(SPECS["trie"]).save(tmp_path / "t.json", form="spec")
    return tmp_path / "t.json"


def opened(file):
    gc.collect()  # no engine of an equal tokenizer is left
    tokenizer = Tokenizer.load(file, cache=file.parent / "cache")
    return tokenizer.encode(TEXT), tokenizer.memory_stats().mapped_nbytes > 0


def image_in(file):
    images.settle()
    (found,) = (file.parent / "cache" / "tokenizers").glob("*.tokimage")
    return found


@pytest.mark.parametrize("form", ["image", "compressed image"])
@pytest.mark.parametrize("kind", SPECS)
def test_an_image_gives_the_ids_of_its_source(kind, form, tmp_path):
    source = Tokenizer(SPECS[kind])
    expected = [source.encode(t) for t in (TEXT, "the other", "")]
    source.save(tmp_path / "i", form=form)
    digest = source.digest
    decoded = source.decode(expected[0])
    del source
    gc.collect()
    again = Tokenizer.load(tmp_path / "i")
    assert [again.encode(t) for t in (TEXT, "the other", "")] == expected
    assert (again.decode(expected[0]), again.digest, again.spec.digest()) == (decoded, digest, digest)


def test_the_second_load_maps_what_the_first_has_made(file):
    first, mapped = opened(file)
    assert not mapped
    assert opened(file) == (first, True)
    assert Tokenizer.load(file, cache=False).encode(TEXT) == first


def test_no_damage_is_served(file):
    expected, _ = opened(file)
    sound = image_in(file).read_bytes()
    for damage in (b"", sound[:20], sound[:-64], sound[:8] + b"\xff" + sound[9:]):
        image_in(file).write_bytes(damage)
        assert opened(file) == (expected, False)
        assert image_in(file).read_bytes() == sound
    for at in range(0, len(sound), len(sound) // 40):
        image_in(file).write_bytes(sound[:at] + bytes([sound[at] ^ 4]) + sound[at + 1 :])
        with pytest.raises(TokenizerFileError, match="image"):
            images.read_image(image_in(file))


def test_an_image_of_a_file_that_changed_is_made_again(file):
    opened(file)
    Tokenizer(byte_level(100)).save(file, form="spec")
    ids, mapped = opened(file)
    assert not mapped and ids == Tokenizer(byte_level(100)).encode(TEXT)
    os.utime(file, ns=(1, 1))  # touched, with the same content
    assert opened(file)[1]
    (file.parent / "tokenizer_config.json").write_text("{}")
    assert not opened(file)[1]


def test_tables_that_point_outside_are_refused():
    parts = SPECS["bpe"].parts() | {"unicode": ""}
    engine = _native.make_text_engine(parts)
    for name, table in engine.tables().items():
        for wrong in (table[:0], table[: len(table) // 2], np.full_like(table, 0xF0)):
            tables = engine.tables() | {name: np.ascontiguousarray(wrong)}
            try:
                made = _native.make_text_engine(parts, tables)
            except TokenizerFileError:
                continue
            # whatever it says, it says without leaving its tables
            made.decode_text(made.encode_list(TEXT, True, True), False, False)
    with pytest.raises(TokenizerFileError):
        _native.make_text_engine(parts, {"texts.bytes": np.zeros(64, np.uint8)})


def test_a_folder_of_images_keeps_below_its_limit(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.tokimage").write_bytes(bytes(100))
        os.utime(tmp_path / f"{i}.tokimage", ns=(i, i))
    images.prune(tmp_path, 250)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2.tokimage", "3.tokimage"]


def test_an_image_that_cannot_be_written_is_no_error(file):
    (file.parent / "cache").write_text("not a directory")
    assert opened(file) == opened(file)


def test_equal_tokenizers_share_one_engine_while_one_is_there():
    gc.collect()
    first, second = Tokenizer(byte_level(50)), Tokenizer(byte_level(50))
    assert first.engine is second.engine
    assert first.engine is not Tokenizer(byte_level(51)).engine


def test_mapped_memory_is_what_the_system_says(tmp_path):
    if unpacked() is None:
        pytest.skip("the unpacked reference data is not here")
    file = unpacked() / "tokenizers/kitoken/models/tiktoken/cl100k_base.tiktoken"
    source = Tokenizer.load(file, cache=False)
    source.save(tmp_path / "i.tokimage", form="image")
    del source
    gc.collect()
    again = Tokenizer.load(tmp_path / "i.tokimage")
    stats = again.memory_stats()
    lines = Path("/proc/self/smaps").read_text(encoding="utf-8").split("i.tokimage", 1)[1].splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("Size:"))
    assert stats.mapped_nbytes == pytest.approx(kib << 10, rel=0.05)
    assert stats.owned_nbytes < 1 << 20
