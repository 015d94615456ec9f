"""A stranger's GGUF file is refused with a typed error that says what and where: no crash, no large allocation."""

from __future__ import annotations

import random
import resource
import struct

import pytest

import tiny
from graphs import batch
from hostile.gguf_attacks import ATTACKS, A, File, array, number, tensor
from tokamak import _native, executors, models
from tokamak.errors import ModelFileError, TokamakError, UnsupportedError
from tokamak.loaders import open_checkpoint
from tokamak.types import Limits

# Header tables are limited to some ten megabytes; pytest itself grows by a few.
MEMORY = 64 << 20


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture
def small(tmp_path):
    """A whole model of 30 kB."""
    return tiny.gguf(
        tmp_path / "small.gguf",
        fmt="f16",
        hidden_size=8,
        intermediate_size=8,
        head_dim=2,
        num_hidden_layers=1,
    )


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_attack_is_stopped(attack):
    before = peak()
    with pytest.raises(attack.error, match=attack.message):
        _native.GgufFile.from_bytes(attack.build())
    assert peak() - before < MEMORY, attack.stopped_by


def test_the_builder_itself_makes_sound_files():
    file = File([number(A), array(b"b", 4, 1, b"\1\0\0\0")], [tensor(A, (8,), 0), tensor(b"b", (8,), 32)], 64)
    parsed = _native.GgufFile.from_bytes(file.build())
    assert parsed.metadata["a"] == 1
    assert [t[0] for t in parsed.tensors] == ["a", "b"]


def test_a_file_cut_at_any_byte_is_refused(small):
    whole = small.read_bytes()
    header = _native.GgufFile.from_bytes(whole).data_offset
    last = max(offset + nbytes for *_, offset, nbytes in _native.GgufFile.from_bytes(whole).tensors)
    for length in [*range(header + 64), *range(header + 64, last, 97), last - 1]:
        with pytest.raises(ModelFileError):
            _native.GgufFile.from_bytes(whole[:length])


def test_an_empty_file_and_a_folder_and_a_pipe_are_refused(tmp_path):
    (tmp_path / "empty.gguf").write_bytes(b"")
    with pytest.raises(ModelFileError, match="is empty"):
        _native.GgufFile(str(tmp_path / "empty.gguf"))
    with pytest.raises(ModelFileError, match="not a regular file"):
        _native.GgufFile(str(tmp_path))
    with pytest.raises(ModelFileError, match="not a regular file"):
        _native.GgufFile("/dev/null")


def test_many_tensors_take_no_more_than_a_small_multiple_of_the_file():
    tensors = [tensor(b"%06d" % i, (8,), 32 * i) for i in range(100_000)]
    content = File([], tensors, 32 * len(tensors)).build()
    before = peak()
    assert len(_native.GgufFile.from_bytes(content).tensors) == len(tensors)
    assert peak() - before < 16 * len(content)


WRONG_VALUES = [
    ("block_count", "3"),
    ("block_count", 0),
    ("block_count", 2**31 - 1),
    ("block_count", True),
    ("embedding_length", 3.5),
    ("embedding_length", 2**31 - 1),
    ("attention.head_count", 0),
    ("attention.head_count", 3),
    ("attention.head_count_kv", 3),
    ("attention.key_length", 7),
    ("attention.layer_norm_rms_epsilon", float("nan")),
    ("attention.layer_norm_rms_epsilon", -1.0),
    ("rope.freq_base", 0.0),
    ("rope.freq_base", float("inf")),
    ("rope.dimension_count", 3),
    ("rope.dimension_count", 2**20),
    ("context_length", 0),
    ("context_length", [1, 2]),
    ("feed_forward_length", None),
    ("attention.layer_norm_rms_epsilon", None),
    ("rope.scaling.type", 4),
    ("rope.scaling.type", "longrope"),
]


@pytest.mark.parametrize(("key", "value"), WRONG_VALUES, ids=repr)
def test_a_key_of_the_wrong_type_or_size_is_named(tmp_path, key, value):
    path = tiny.gguf(tmp_path / "m.gguf", fmt="f16", keys={key: value})
    with pytest.raises((ModelFileError, UnsupportedError), match=r"m\.gguf: .*(key|tensor|rope scaling)"):
        open_checkpoint(path)


