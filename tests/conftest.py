"""Fixtures that several suites share: tiny models, made once per session."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

import tiny

# Whoever starts the tests in the background may have them ignore Ctrl-C, which several tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("tokamak", deadline=None)  # a busy machine may take the core away for seconds
settings.load_profile("tokamak")


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory):
    """`tiny.gguf` without a path: the same arguments give the same file, written once per session."""
    folder, made = tmp_path_factory.mktemp("tiny"), {}

    def make(arch="llama", fmt="q8_0", **overrides):
        key = repr((arch, fmt, sorted(overrides.items())))
        if key not in made:
            made[key] = tiny.gguf(folder / f"{len(made)}-{arch}-{fmt}.gguf", arch, fmt, **overrides)
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_gguf):
    """Path of a llama-shaped q8_0 model with a SentencePiece vocabulary."""
    return tiny_gguf()
