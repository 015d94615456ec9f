"""What a file says is what is read, byte for byte: every value type, tensors, split files, and writing it again."""

from __future__ import annotations

import gc
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokamak import _native
from tokamak.errors import InvalidParams, ModelFileError
from tokamak.loaders import TensorSource, Typed, open_gguf, write_gguf
from tokamak.loaders.gguf import half_split_order
from tokamak.quant import FORMATS

INTEGERS = {f"{sign}int{bits}": (sign, bits) for sign in ("", "u") for bits in (8, 16, 32, 64)}


def vector(name, n=8, fmt="f32"):
    return TensorSource(name, fmt, (n,), lambda: np.arange(n, dtype=np.float32).view(np.uint8))


def integer(name):
    sign, bits = INTEGERS[name]
    return st.integers(0, 2**bits - 1) if sign else st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def values(kind):
    if kind in INTEGERS:
        return integer(kind)
    if kind == "string":
        return st.text(st.characters(codec="utf-8"), max_size=20)
    if kind == "bool":
        return st.booleans()
    return st.floats(width=int(kind[5:]), allow_nan=False)


KINDS = [*INTEGERS, "float32", "float64", "bool", "string"]
TYPED = st.sampled_from(KINDS).flatmap(
    lambda kind: st.one_of(
        st.builds(Typed, st.just(kind), values(kind)),
        st.builds(Typed, st.just(f"array[{kind}]"), st.lists(values(kind), max_size=5)),
    )
)


@settings(max_examples=40, deadline=None)
@given(
    metadata=st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=30), TYPED, max_size=8
    )
)
def test_every_value_reads_back_with_its_type(tmp_path_factory, metadata):
    metadata.pop("general.alignment", None)
    path = tmp_path_factory.mktemp("values") / "m.gguf"
    write_gguf(path, metadata, [])
    file = _native.GgufFile(str(path))
    assert list(file.metadata) == list(metadata)
    assert file.value_types == {k: v.type for k, v in metadata.items()}
    for key, typed in metadata.items():
        got = file.metadata[key]
        if isinstance(got, _native.StringTable):
            assert [b.decode() for b in got.tolist()] == typed.value
        elif isinstance(got, np.ndarray):
            assert got.dtype.name == typed.type[6:-1]
            assert got.tolist() == typed.value
        else:
            assert got == typed.value
            assert type(got) is type(typed.value)


def test_writing_what_was_read_gives_the_same_bytes(tiny_gguf, tmp_path):
    for arch, fmt in (("llama", "q8_0"), ("phi2", "f16"), ("bitnet", "tq2_0")):
        path = tiny_gguf(arch, fmt)
        model = open_gguf(path)
        types = model.parts[0].value_types
        metadata = {k: Typed(types[k], v) for k, v in model.metadata.items()}
        tensors = [TensorSource(t.name, t.format, t.shape, t.data) for t in model.tensors.values()]
        write_gguf(tmp_path / "again.gguf", metadata, tensors)
        assert (tmp_path / "again.gguf").read_bytes() == path.read_bytes()


def test_gguf_py_reads_what_was_written(tiny_gguf):
    gguf = pytest.importorskip("gguf")
    path = tiny_gguf("qwen3", "q4_0")
    theirs, ours = gguf.GGUFReader(path), open_gguf(path)
    assert [t.name for t in theirs.tensors] == list(ours.tensors)
    for tensor in theirs.tensors:
        mine = ours.tensors[tensor.name]
        assert tensor.tensor_type.name.lower() == mine.format
        assert tuple(int(n) for n in reversed(tensor.shape)) == mine.shape
        assert tensor.data.tobytes() == mine.data().tobytes()
    for key, value in ours.metadata.items():
        if isinstance(value, (int, str, bool)):
            assert theirs.fields[key].contents() == value


def test_names_and_sizes_of_types_are_those_of_the_codecs():
    for type_id, name, block_size, type_size in _native.gguf_tensor_types():
        assert FORMATS[name].type_id == type_id
        if block_size:
            assert (FORMATS[name].block_size, FORMATS[name].type_size) == (block_size, type_size)
    assert len(_native.gguf_tensor_types()) == 43


@pytest.mark.parametrize("alignment", [1, 8, 64, 4096])
def test_alignment_of_the_file_is_followed(tmp_path, alignment):
    tensors = [vector("a", 3), vector("b", 5)]
    write_gguf(tmp_path / "m.gguf", {"x": 1}, tensors, alignment=alignment)
    file = _native.GgufFile(str(tmp_path / "m.gguf"))
    assert file.alignment == alignment
    assert all(offset % alignment == 0 for _, _, _, offset, _ in file.tensors)
    assert file.data("b").view(np.float32).tolist() == [0, 1, 2, 3, 4]


def test_views_are_read_only_and_outlive_the_file_object(tmp_path):
    write_gguf(tmp_path / "m.gguf", {}, [vector("a", 1024)])
    file = _native.GgufFile(str(tmp_path / "m.gguf"))
    data = file.data("a")
    del file
    gc.collect()
    assert data.view(np.float32)[1023] == 1023
    with pytest.raises(ValueError, match="read-only"):
        data[0] = 1


