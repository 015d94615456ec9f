"""No layer but the models and the tables of names knows a family by its name."""

from __future__ import annotations

import ast
from pathlib import Path

import tokamak
from tokamak.models import FAMILIES

SOURCE = Path(tokamak.__file__).parent
# Pre-tokenizers and formats of reasoning have names of their own, some of them the same words.
PRE_TOKENIZERS = ("tokenizers", "compat", "loaders/hf_tokenizer.py")
REASONING = ("cli/serve.py", "server/schemas.py")
METHODS = ("loaders/hf_quantised.py",)  # quant_method of a config.json: "bitnet"
OTHER_WORDS = ("models", "loaders/names", *PRE_TOKENIZERS, *REASONING, *METHODS)


def literals(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def test_no_family_name_lives_outside_models_and_tables_of_names():
    found = {}
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE).as_posix()
        if not place.startswith(OTHER_WORDS) and (named := literals(path) & set(FAMILIES)):
            found[place] = named
    assert found == {}
