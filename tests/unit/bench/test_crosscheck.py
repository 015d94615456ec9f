"""A cross-check finds planted differences, forgives ties, and never passes without a peer."""

from __future__ import annotations

import importlib
import json
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest

from command import tokamak
from reference_data import golden
from tokamak.bench import crosscheck as cc
from tokamak.bench import llama_cpp, parity, peers
from tokamak.bench.nodes import first_difference
from tokamak.bench.texts import collapsed, text_for
from tokamak.cli.main import main
from tokamak.engine.loading import default_model
from tokamak.errors import InvalidParams, TokenizerFileError, UnavailableError, UnsupportedError
from tokamak.models import gated, known_as
from tokamak.observe.diff import one_sequence

RNG = np.random.default_rng(3)
TABLE = RNG.normal(size=(50, 50)).astype(np.float32)  # logits after each token


class Known:
    """A peer whose logits are rows of TABLE, with something changed."""

    name, version = "known", "0"

    def __init__(self, *, ids=(1, 2, 3), change=None, nodes=()):
        self.ids, self.change, self.values = list(ids), change, nodes

    def tokens(self, _):
        return self.ids

    def logits(self, token_ids):
        rows = TABLE[list(token_ids)].copy()
        return rows if self.change is None else self.change(rows)

    def nodes(self, _):
        if isinstance(self.values, Exception):
            raise self.values
        return list(self.values)

    def seconds(self, token_ids, num_tokens):
        return 0.002 * len(token_ids), 0.004 * num_tokens

    def close(self):
        pass


class Letters:
    """Encodes everything as 1, 2, 3, and writes an id as a letter."""

    def encode(self, _):
        return [1, 2, 3]

    def decode(self, ids):
        return "".join(chr(ord("a") + i) for i in ids)


class Ours:
    """What a cross-check asks of a model."""

    tokenizer, facts = Letters(), {}

    class program:  # noqa: N801
        limits = SimpleNamespace(block_size=32)

        @staticmethod
        def taps(batch):
            return {"layers.0.add": TABLE[batch.token_ids], "lm_head.linear": TABLE[batch.token_ids]}

    def logits(self, ids):
        return TABLE[list(ids)]


def check(peer, **options):
    return cc.crosscheck(Ours(), peer, ["text"], range(40), num_tokens=12, **options)


def noise(rows):
    rows[min(7, len(rows) - 1)] += RNG.normal(size=50).astype(np.float32)
    return rows


def test_the_same_engine_passes():
    report = check(Known())
    assert report.status == "ok"
    assert (report.logits.cosine, report.logits.top1) == (pytest.approx(1), 1)
    assert report.greedy.equal


@pytest.mark.parametrize(("ids", "first"), [([1, 9, 3], 1), ([1, 2], 2), ([1, 2, 3, 4], 3), ([], 0)])
def test_a_wrong_id_is_found(ids, first):
    report = check(Known(ids=ids))
    assert report.status == "divergence"
    assert report.tokens[0].first == first


def test_the_text_around_a_wrong_id_is_shown():
    found = check(Known(ids=[1, 9, 3])).tokens[0]
    assert found.around == "after 'b' ours [2, 3] 'cd', theirs [9, 3] 'jd'"
    assert (
        "after 'bcd' ours the end" in cc.compare_tokens([1, 2, 3], [1, 2, 3, 4], "", Letters().decode).around
    )


def test_ids_of_the_original_are_no_fault_of_ours():
    def original(_):
        return "the original", [1, 2, 3]

    report = check(Known(ids=[1, 9, 3]), original=original)
    assert (report.status, report.tokens[0].authority) == ("ok", "the original")
    assert "parts at 1 from the original" in report.notes[0]
    assert check(Known(ids=[1, 9, 3]), original=lambda _: ("it", [1, 9, 3])).status == "divergence"


def test_one_wrong_position_is_found():
    report = check(Known(change=noise))
    assert report.status == "divergence"
    assert report.logits.worst_position == 7
    assert report.logits.kl_most > 0.01


def test_the_likeliest_tokens_are_compared_as_sets_of_any_size():
    a = np.zeros((2, 6), np.float32)
    a[:, :3] = 3, 2, 1
    b = a[:, [1, 0, 5, 3, 4, 2]]  # the two best change places, the third goes to the end
    assert [cc.compare_logits(a, b, k).topk for k in (1, 2, 3, 6)] == pytest.approx([0, 1, 2 / 3, 1])
    assert cc.compare_logits(a, b).vocab_size == 6


def test_a_difference_that_goes_with_the_rounding_of_weights_is_a_note():
    rounded = check(Known(change=noise), exact=Known)
    assert (rounded.status, rounded.faults) == ("ok", ())
    assert "rounds activations" in rounded.notes[0]
    assert "cosine" in rounded.notes[0]
    stays = check(Known(change=noise), exact=lambda: Known(change=noise))
    assert stays.status == "divergence"
    assert "stays" in stays.notes[0]


