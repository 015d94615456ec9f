"""Every ```python block of the README and of docs/ for readers runs, each in a namespace of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# docs/design describes seams with fragments of declarations; everything else is for running.
PAGES = [ROOT / "README.md", *(p for p in sorted((ROOT / "docs").rglob("*.md")) if p.parent.name != "design")]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
SNIPPETS = [
    pytest.param(
        block,
        id=f"{page.relative_to(ROOT)}:{page.read_text(encoding='utf-8')[: m.start()].count(chr(10)) + 1}",
    )
    for page in PAGES
    for m in BLOCK.finditer(page.read_text(encoding="utf-8"))
    for block in [m.group(1)]
]


def test_the_readme_has_snippets():
    assert len(SNIPPETS) >= 6


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs(snippet, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "snippet", "exec"), {"__name__": "snippet"})
    capsys.readouterr()


COMMAND = re.compile(r"^tokamak ([a-z]+)", re.MULTILINE)


def test_pages_name_only_commands_that_exist():
    from tokamak.cli.main import VERBS

    fences = re.compile(r"^```\n(.*?)^```", re.DOTALL | re.MULTILINE)
    named = {
        verb
        for page in PAGES
        for m in fences.finditer(page.read_text(encoding="utf-8"))
        for verb in COMMAND.findall(m.group(1))
    }
    assert named <= set(VERBS)
    assert len(named) >= 5


def test_the_readme_lists_exactly_the_architectures_that_are_built():
    from tokamak.models import FAMILIES

    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row)} == set(FAMILIES)


LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    assert [t for t in targets if not (page.parent / t).exists()] == []
