"""docs/models.md says what the registry holds and the tests compare."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tokamak.loaders.names import FAMILIES as NAMES
from tokamak.models import FAMILIES

ROOT = Path(__file__).resolve().parents[3]


def load_coverage():
    spec = importlib.util.spec_from_file_location("coverage_page", ROOT / "tools" / "coverage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date():
    coverage = load_coverage()
    assert coverage.PAGE.read_text(encoding="utf-8") == coverage.page(), "run tools/coverage.py"


def test_every_architecture_is_compared_with_another_implementation():
    coverage = load_coverage()
    assert [name for name in FAMILIES if not coverage.authorities(name)] == []
    assert len(FAMILIES) >= 60


def test_files_and_models_know_the_same_architectures():
    assert set(NAMES) == set(FAMILIES)
    assert not set(FAMILIES) & set(load_coverage().REFUSED)