def test_a_peer_without_values_of_nodes_says_so():
    report = check(Known(change=noise, nodes=UnsupportedError("this build shows none")))
    assert (report.status, report.node) == ("divergence", None)
    assert report.notes == ("this build shows none",)


def test_the_first_node_that_differs_is_named_with_both_values():
    wrong = TABLE[list(range(8))].copy()
    wrong[3, 4] += 9
    report = check(Known(change=noise, nodes=[("l_out-0", TABLE[:8]), ("result_output", wrong)]))
    node = report.node
    assert (node.peer_name, node.name, node.position, node.element) == (
        "result_output",
        "lm_head.linear",
        3,
        4,
    )
    assert node.theirs - node.ours == pytest.approx(9)
    assert (node.before_name, node.before) == ("l_out-0", 0)


def test_a_common_offset_is_no_difference():
    assert check(Known(change=lambda rows: rows + 100)).logits.cosine == pytest.approx(1)


def test_a_tie_within_the_error_is_forgiven_and_a_clear_choice_is_not():
    tie = np.zeros((1, 4), dtype=np.float32)
    tie[0, 1], tie[0, 2] = 1.0, 0.999
    ours = tie.copy()
    ours[0, 2] = 1.001
    greedy = cc.compare_greedy([0], 3, lambda _: ours, lambda _: tie)
    assert (greedy.equal, greedy.first) == (False, 0)
    assert greedy.margin < 1
    clear = tie.copy()
    clear[0, 1] = 5.0
    ours = clear.copy()
    ours[0, 2] = 5.5
    assert (
        cc.compare_greedy([0], 3, lambda _: ours, lambda _: clear * 1).margin < 1
    )  # their difference is as large
    ours = np.where(clear == 5, 4.9, clear).astype(np.float32)
    ours[0, 2] = 4.95
    close = clear.copy()
    close[0, 2] = 4.9
    assert cc.compare_greedy([0], 3, lambda _: ours, lambda _: close).margin == pytest.approx(1, abs=0.01)


def test_a_greedy_divergence_shows_the_two_best_of_both():
    ours, theirs = np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32)
    ours[0], theirs[0] = [0, 5, 3, 0], [0, 3, 4, 0]
    found = cc.compare_greedy([0], 3, lambda _: ours, lambda _: theirs, Letters().decode)
    assert (found.ours.tokens, found.ours.pieces, found.ours.margin) == ((1, 2), ("b", "c"), 2)
    assert (found.theirs.tokens, found.theirs.logits, found.theirs.margin) == ((2, 1), (4, 3), 1)


def test_both_engines_are_timed_in_turns_and_within_the_time():
    order = []

    class Slow(Known):
        def seconds(self, token_ids, num_tokens):
            order.append("theirs")
            return 0.002 * len(token_ids), 0.004 * num_tokens

    def ours(ids, num_tokens):
        order.append("ours")
        return 0.001 * len(ids), 0.001 * num_tokens

    found = parity.measure(ours, Slow(), list(range(16)), 8, seconds=1)
    assert (found.prompt.ratio, found.decode.ratio) == (pytest.approx(2), pytest.approx(4))
    assert (found.prompt.tokens, found.decode.tokens, found.prompt.spread) == (16, 8, pytest.approx(0))
    assert 3 <= found.prompt.pairs <= 15
    assert order[2:6] == ["ours", "theirs", "theirs", "ours"]
    with pytest.raises(InvalidParams, match="1 to 30 s"):
        parity.measure(ours, Slow(), [1], 1, seconds=31)


def test_an_absent_peer_is_unavailable_and_never_a_pass(monkeypatch, capsys):
    def absent(name):
        raise peers.PackageNotFoundError(name)

    monkeypatch.setattr(peers, "version", absent)
    monkeypatch.setattr(llama_cpp, "version", absent)
    for name in ("llama.cpp", "transformers"):
        with pytest.raises(UnavailableError, match="not installed"):
            peers.open_peer(name, "x.gguf", context=8, threads=1)
        assert main(["crosscheck", "--against", name, "--json", "--quiet"]) == 4
        report = json.loads(capsys.readouterr().out)
        assert (report["status"], report["logits"], report["greedy"]) == ("native_only", None, None)
        assert "not installed" in report["reason"]
    with pytest.raises(InvalidParams, match="known: llama"):
        peers.open_peer("magic", "x", context=8, threads=1)


def test_a_report_is_the_parity_of_a_receipt():
    parity = check(Known()).parity()
    assert (parity["status"], parity["peer"], parity["top1_agreement"]) == ("ok", "known", 1)
    assert cc.native_only("llama.cpp", UnavailableError("gone")).parity()["peer"] is None


def checked(capsys, *words):
    """Exit code and output of the command, in this process."""
    code = main(["crosscheck", *map(str, words), "--quiet"])
    return code, capsys.readouterr().out


def test_the_embedded_model_agrees_with_llama_cpp(capsys):
    pytest.importorskip("llama_cpp")
    code, text = checked(capsys, "-n", "4", "--threads", "1", "--json", "--perf", "1")
    report = json.loads(text)
    assert (code, report["status"]) == (0, "ok")
    assert report["performance"]["seconds"] < 30
    assert {report["performance"][kind]["pairs"] >= 3 for kind in ("prompt", "decode")} == {True}
    assert all(t["equal"] for t in report["tokens"])


