"""Every sampler leaves what llama.cpp leaves: the recorded results of golden/samplers.json."""

import hashlib
import json
from functools import cache

import numpy as np
import pytest

import reference_data
from tokamak.sampling import filters, penalties
from tokamak.sampling.adaptive import AdaptiveP
from tokamak.sampling.infill import infill
from tokamak.sampling.mirostat import Mirostat
from tokamak.tokenizers import Tokenizer

GOLDEN = reference_data.golden()
pytestmark = pytest.mark.skipif(GOLDEN is None, reason="reference data ../shared/golden is absent")

# Every token of the recorded vocabulary whose text holds the breaker, byte tokens included.
BREAKER_IDS = {"\n": [13], ":": [61, 467], '"': [37, 313, 436], "*": [45, 497]}


@cache
def recorded():
    return json.loads((GOLDEN / "samplers.json").read_text()) if GOLDEN else {}


ENDS = frozenset([2])  # </s>


@cache
def pieces():
    """Bytes of each token of the recorded vocabulary; special ones have none."""
    tokenizer = Tokenizer.load(GOLDEN / "arch" / "llama" / "model-f16.gguf")
    special = set(tokenizer.special_tokens.values())
    return [b"" if i in special else tokenizer.id_to_bytes(i) for i in range(tokenizer.vocab_size)]


@cache
def logits_of(name):
    return np.array([float(x) for x in recorded()["logits"][name]], dtype=np.float32)


@cache
def history_of(name):
    return np.array(recorded()["histories"][name], dtype=np.int32)


def apply(sampler, params, candidates, history):
    """Our filter of that name on what is left."""
    p = params
    match sampler:
        case "greedy":
            return filters.temperature(candidates, 0.0)
        case "top_k":
            return filters.top_k(candidates, p["k"])
        case "top_p":
            return filters.top_p(candidates, p["p"], p["min_keep"])
        case "min_p":
            return filters.min_p(candidates, p["p"], p["min_keep"])
        case "typical":
            return filters.typical(candidates, p["p"], p["min_keep"])
        case "temp":
            return filters.temperature(candidates, p["t"])
        case "temp_ext":
            return filters.dynamic_temperature(candidates, p["t"], p["delta"], p["exponent"])
        case "top_n_sigma":
            return filters.top_n_sigma(candidates, p["n"])
        case "xtc":
            return filters.xtc(candidates, p["t"], p["min_keep"]) if p["p"] > 0 else candidates
        case "infill":
            return infill(candidates, pieces(), ENDS)
        case "dist":
            return candidates
    dense = np.full(1 + candidates.ids.max(), -np.inf, dtype=np.float32)
    dense[candidates.ids] = candidates.logits
    match sampler:
        case "penalties":
            recent = penalties.window(history, p["last_n"])
            penalties.penalize(dense, recent, p["repeat"], p["present"], p["freq"])
        case "dry":
            breakers = penalties.Breakers([[i] for b in p["seq_breakers"] for i in BREAKER_IDS[b]])
            recent = penalties.window(history, p["last_n"])
            penalties.dry(dense, recent, p["multiplier"], p["base"], p["allowed_length"], breakers)
        case "logit_bias":
            ids = np.array([i for i, _ in p["bias"]], dtype=np.int32)
            penalties.add_bias(dense, ids, np.array([float(b) for _, b in p["bias"]], dtype=np.float32))
        case _:
            raise NotImplementedError(sampler)
    return filters.everything(dense)


def check(ours, out, *, ties, dynamic=False, rtol=4 * 2**-23):
    """Same survivors, same logits in order, to what float32 division and subtraction can differ by.

    dynamic: a temperature made from an entropy that the reference sums in float32; n terms err by up to
    n * 2^-24 (2e-3 at 32,000), and the exponent 2 of some cases doubles it.
    """
    ours = filters.ordered(ours.keep(np.isfinite(ours.logits)))
    assert len(ours) == out.get("n_finite", out["n"])
    expected = np.array([float(x) for x in out["logits"] if x != "-inf"], dtype=np.float32)
    expected = expected[: len(ours)]
    rtol = 4e-3 if dynamic else rtol
    # one rounding each of l/t, l*r and l-x, on both sides: 4 ulp of the largest logit
    np.testing.assert_allclose(ours.logits[: len(expected)], expected, rtol=rtol, atol=4e-6)
    if not ties:
        assert ours.ids[: len(expected)].tolist() == out["ids"][: len(expected)]
        if "ids_sha256" in out:
            survivors = np.sort(ours.ids).astype("<i4").tobytes()
            assert hashlib.sha256(survivors).hexdigest() == out["ids_sha256"]
    # their float32 sum over up to 32,000 terms: relative error within sqrt(32000) * 2^-24 * 10
    assert filters.softmax(ours.logits)[0] == pytest.approx(out["top_prob"], rel=2e-4)


