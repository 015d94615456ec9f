"""Imports go downwards only (docs/design/house.md), and native code knows no architecture."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "tokamak"

# What each area may import. "_native" is the extension module; "tokamak" itself (the public names) is for
# the top layer only.
GROUND = {"types", "errors", "settings", "_native"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "types": {"errors"},
    "settings": {"errors"},
    "quant": GROUND,
    "tokenizers": GROUND,
    "ir": GROUND,
    "nn": GROUND | {"ir"},
    "models": GROUND | {"ir", "nn"},
    "loaders": GROUND | {"quant", "tokenizers"},
    "executors": GROUND | {"ir", "quant"},
    "sampling": GROUND | {"tokenizers"},
    "observe": GROUND | {"ir"},
    "bench": GROUND | {"observe", "ir"},
    "hub": GROUND | {"observe"},
    "engine": GROUND | {"sampling", "executors", "loaders", "models", "ir", "tokenizers", "quant"},
    "cli": GROUND
    | {"tokamak", "engine", "hub", "bench", "observe", "loaders", "tokenizers", "sampling", "executors"}
    | {"ir", "models", "quant", "server"},
    "hf": {"compat"},  # names that people import
    "tiktoken": {"compat"},
    "compat": GROUND | {"tokamak", "tokenizers", "sampling", "engine"},
    "server": GROUND | {"tokamak", "engine", "hub", "bench", "observe", "tokenizers", "sampling"},
}
# Areas that other areas may import as a package, never one of its modules by name: whoever adds an executor
# or a family changes no caller.
OPAQUE = {"executors": {"engine", "cli", "bench"}, "models": {"engine", "cli"}}
# Heavy or optional packages, imported only where they are used: inside a function.
LAZY = {"torch", "triton", "ray", "starlette", "uvicorn", "msgspec", "rich", "jinja2", "transformers"}
LAZY |= {
    "PIL",
    "llama_cpp",
    "tokenizers",
    "tiktoken",
    "optuna",
    "pyarrow",
    "safetensors",
    "opentelemetry",
    "zstandard",
}
# Areas that are made of such packages, and so are themselves imported inside functions only.
BEHIND_AREAS = {"server": {"starlette", "uvicorn", "msgspec"}}
# Modules that subclass what such a package has, and so are themselves imported inside functions only.
BEHIND = {"tokamak.tokenizers.sandbox": "jinja2"}


def area_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "tokamak"


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(tree: ast.AST, *, in_function: bool = False):
    """Yield (module, line, inside a function) of every import that runs; `if TYPE_CHECKING:` does not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt) and is_type_checking(node):
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, in_function
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "relative import", node.lineno, in_function
            elif node.module == "tokamak":
                for alias in node.names:
                    yield f"tokamak.{alias.name}", node.lineno, in_function
            else:
                yield node.module, node.lineno, in_function
        inside = in_function or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        yield from imports(node, in_function=inside)


def is_public_name(module: str, package: Path) -> bool:
    """True for `from tokamak import load`: a name of the package, not a module under it."""
    name = module.split(".")[1]
    return name not in ALLOWED and name != "_native" and not (package / name).is_dir()