def test_a_released_tensor_reads_the_same_again(tmp_path):
    write_gguf(tmp_path / "m.gguf", {}, [vector(name, 4096) for name in "abc"])
    file = _native.GgufFile(str(tmp_path / "m.gguf"), prefault=True)
    before = file.data("b").copy()
    file.release("b")
    assert (file.data("b") == before).all()
    file.prefault("b")
    with pytest.raises(ModelFileError, match='no tensor "d"'):
        file.release("d")


def test_bytes_in_memory_read_as_the_file_does(tiny_model):
    file = _native.GgufFile.from_bytes(tiny_model.read_bytes())
    mapped = _native.GgufFile(str(tiny_model))
    assert file.tensors == mapped.tensors
    assert all((file.data(t[0]) == mapped.data(t[0])).all() for t in file.tensors)


def test_a_string_table_is_a_sequence_of_bytes_that_pickles_and_compares():
    table = _native.StringTable([b"a", b"", b"\xff\x00c"])
    assert (len(table), table[0], table[-1], list(table)) == (
        3,
        b"a",
        b"\xff\x00c",
        [b"a", b"", b"\xff\x00c"],
    )
    assert table.offsets.tolist() == [0, 1, 1, 4]
    assert table.blob.tobytes() == b"a\xff\x00c"
    assert pickle.loads(pickle.dumps(table)) == table
    assert table != _native.StringTable([b"a"])
    for index in (3, -4):
        with pytest.raises(IndexError):
            table[index]


def split(tmp_path, counts=(2, 2, 2), numbers=(0, 1, 2), total=3, names=("a", "b", "c")):
    for i, name in enumerate(names):
        metadata = {
            "split.no": Typed("uint16", numbers[i]),
            "split.count": Typed("uint16", len(names) if counts is None else counts[i]),
            "split.tensors.count": Typed("int32", total),
        }
        write_gguf(tmp_path / f"m-{i + 1:05}-of-{len(names):05}.gguf", metadata, [vector(name, i + 1)])
    return tmp_path / f"m-00001-of-{len(names):05}.gguf"


def test_a_split_file_is_one_model_whichever_part_is_named(tmp_path):
    split(tmp_path, counts=None)
    for part in (1, 2, 3):
        model = open_gguf(tmp_path / f"m-0000{part}-of-00003.gguf")
        assert {name: t.shape for name, t in model.tensors.items()} == {"a": (1,), "b": (2,), "c": (3,)}
        assert model.tensors["c"].data().view(np.float32).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"numbers": (0, 2, 1)}, "does not say that it is part 2 of 3"),
        ({"total": 4}, "hold 3 tensors, key split.tensors.count says 4"),
        ({"names": ("a", "b", "a")}, "tensor 'a' is in two parts"),
        ({"counts": (3, 3, 2)}, "does not say that it is part 3 of 3"),
        ({"counts": (4, 3, 3)}, "its name does not end in -00001-of-00004.gguf"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(tmp_path, change, message):
    with pytest.raises(ModelFileError, match=message):
        open_gguf(split(tmp_path, **{"counts": None, **change}))


def test_a_missing_part_is_named(tmp_path):
    path = split(tmp_path, counts=None)
    (tmp_path / "m-00003-of-00003.gguf").unlink()
    with pytest.raises(ModelFileError, match=r"m-00003-of-00003\.gguf: cannot be opened: No such file"):
        open_gguf(path)


@pytest.mark.parametrize(
    ("metadata", "tensors"),
    [
        ({"k": Typed("uint8", 256)}, []),
        ({"k": Typed("array[int8]", [1, 200])}, []),
        ({"k": [1, "a"]}, []),
        ({"k": object()}, []),
        ({"k": Typed("uint33", 1)}, []),
        ({}, [vector("a"), vector("a")]),
        ({}, [vector("n" * 65)]),
        ({}, [TensorSource("a", "f32", (0,), lambda: np.empty(0, np.uint8))]),
        ({}, [TensorSource("a", "f32", (4,), lambda: np.empty(15, np.uint8))]),
        ({}, [TensorSource("a", "q8_0", (33,), lambda: np.empty(34, np.uint8))]),
    ],
)
def test_what_the_format_cannot_hold_is_not_written(tmp_path, metadata, tensors):
    with pytest.raises(InvalidParams):
        write_gguf(tmp_path / "m.gguf", metadata, tensors)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("head_dim", "rotary"), [(4, 4), (8, 8), (8, 4), (6, 2)])
def test_half_split_order_undoes_the_pairing_of_the_converter(head_dim, rotary):
    """The converter turns rows [half, column] of each head into [column, half]."""
    half_split = np.arange(3 * head_dim).reshape(3, head_dim)
    paired = half_split.copy()
    turned = half_split[:, :rotary].reshape(3, 2, rotary // 2).swapaxes(1, 2)
    paired[:, :rotary] = turned.reshape(3, rotary)
    order = half_split_order(3 * head_dim, head_dim, rotary)
    assert (paired.reshape(-1)[order] == half_split.reshape(-1)).all()
