"""Sizes stay within docs/design/house.md: `make size` is green, and no function is longer than a page."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FUNCTION_LIMIT = 50


def long_functions(source: str) -> list[str]:
    """Functions of more than FUNCTION_LIMIT lines, decorators and docstring included."""
    return [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno - node.lineno + 1 > FUNCTION_LIMIT
    ]


def load_size():
    spec = importlib.util.spec_from_file_location("size", ROOT / "tools" / "size.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_area_and_file_is_within_its_budget(capsys):
    assert load_size().main() == 0, capsys.readouterr().out


def test_no_function_is_longer_than_a_page():
    found = {
        str(path.relative_to(ROOT)): long_functions(path.read_text(encoding="utf-8"))
        for path in (ROOT / "src").rglob("*.py")
    }
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(("body", "found"), [(49, 0), (50, 1)])
def test_a_function_over_the_limit_is_found(body, found):
    assert len(long_functions("def f():\n" + "    x = 1\n" * body)) == found


def test_no_module_is_a_drawer_for_odds_and_ends():
    drawers = {"utils", "common", "helpers", "misc", "util", "helper"}
    assert [p for p in (ROOT / "src").rglob("*") if p.stem in drawers] == []


def test_a_file_over_the_limit_is_found(tmp_path, monkeypatch, capsys):
    size = load_size()
    package = tmp_path / "src" / "tokamak"
    (package / "models").mkdir(parents=True)
    (package / "models" / "long.py").write_text("x = 1\n" * 121)
    monkeypatch.setattr(size, "ROOT", tmp_path)
    monkeypatch.setattr(size, "PACKAGE", package)
    assert size.main() == 1
    assert "long.py: 121 lines, limit 120" in capsys.readouterr().out
