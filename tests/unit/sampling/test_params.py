"""SamplingParams: defaults, presets, and a message for everything that is out of range."""

import dataclasses

import pytest

from tokamak.errors import InvalidParams
from tokamak.sampling import SamplingParams
from tokamak.sampling.params import FIELDS


def test_defaults_are_those_of_llama_cpp():
    p = SamplingParams()
    assert (p.temperature, p.top_k, p.top_p, p.min_p, p.repetition_penalty) == (0.8, 40, 0.95, 0.05, 1.0)
    assert (p.repetition_last_n, p.presence_penalty, p.frequency_penalty) == (64, 0.0, 0.0)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("fast", (0.0, 1, 1.0, 1.0)),
        ("balanced", (0.7, 50, 0.9, 1.0)),
        ("quality", (0.8, 100, 0.95, 1.1)),
    ],
)
def test_presets_set_what_is_documented(preset, expected):
    p = SamplingParams(preset=preset)
    assert (p.temperature, p.top_k, p.top_p, p.repetition_penalty) == expected


def test_a_field_given_wins_over_the_preset():
    p = SamplingParams(preset="fast", temperature=0.5)
    assert (p.temperature, p.top_k) == (0.5, 1)
    assert SamplingParams(top_k=7).replaced(preset="balanced", top_p=0.3).top_p == 0.3
    assert SamplingParams(top_k=7).replaced(preset="balanced").top_k == 50


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", "hot"),
        ("temperature", True),
        ("top_k", 1.5),
        ("top_p", 1.01),
        ("min_p", -0.01),
        ("max_tokens", -2),
        ("min_tokens", -1),
        ("n", 0),
        ("seed", -1),
        ("seed", 2**64),
        ("logprobs", -1),
        ("repetition_penalty", 0.0),
        ("presence_penalty", 3.0),
        ("stop", [""]),
        ("stop", [3]),
        ("stop_token_ids", [-1]),
        ("stop_token_ids", ["a"]),
        ("logit_bias", {-1: 0.0}),
        ("logit_bias", {5: float("inf")}),
        ("logit_bias", {5: float("nan")}),
        ("ignore_eos", 1),
        ("preset", "best"),
        ("samplers", ["top_q"]),
        ("samplers", ["top_k", "top_k"]),
        ("logits_processor", [3]),
        ("mirostat", 3),
    ],
)
def test_a_value_out_of_range_is_refused_by_field_and_value(field, value):
    with pytest.raises(InvalidParams, match=field):
        SamplingParams(**{field: value})


def test_fewer_max_tokens_than_min_tokens_is_refused():
    with pytest.raises(InvalidParams, match="min_tokens"):
        SamplingParams(max_tokens=2, min_tokens=3)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(InvalidParams, match="temperature"):
        SamplingParams().replaced(temprature=1.0)


def test_parameters_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SamplingParams().top_k = 3


def test_every_field_is_documented():
    assert [f for f in FIELDS if f not in SamplingParams.__doc__ and not f.startswith("dry_")] == []
