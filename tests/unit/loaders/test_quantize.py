"""`tokamak.quantize`: recipes, overrides, what stays, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tokamak
from tokamak.cli import main as cli
from tokamak.errors import InvalidParams
from tokamak.loaders import open_gguf
from tokamak.loaders.imatrix import Importance, write_imatrix
from tokamak.quant import FORMATS
from tokamak.quant.error import rmse
from tokamak.quant.recipes import Model, recipe


@pytest.fixture(scope="module")
def exact(tiny_gguf):
    """f32, rows of 256 and 512, two layers."""
    return tiny_gguf("llama", "f32", hidden_size=256, intermediate_size=512, head_dim=64)


def formats(path):
    return {name: info.format for name, info in open_gguf(path).tensors.items()}


def values(path, name):
    info = open_gguf(path).tensors[name]
    return FORMATS[info.format].decode(info.data().reshape(info.shape[0], -1))


def importance(path, model):
    rng = np.random.default_rng(0)
    sums = {
        n: np.exp(rng.standard_normal((1, t.shape[-1]))).astype(np.float32)
        for n, t in open_gguf(model).tensors.items()
        if n.startswith("blk") and len(t.shape) == 2
    }
    counts = dict.fromkeys(sums, np.ones(1, np.float32))
    write_imatrix(path, Importance("made", sums, counts, ("words.txt",), 12, 512))
    return sums


@pytest.mark.parametrize("to", ["q4_k_m", "Q8_0", "iq4_xs", "q2_k", "f16", "tq2_0"])
def test_every_tensor_gets_the_format_of_the_recipe_and_the_file_runs(exact, tmp_path, to):
    plan = tokamak.quantize(exact, tmp_path / "o.gguf", to, threads=2)
    model = Model(num_layers=2, gqa=2)
    for info in open_gguf(exact).tensors.values():
        expected = recipe(to).format_for(info.name, info.shape, model) or "f32"
        assert formats(tmp_path / "o.gguf")[info.name] == expected
    assert {t.name: t.target for t in plan.tensors} == formats(tmp_path / "o.gguf")
    assert plan.nbytes == sum(t.nbytes for t in open_gguf(tmp_path / "o.gguf").tensors.values())
    with tokamak.load(tmp_path / "o.gguf", threads=1, context=64, executor="reference") as llm:
        assert len(llm.generate("Once", max_tokens=2).token_ids) <= 2


def test_bytes_are_those_of_the_codec(exact, tmp_path):
    tokamak.quantize(exact, tmp_path / "o.gguf", "q4_k_m", threads=2)
    name = "blk.1.ffn_up.weight"
    rows = open_gguf(tmp_path / "o.gguf").tensors[name].data()
    assert np.array_equal(rows, FORMATS["q4_k"].encode(values(exact, name)).reshape(-1))


def test_metadata_stay_with_their_types_and_say_what_was_done(exact, tmp_path):
    importance(tmp_path / "i.gguf", exact)
    tokamak.quantize(exact, tmp_path / "o.gguf", "q5_k_m", imatrix=tmp_path / "i.gguf")
    old, new = open_gguf(exact).parts[0], open_gguf(tmp_path / "o.gguf").parts[0]
    for key, kind in old.value_types.items():
        if key not in ("general.file_type", "general.quantization_version"):
            assert new.value_types[key] == kind
            assert (
                np.array_equal(new.metadata[key], old.metadata[key]) or new.metadata[key] == old.metadata[key]
            )
    assert new.metadata["general.file_type"] == 17
    assert new.metadata["general.quantization_version"] == 2
    assert new.metadata["quantize.imatrix.file"] == str(tmp_path / "i.gguf")
    assert new.metadata["quantize.imatrix.dataset"] == "words.txt"
    assert (
        new.metadata["quantize.imatrix.entries_count"],
        new.metadata["quantize.imatrix.chunks_count"],
    ) == (
        14,
        12,
    )


def test_an_importance_matrix_lowers_the_error_that_counts(exact, tmp_path):
    sums, name = importance(tmp_path / "i.gguf", exact), "blk.0.ffn_up.weight"
    tokamak.quantize(exact, tmp_path / "a.gguf", "q4_k_m")
    tokamak.quantize(exact, tmp_path / "b.gguf", "q4_k_m", imatrix=tmp_path / "i.gguf")
    x, w = values(exact, name), sums[name][0]
    without, given = (rmse(x, values(tmp_path / f, name), w) for f in ("a.gguf", "b.gguf"))
    assert given < 0.98 * without


def test_overrides_win_over_the_mix_and_the_first_wins(exact, tmp_path):
    tokamak.quantize(
        exact,
        tmp_path / "o.gguf",
        "q4_k_m",
        tensor_types=[(r"blk\.0\.ffn_down", "q8_0"), ("ffn_down", "iq4_nl"), ("norm", "q8_0")],
        output_type="f16",
        token_embedding_type="bf16",
    )
    found = formats(tmp_path / "o.gguf")
    assert found["blk.0.ffn_down.weight"] == "q8_0"
    assert found["blk.1.ffn_down.weight"] == "iq4_nl"
    assert found["blk.0.ffn_norm.weight"] == "f32"
    assert (found["output.weight"], found["token_embd.weight"]) == ("f16", "bf16")


def test_pure_means_one_format(exact, tmp_path):
    plan = tokamak.quantize(exact, tmp_path / "o.gguf", "q4_k_m", pure=True, dry_run=True)
    assert {t.target for t in plan.tensors} == {"q4_k", "f32"}


def test_a_dry_run_writes_nothing(exact, tmp_path):
    tokamak.quantize(exact, tmp_path / "o.gguf", "q4_k_m", dry_run=True)
    assert not list(tmp_path.iterdir())


def test_quantising_again_must_be_allowed(exact, tmp_path):
    tokamak.quantize(exact, tmp_path / "a.gguf", "q8_0")
    with pytest.raises(InvalidParams, match="is q8_0 already"):
        tokamak.quantize(tmp_path / "a.gguf", tmp_path / "b.gguf", "q4_k_m")
    tokamak.quantize(tmp_path / "a.gguf", tmp_path / "b.gguf", "q4_k_m", allow_requantize=True)
    assert formats(tmp_path / "b.gguf")["blk.0.ffn_up.weight"] == "q4_k"


def test_experts_are_quantised_one_by_one_with_their_own_importance(tiny_gguf, tmp_path):
    model = tiny_gguf("qwen3moe", "f32", hidden_size=256, intermediate_size=256, head_dim=64)
    name = "blk.0.ffn_up_exps.weight"
    info = open_gguf(model).tensors[name]
    w = np.exp(np.random.default_rng(1).standard_normal((4, 256))).astype(np.float32)
    write_imatrix(tmp_path / "i.gguf", Importance("", {name: w}, {name: np.ones(4, np.float32)}))
    tokamak.quantize(model, tmp_path / "o.gguf", "q4_k_s", imatrix=tmp_path / "i.gguf")
    x = info.data().view(np.float32).reshape(info.shape)
    rows = open_gguf(tmp_path / "o.gguf").tensors[name].data().reshape(4, info.shape[1], -1)
    for i in range(4):
        assert np.array_equal(rows[i], FORMATS["q4_k"].encode(x[i], w[i]))


def test_a_failure_leaves_no_file(tiny_gguf, tmp_path):
    model = tiny_gguf("llama", "f16", hidden_size=256, intermediate_size=512, head_dim=64)
    broken = bytearray(model.read_bytes())
    info = open_gguf(model).tensors["blk.1.ffn_up.weight"]
    broken[info.offset + 512 : info.offset + 514] = b"\x00\x7c"  # infinity in row 1
    (tmp_path / "m.gguf").write_bytes(broken)
    with pytest.raises(InvalidParams, match=r"tensor blk\.1\.ffn_up\.weight: .*row 1 .*not finite"):
        tokamak.quantize(tmp_path / "m.gguf", tmp_path / "o.gguf", "q4_k_m")
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "q9_z"}, "no quantisation recipe"),
        ({"tensor_types": [("(", "q8_0")]}, "no regular expression"),
        ({"tensor_types": [("x", "q9")]}, "no weight format"),
        ({"output_type": "tl1"}, "no weight format that can be written"),
    ],
)
def test_wrong_arguments_are_refused(exact, tmp_path, options, message):
    with pytest.raises(InvalidParams, match=message):
        tokamak.quantize(exact, tmp_path / "o.gguf", **options)


def test_the_file_that_is_read_is_not_written(exact):
    with pytest.raises(InvalidParams, match="is what is read"):
        tokamak.quantize(exact, exact, "q4_k_m")


def test_an_importance_matrix_of_another_model_is_refused(exact, tmp_path):
    matrix = Importance("", {"x": np.ones((1, 2), np.float32)}, {"x": np.ones(1, np.float32)})
    write_imatrix(tmp_path / "i.gguf", matrix)
    with pytest.raises(InvalidParams, match="names no tensor"):
        tokamak.quantize(exact, tmp_path / "o.gguf", imatrix=tmp_path / "i.gguf")


def test_the_verb_prints_the_plan(exact, tmp_path, capsys):
    words = [
        "quantize",
        str(exact),
        str(tmp_path / "o.gguf"),
        "--to",
        "q4_k_m",
        "--tensor-type",
        "ffn_up=q6_k",
    ]
    assert cli.main([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["formats"] == {"f32": 5, "q6_k": 5, "q4_k": 11}
    assert cli.main([*words, "--dry-run"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["blk.0.ffn_up.weight", "512x256", "f32", "q6_k", "108", "kB"] in rows
    assert cli.main([*words, "--tensor-type", "nonsense"]) == 2
    assert cli.main(["quantize", str(tmp_path / "none.gguf"), str(tmp_path / "p.gguf")]) == 3
