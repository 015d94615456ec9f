"""The committed types of the extension module are those of the bindings: `make stub` keeps them so."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

STUB = Path(__file__).resolve().parents[2] / "src" / "tokamak" / "_native.pyi"


def without_layout(source: str) -> str:
    """The declarations alone: layout and the order of imports are the formatter's."""
    tree = ast.parse(source)
    tree.body = [n for n in tree.body if not isinstance(n, (ast.Import, ast.ImportFrom))]
    return ast.unparse(tree)


def test_the_stub_is_what_the_bindings_say():
    stubgen = pytest.importorskip(
        "nanobind.stubgen", reason="nanobind is not installed; `make stub` needs it"
    )
    from tokamak import _native

    gen = stubgen.StubGen(_native)
    gen.put(_native)
    assert without_layout(gen.get()) == without_layout(STUB.read_text(encoding="utf-8"))