UNSUPPORTED = [
    ({"keys": {"expert_count": [8]}}, r"llama\.expert_count is array"),
    ({"arch": "qwen2", "keys": {"expert_count": 8}}, r"qwen2\.expert_count is 8"),
    ({"keys": {"attention.clamp_kqv": 8.0}}, r"llama\.attention\.clamp_kqv may change"),
    ({"keys": {"logit_scale": 0.5, "residual_scale": 2.0}}, r"llama\.logit_scale, llama\.residual_scale"),
    ({"keys": {"attention.value_length": 8}}, r"attention\.value_length is 8"),
    ({"keys": {"attention.causal": False}}, r"attention\.causal is False"),
    ({"keys": {"attention.head_count": [4, 2]}}, "differs between layers"),
    ({"keys": {"rope.scaling.type": "dynamic"}}, "known: none, linear, yarn, longrope"),
    ({"arch": "qwen2", "keys": {"attention.sliding_window": 8}}, r"qwen2\.attention\.sliding_window"),
    ({"metadata": {"general.architecture": "xyz"}}, "architecture 'xyz' is not implemented; known: "),
    ({"metadata": {"general.type": "adapter"}}, "general.type is 'adapter'"),
    ({"keys": {"block_count": 1}}, r"tensors blk\.1\.attn_norm\.weight, .* and 5 more are not used"),
]


@pytest.mark.parametrize(("change", "message"), UNSUPPORTED, ids=lambda v: str(v)[:40])
def test_what_is_not_implemented_is_named_and_not_run(tmp_path, change, message):
    with pytest.raises(UnsupportedError, match=message):
        open_checkpoint(tiny.gguf(tmp_path / "m.gguf", **{"fmt": "f16", **change}))


@pytest.mark.parametrize("value", [1.0, 7, True, [1.0]], ids=repr)
@pytest.mark.parametrize(
    "key", ["tokenizer.ggml.tokens", "general.architecture", "general.type", "split.count"]
)
def test_other_keys_of_the_wrong_type_are_refused(tmp_path, key, value):
    path = tiny.gguf(tmp_path / "m.gguf", fmt="f16", metadata={key: value})
    with pytest.raises(TokamakError, match=r"m\.gguf: .*(key|is one of 7 parts)"):
        open_checkpoint(path)


def mutations(source: bytes, count: int, seed: int):
    """`source` with 1 to 64 bytes of its first 20000 changed, or a length or count made large."""
    rnd = random.Random(seed)
    head = min(len(source), 20_000)
    for _ in range(count):
        broken = bytearray(source)
        if rnd.random() < 0.3:
            at = rnd.randrange(4, head - 8)
            broken[at : at + 8] = struct.pack("<Q", rnd.choice([2**63, 2**64 - 1, 2**32, 10**9, 0, 2**31]))
        for _ in range(rnd.choice([1, 2, 8, 64])):
            broken[rnd.randrange(head)] = rnd.randrange(256)
        yield bytes(broken)


def refusal(run, *args) -> str | None:
    """The message of the typed error of `run`, None if it ran; any other exception is a failure of the test."""
    try:
        run(*args)
    except TokamakError as error:
        return str(error)
    return None


def read_all(content: bytes) -> None:
    file = _native.GgufFile.from_bytes(content)
    for name, *_ in file.tensors:
        file.data(name)[-1].item()


def run_model(path) -> None:
    """Loading, building the graph and computing logits, as a user would."""
    model = open_checkpoint(path)
    graph = models.build(model.architecture, model.config, model.weights, context=64)
    program = executors.get("reference").compile(graph, model.weights, Limits(num_blocks=2))
    program.run(batch(([0, 1], [1, 2, 3], 3), block=32))


def test_random_damage_is_read_or_refused(small):
    outcomes = [refusal(read_all, content) for content in mutations(small.read_bytes(), 3000, seed=5)]
    assert 500 < sum(message is not None for message in outcomes) < 3000


def test_a_damaged_model_runs_or_is_refused(small, tmp_path):
    path, outcomes = tmp_path / "broken.gguf", []
    for content in mutations(small.read_bytes(), 150, seed=7):
        path.write_bytes(content)
        outcomes.append(refusal(run_model, path))
    assert None in outcomes
    assert all(message is None or "broken.gguf" in message for message in outcomes)
