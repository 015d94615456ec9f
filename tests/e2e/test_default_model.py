"""The model in the package: loads without a network and writes a readable little story."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

import tokamak
from tokamak.engine.loading import default_model
from tokamak.loaders import open_checkpoint

MAX_NBYTES = 8_000_000


def test_the_model_is_small_enough_to_ship():
    assert default_model().stat().st_size <= MAX_NBYTES


def test_every_matrix_is_ternary_and_the_context_holds_a_thousand_tokens():
    checkpoint = open_checkpoint(str(default_model()))
    assert {w.format for name, w in checkpoint.weights.items() if "proj" in name} == {"tq2_0"}
    assert checkpoint.config["max_position_embeddings"] >= 1024


@pytest.fixture(scope="module")
def stories() -> list[str]:
    """What four seeds make of the demo's prompt with default sampling."""
    with tokamak.load() as llm:
        prompt = "Once upon a time"
        return [prompt + llm.generate(prompt, max_tokens=320, seed=seed).text for seed in range(4)]


def test_a_story_is_at_least_120_words_long_and_ends(stories):
    # training stories have 146 words or more; 30 seeds wrote 130 to 213 words and ended by themselves
    for story in stories:
        assert len(story.split()) >= 120
        assert story.rstrip('"\n ')[-1] in ".!?"


def test_a_story_is_made_of_ordinary_words(stories):
    # the 700 most frequent words of the training stories make up 99 % of them
    known = frozenset(Path(__file__).with_name("story_words.txt").read_text("utf-8").split())
    words = [word for story in stories for word in re.findall(r"[a-z]+(?:'[a-z]+)?", story.lower())]
    assert sum(word in known for word in words) >= 0.95 * len(words)


def test_the_model_loads_without_a_network(monkeypatch):
    def refuse(*_args):
        raise AssertionError("something asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with tokamak.load() as llm:
        assert llm.generate("Once", max_tokens=2, temperature=0.0).token_ids
