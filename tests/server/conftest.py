"""One tiny model, and an application over it."""

from __future__ import annotations

import pytest

import tokamak


@pytest.fixture(scope="session")
def llm(tiny_model):
    with tokamak.load(tiny_model, threads=1) as loaded:
        yield loaded


@pytest.fixture
def app(llm):
    from tokamak.server.app import create_app
    from tokamak.server.state import ServerConfig

    return create_app(llm, ServerConfig(model="tiny"))