@pytest.mark.parametrize("i", range(len(recorded().get("infill_after_topk_topp", []))))
def test_infill_after_filters_leaves_what_llama_cpp_leaves(i):
    case = recorded()["infill_after_topk_topp"][i]
    candidates = filters.everything(logits_of(case["logits"]))
    for step in case["steps"]:
        params = {"min_keep": 1} | step["params"]
        candidates = apply(step["sampler"], params, candidates, history_of(case["history"]))
        check(candidates, step["out"], ties=case["logits"] == "ties")


@pytest.mark.parametrize("i", range(len(recorded().get("single", []))))
def test_each_sampler_leaves_what_llama_cpp_leaves(i):
    case = recorded()["single"][i]
    candidates = filters.everything(logits_of(case["logits"]))
    ours = apply(case["sampler"], case["params"], candidates, history_of(case["history"]))
    if case["sampler"] == "greedy":
        assert ours.ids.tolist() == [case["out"]["selected_id"]]
        return
    check(ours, case["out"], ties=case["logits"] == "ties", dynamic=case["params"].get("delta", 0) > 0)


@pytest.mark.parametrize("i", range(len(recorded().get("chains", []))))
def test_each_chain_leaves_what_llama_cpp_leaves_at_every_step(i):
    case = recorded()["chains"][i]
    candidates = filters.everything(logits_of(case["logits"]))
    dynamic = False
    for step in case["steps"]:
        dynamic |= step["params"].get("delta", 0) > 0
        candidates = apply(step["sampler"], step["params"], candidates, history_of(case["history"]))
        check(candidates, step["out"], ties=case["logits"] == "ties", dynamic=dynamic)


@pytest.mark.parametrize(
    "i", [i for i, s in enumerate(recorded().get("series", [])) if s["sampler"].startswith("mirostat")]
)
def test_mirostat_cuts_where_llama_cpp_cuts_given_the_same_draws(i):
    """Our state is fed with the probabilities of the tokens llama.cpp drew."""
    case = recorded()["series"][i]
    params = case["params"]
    state = Mirostat(2 if case["sampler"] == "mirostat_v2" else 1, params["tau"], params["eta"])
    candidates = filters.everything(logits_of(case["logits"]))
    for step in case["series"]:
        # they keep mu in float32, so among thousands of nearly equal tails the border moves by one
        assert abs(len(state.cut(candidates, len(candidates))) - step["n"]) <= step["n"] // 5000
        state.accept(step["p"])


@pytest.mark.parametrize("i", range(len(recorded().get("adaptive_p", []))))
def test_adaptive_p_reshapes_as_llama_cpp_reshapes(i):
    case = recorded()["adaptive_p"][i]
    state = AdaptiveP(case["target"], case["decay"])
    reshaped, _ = state.reshape(filters.everything(logits_of(case["logits"])))
    # their float32 sum puts p = 0.967 off by 1e-5, and rare tokens of nearly equal p in another order
    check(reshaped, case["out"], ties=case["logits"] in ("ties", "peaked"), rtol=1e-4)


@pytest.mark.parametrize(
    "i",
    [
        i
        for i, s in enumerate(recorded().get("series", []))
        if s["sampler"] == "adaptive_p" and s["params"]["target"] >= 0
    ],
)
def test_adaptive_p_gives_the_probabilities_of_llama_cpp_for_the_same_draws(i):
    """The recorded logits turn by three ids per step; p is that of the token drawn, after reshaping."""
    case = recorded()["series"][i]
    state = AdaptiveP(case["params"]["target"], case["params"]["decay"])
    for turn, step in enumerate(case["series"]):
        candidates = filters.everything(np.roll(logits_of(case["logits"]), 3 * turn))
        reshaped, before = state.reshape(candidates)
        p = filters.softmax(reshaped.logits)[step["selected_id"]]
        assert p == pytest.approx(step["p"], rel=5e-3)  # 1e-5 of p near 1, times the slope, over 16 steps
        state.accept(float(before[step["selected_id"]]))