def test_another_model_does_not_agree(capsys):
    pytest.importorskip("llama_cpp")
    where = golden()
    if where is None:
        pytest.skip("no golden data")
    family = where / "arch" / "llama"
    args = (family / "model-f32.gguf", "--reference", family / "model-q4_0.gguf", "-n", "4")
    code, text = checked(capsys, *args)
    assert (code, "divergence" in text) == (5, True)
    assert "node     embd (ours: embed_tokens.embed)" in text


def test_a_family_agrees_with_transformers():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    where = golden()
    if where is None:
        pytest.skip("no golden data")
    family = where / "arch" / "llama"
    done = tokamak(
        "crosscheck",
        family / "model-f32.gguf",
        "--against",
        "transformers",
        "--reference",
        family / "hf",
        "-n",
        "8",
        "--quiet",
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_a_peer_does_not_load_is_unsupported(tmp_path):
    pytest.importorskip("llama_cpp")
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(UnsupportedError, match=r"llama\.cpp does not load"):
        peers.LlamaCpp(path, context=8, threads=1)


def test_llama_cpp_shows_the_values_of_its_nodes():
    pytest.importorskip("llama_cpp")
    import tokamak as package

    ids = [1, 2, 3, 4, 5]
    with (
        package.load(kv_dtype="f32") as llm,
        closing(peers.LlamaCpp(default_model(), context=64, threads=1)) as peer,
    ):
        found = dict(peer.nodes(ids))
        taps = llm.program.taps(one_sequence(ids, llm.program.limits.block_size))
        assert {"l_out-0", "attn_norm-0", "ffn_out-0", "result_norm", "result_output"} <= set(found)
        assert first_difference(taps, list(found.items()), 0.15) is None
        broken = {name: value.copy() for name, value in found.items()}
        broken["ffn_out-1"][2, 3] += 50
        node = first_difference(taps, list(broken.items()), 0.15)
        assert (node.peer_name, node.position, node.element) == ("ffn_out-1", 2, 3)
        assert node.theirs - node.ours == pytest.approx(50, rel=0.05)
        assert np.array_equal(peer.logits(ids).argmax(1), found["result_output"].argmax(1))


def test_a_build_without_values_of_nodes_is_unsupported():
    pytest.importorskip("llama_cpp")
    with pytest.raises(UnsupportedError, match=r"no ggml_backend_sched_eval_callback"):
        llama_cpp._ggml(
            SimpleNamespace(__file__=importlib.import_module("llama_cpp").__file__), "this release"
        )


def test_a_text_of_the_vocabulary_stands_in_where_words_are_lacking():
    class Few:
        special_tokens, vocab_size = {"a": 0}, 26
        spec = SimpleNamespace(unk_id=0)

        def encode(self, text):
            if "?" in text:
                raise TokenizerFileError("the vocabulary lacks it")
            return [0 if "!" in text else 1]

        def decode(self, ids):
            return "\n" if ids == [2] else chr(ord("a") + ids[0])

    assert text_for(Few(), "what?") == "bdefghijklmnopqrstuvwxyz"
    assert text_for(Few(), "what!") == text_for(Few(), "what?")
    assert text_for(Few(), "plain") == "plain"


def test_a_peer_that_skips_the_files_normaliser_is_asked_without_runs_of_spaces():
    class Spaces(Known):
        def tokens(self, text):
            return [1, 2, 3] if text == "a b" else [1, 9, 9, 3]

    peer = Spaces()
    report = cc.crosscheck(Ours(), peer, [" a   b"], range(9), num_tokens=2, original=collapsed(peer))
    assert (report.status, report.tokens[0].first) == ("ok", 1)
    assert "remove_extra_whitespaces" in report.notes[0]


def test_the_gate_that_an_engine_computes_otherwise_can_be_chosen(capsys):
    pytest.importorskip("llama_cpp")
    where = golden()
    if where is None:
        pytest.skip("no golden data")
    file = where / "arch" / "bitnet-2b4t" / "model-f32.gguf"
    code, text = checked(capsys, file, "-n", "2", "--json")
    report = json.loads(text)
    assert (code, report["node"]["peer_name"]) == (5, "ffn_sub_out-0")
    assert "a copy named bitnet" in report["notes"][0]
    code, text = checked(capsys, file, "-n", "2", "--json", "--activation", "silu")
    assert (code, json.loads(text)["status"]) == (0, "ok")


def test_a_family_with_one_gate_has_no_other():
    with pytest.raises(InvalidParams, match="its gate is settled"):
        gated("llama", "silu")
    assert [gated(name, "silu") for name in ("bitnet", "bitnet-b1.58")] == ["bitnet", "bitnet"]
    assert gated("bitnet-25", "relu2") == "bitnet-b1.58"
    assert (known_as("bitnet-25"), known_as("llama")) == ("bitnet", "llama")