def violations(package: Path) -> list[str]:
    """Every import under `package` that breaks a rule above, as 'file:line: reason'."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        area = parts[0]
        if area in ("__init__", "__main__"):
            continue  # the public names: loads everything, lazily
        where = path.relative_to(package)
        if area not in ALLOWED:
            found.append(f"{where}: area {area!r} is not in the map")
            continue
        for module, line, inside in imports(ast.parse(path.read_text(encoding="utf-8"))):
            place = f"{where}:{line}"
            if module == "relative import":
                found.append(f"{place}: relative import")
            elif module in BEHIND and not inside:
                found.append(f"{place}: {module} is imported before it is used")
            elif module.split(".")[0] in BEHIND_AREAS.get(area, ()):
                continue
            elif area_of(module) in BEHIND_AREAS and area_of(module) != area and not inside:
                found.append(f"{place}: {module} is imported before it is used")
            elif module.split(".")[0] in LAZY and not inside:
                if BEHIND.get(".".join(("tokamak", *parts))) == module.split(".")[0]:
                    continue
                found.append(f"{place}: {module} is imported before it is used")
            elif module == "tokamak.__version__":
                continue  # a constant that is there before any module is
            elif module == "tokamak" or module.startswith("tokamak."):
                public = module == "tokamak" or is_public_name(module, package)
                target = "tokamak" if public else area_of(module)
                if target not in (area, *ALLOWED[area]):
                    found.append(f"{place}: {area} may not import {target}")
                elif area in OPAQUE.get(target, ()) and module.count(".") > 1:
                    found.append(f"{place}: {area} names {module}")
    return found


def test_imports_go_downwards_only():
    assert violations(PACKAGE) == []


def test_the_map_has_no_cycle():
    """Both directions: whatever `a` may import, transitively, may not import `a`."""

    def below(area: str, seen: set[str]) -> set[str]:
        for target in ALLOWED.get(area, set()) - seen - {"_native", "tokamak"}:
            seen.add(target)
            below(target, seen)
        return seen

    for area in ALLOWED:
        assert area not in below(area, set()), f"{area} reaches itself"


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("errors.py", "from tokamak.types import Batch", "errors may not import types"),
        ("ir/graph.py", "import tokamak.nn", "ir may not import nn"),
        ("models/llama.py", "from tokamak.quant import FORMATS", "models may not import quant"),
        ("models/llama.py", "from tokamak import executors", "models may not import executors"),
        (
            "executors/cpu.py",
            "def f():\n    from tokamak.models import build",
            "executors may not import models",
        ),
        ("tokenizers/bpe.py", "from tokamak.loaders import gguf", "tokenizers may not import loaders"),
        ("engine/core.py", "from tokamak.cli import main", "engine may not import cli"),
        ("engine/core.py", "from tokamak.executors.cpu import CpuExecutor", "names tokamak.executors.cpu"),
        ("engine/core.py", "from tokamak.models import llama as x\nimport tokamak.models.llama", "names"),
        ("sampling/sampler.py", "from tokamak import load", "sampling may not import tokamak"),
        ("bench/harness.py", "import torch", "torch is imported before it is used"),
        ("engine/core.py", "import msgspec", "msgspec is imported before it is used"),
        ("cli/serve.py", "from tokamak.server.app import create_app", "imported before it is used"),
        ("server/app.py", "from tokamak.cli import main", "server may not import cli"),
        ("ir/ops.py", "from . import graph", "relative import"),
        ("utils/misc.py", "x = 1", "not in the map"),
    ],
)
def test_an_import_upwards_is_found(tmp_path, name, source, reason):
    for area in ("executors", "models", "cli", "loaders", "quant"):
        (tmp_path / area).mkdir()
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(source)
    assert any(reason in line for line in violations(tmp_path)), violations(tmp_path)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("cli/run.py", "from tokamak import load\nfrom tokamak.engine.llm import LLM"),
        ("engine/core.py", "from tokamak import executors\nfrom tokamak.errors import InvalidParams"),
        ("bench/harness.py", "def f():\n    import torch"),
        ("server/app.py", "import msgspec\nfrom starlette.routing import Route"),
        ("cli/serve.py", "def f():\n    from tokamak.server.app import create_app"),
        (
            "types.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tokamak.ir.graph import Graph",
        ),
    ],
)
def test_an_import_downwards_passes(tmp_path, name, source):
    (tmp_path / "executors").mkdir()
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(source)
    assert violations(tmp_path) == []


ARCHITECTURES = re.compile(
    r"(?<![a-z])(llama|mistral|mixtral|qwen|gemma|phi|bitnet|falcon|mamba|bert|gpt|deepseek|olmo|granite|rwkv)"
    r"(?=[^a-z]|$)",
    re.IGNORECASE,
)
# Names of other programs and of tokenizer rules, which happen to contain a family's name.
PROGRAMS = re.compile(r"llama\.cpp|bitnet\.cpp|gemma\.cpp|llama2\.c|gpt-2|gpt2|llama-bpe", re.IGNORECASE)


def architectures_named(source: str) -> list[str]:
    return [m.group() for m in ARCHITECTURES.finditer(PROGRAMS.sub("", source))]


def test_native_code_names_no_architecture():
    sources = [p for p in (ROOT / "native").rglob("*") if p.suffix in (".cpp", ".h", ".inl")]
    assert sources
    named = {str(p.relative_to(ROOT)): architectures_named(p.read_text(encoding="utf-8")) for p in sources}
    assert {path: names for path, names in named.items() if names} == {}


@pytest.mark.parametrize("source", ['if (arch == "llama")', "// only Qwen3 does this", "bool phi2_order;"])
def test_an_architecture_in_native_code_is_found(source):
    assert architectures_named(source)


def test_a_program_or_a_longer_word_is_no_architecture():
    assert architectures_named("// as llama.cpp does; sophisticated, graphics, albert") == []
