"""Requests that ask for the odd: each ends, with what the parameters say or an error that names them."""

import re

import pytest

import tokamak
from tokamak.errors import InvalidParams

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def llm():
    with tokamak.load(context=256) as llm:
        yield llm


@pytest.mark.parametrize(
    "params",
    [
        {"n": 3},
        {"n": 2, "num_beams": 3},
        {"n": 2, "guidance_scale": 2.0, "negative_prompt": "no"},
        {"best_of": 3},
    ],
)
def test_a_prompt_that_is_only_read_ends_with_every_sample(llm, params):
    done = llm.generate(PROMPT, max_tokens=0, **params)
    done = done if isinstance(done, list) else [done]
    assert [c.finish_reason for c in done] == ["length"] * params.get("n", 1)
    assert all(c.text == "" and c.token_ids == [] for c in done)
    assert llm.stats()["blocks_held"] == 0


def test_stop_ids_that_the_model_does_not_have_are_refused(llm):
    with pytest.raises(InvalidParams, match="stop_token_ids has 10000000"):
        llm.generate(PROMPT, stop_token_ids=[10**7], min_tokens=2)


class TestConstraints:
    @pytest.fixture(autouse=True)
    def _needs(self):
        pytest.importorskip("llguidance")

    @pytest.mark.parametrize(
        "more", [{"ignore_eos": True}, {"min_tokens": 20}, {"ignore_eos": True, "num_beams": 2}]
    )
    def test_a_text_that_is_complete_ends_where_its_end_is_banned(self, llm, more):
        done = llm.generate(PROMPT, regex="abc", max_tokens=40, **more)
        assert done.text == "abc"

    def test_a_ban_of_everything_is_still_an_error(self, llm):
        banned = {i: float("-inf") for i in range(llm.program.vocab_size)}
        for more in ({}, {"num_beams": 2}):
            with pytest.raises(InvalidParams, match="every token"):
                llm.generate(PROMPT, regex="abc", logit_bias=banned, **more)

    @pytest.mark.parametrize("regex", [r"a\/b", "a/b", r"a\\/b", "[/]a", "a\nb"])
    def test_slashes_of_an_expression_may_be_escaped_or_not(self, llm, regex):
        assert re.fullmatch(regex, llm.generate(PROMPT, regex=regex, max_tokens=40).text)

    def test_text_that_stands_with_a_trigger_and_breaks_the_grammar_is_named(self, llm):
        asked = {"grammar": 'root ::= " " "zzz"', "grammar_triggers": [" "]}
        with pytest.raises(InvalidParams, match="begins with a trigger"):
            llm.generate(PROMPT, max_tokens=20, temperature=0.0, **asked)
