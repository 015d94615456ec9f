"""Importance matrices: what is written reads back, older files read alike, broken ones are refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tokamak.errors import InvalidParams, ModelFileError
from tokamak.loaders import TensorSource, write_gguf
from tokamak.loaders.imatrix import Importance, open_imatrix, write_imatrix

NAME = "blk.0.ffn_down.weight"


def dat(entries, *tail):
    parts = [struct.pack("<i", len(entries))]
    for name, calls, values in entries:
        parts.append(struct.pack("<i", len(name)) + name.encode())
        parts.append(struct.pack(f"<ii{len(values)}f", calls, len(values), *values))
    return b"".join(parts) + b"".join(tail)


def test_what_is_written_reads_back(tmp_path):
    sums = {NAME: np.arange(8, dtype=np.float32).reshape(2, 4), "b.weight": np.ones((1, 3), np.float32)}
    counts = {NAME: np.array([2, 4], np.float32), "b.weight": np.array([5], np.float32)}
    write_imatrix(tmp_path / "i.gguf", Importance("x", sums, counts, ("a.txt",), 3, 512))
    read = open_imatrix(tmp_path / "i.gguf")
    assert read.sums.keys() == sums.keys()
    assert all(
        np.array_equal(read.sums[n], sums[n]) and np.array_equal(read.counts[n], counts[n]) for n in sums
    )
    assert (read.datasets, read.num_chunks, read.chunk_size) == (("a.txt",), 3, 512)


def test_means_are_sums_over_counts_and_ones_where_nothing_was_counted(tmp_path):
    sums = np.array([[2, 4], [0, 0]], np.float32)
    matrix = Importance("x", {NAME: sums}, {NAME: np.array([2, 0], np.float32)})
    assert matrix.of(NAME, 2, 2).tolist() == [[1, 2], [1, 1]]
    assert matrix.of("other", 1, 2) is None
    with pytest.raises(InvalidParams, match="2 x 2, the tensor needs 1 x 3"):
        matrix.of(NAME, 1, 3)


def test_a_dat_file_holds_means_times_calls(tmp_path):
    path = tmp_path / "i.dat"
    path.write_bytes(dat([(NAME, 4, (4.0, 8.0))], struct.pack("<ii", 7, 3), b"txt"))
    read = open_imatrix(path)
    assert read.of(NAME, 1, 2).tolist() == [[1, 2]]
    assert read.of(NAME, 2, 1).tolist() == [[1], [2]]
    assert (read.datasets, read.num_chunks) == (("txt",), 7)
    path.write_bytes(dat([(NAME, 4, (4.0, 8.0))]))  # the oldest ones end after the entries
    assert open_imatrix(path).num_chunks == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        struct.pack("<i", -1),
        struct.pack("<i", 2**30),
        dat([(NAME, 1, (1.0,))])[:-2],
        dat([(NAME, 1, (float("nan"),))]),
        dat([(NAME, 1, (-1.0,))]),
        dat([("", 1, (1.0,))]),
        dat([(NAME, 1, ())]),
        struct.pack("<iii", 1, 4, 0) + struct.pack("<ii", 1, 2**31 - 1),
    ],
    ids=["empty", "gguf", "negative", "many", "short", "nan", "minus", "nameless", "valueless", "long"],
)
def test_broken_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "broken.dat"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"broken\.dat"):
        open_imatrix(path)


def source(name, array):
    return TensorSource(name, "f32", array.shape, lambda: array.reshape(-1).view(np.uint8))


@pytest.mark.parametrize(
    ("kind", "tensors", "message"),
    [
        ("model", [], "'model', expected 'imatrix'"),
        ("imatrix", [source("a.weight", np.ones((1, 2), np.float32))], "no sum or count"),
        ("imatrix", [source("a.weight.in_sum2", np.ones((1, 2), np.float32))], "counts is missing"),
    ],
)
def test_another_gguf_is_no_importance_matrix(tmp_path, kind, tensors, message):
    write_gguf(tmp_path / "m.gguf", {"general.type": kind}, tensors)
    with pytest.raises(ModelFileError, match=message):
        open_imatrix(tmp_path / "m.gguf")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelFileError, match="cannot be read"):
        open_imatrix(tmp_path / "none.gguf")
