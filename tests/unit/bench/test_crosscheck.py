"""A cross-check finds planted differences, forgives ties, and never passes without a peer."""

from __future__ import annotations

import json

import numpy as np
import pytest

from command import tokamak
from reference_data import golden
from tokamak.bench import crosscheck as cc
from tokamak.bench import peers
from tokamak.errors import InvalidParams, UnavailableError, UnsupportedError

RNG = np.random.default_rng(3)
TABLE = RNG.normal(size=(50, 50)).astype(np.float32)  # logits after each token


class Known:
    """A peer whose logits are rows of TABLE, with something changed."""

    name, version = "known", "0"

    def __init__(self, *, ids=(1, 2, 3), change=None):
        self.ids, self.change = list(ids), change

    def tokens(self, _):
        return self.ids

    def logits(self, token_ids):
        rows = TABLE[list(token_ids)].copy()
        return rows if self.change is None else self.change(rows)

    def hidden(self, _):
        return []


def check(peer, quantised=False):
    return cc.crosscheck(
        peer,
        ["text"],
        encode=lambda _: [1, 2, 3],
        logits=lambda ids: TABLE[list(ids)],
        ids=range(40),
        num_tokens=12,
        quantised=quantised,
    )


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


def test_one_wrong_position_is_found():
    def swap(rows):
        rows[min(7, len(rows) - 1)] += RNG.normal(size=50).astype(np.float32)
        return rows

    report = check(Known(change=swap))
    assert report.status == "divergence"
    assert report.logits.worst_position == 7
    assert report.logits.kl_most > 0.01


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


def test_the_first_hidden_state_that_is_not_ours_is_named():
    states = [RNG.normal(size=(3, 8)).astype(np.float32) for _ in range(4)]
    taps = {f"layers.{i}.add": s for i, s in enumerate(states)}
    assert cc.parting(taps, states) is None
    wrong = [*states[:2], states[2] + 0.5, states[3]]
    assert "after layers.1.add: hidden state 2" in cc.parting(taps, wrong)


def test_an_absent_peer_is_unavailable(monkeypatch):
    def absent(name):
        raise peers.PackageNotFoundError(name)

    monkeypatch.setattr(peers, "version", absent)
    for name in peers.PEERS:
        with pytest.raises(UnavailableError, match="not installed"):
            peers.open_peer(name, "x.gguf", context=8, threads=1)
    with pytest.raises(InvalidParams, match="known: llama"):
        peers.open_peer("magic", "x", context=8, threads=1)


def test_the_embedded_model_agrees_with_llama_cpp():
    pytest.importorskip("llama_cpp")
    done = tokamak("crosscheck", "--against", "llama.cpp", "-n", "8", "--json", "--quiet")
    report = json.loads(done.stdout)
    assert (done.returncode, report["status"]) == (0, "ok")
    assert all(t["equal"] for t in report["tokens"])


def test_another_model_does_not_agree():
    pytest.importorskip("llama_cpp")
    where = golden()
    if where is None:
        pytest.skip("no golden data")
    family = where / "arch" / "llama"
    args = (family / "model-f32.gguf", "--reference", family / "model-q4_0.gguf", "--quiet", "-n", "4")
    done = tokamak("crosscheck", *args)
    assert done.returncode == 5, done.stderr
    assert "divergence" in done.stdout


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
