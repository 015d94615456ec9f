"""`import tokamak` is quiet and quick: no file of ours, no thread, no socket, no heavy package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import tokamak

PACKAGE = Path(tokamak.__file__).resolve().parents[1]
"""Where the package under test lies: the installed one has the extension, the sources may not."""

WATCH = """
import json, sys, threading, time
opened, sockets = [], []
def audit(event, args):
    # An open of a number continues one that was seen with its path.
    if event == "open" and not isinstance(args[0], int) and not str(args[0]).endswith((".py", ".pyc", ".so")):
        opened.append(str(args[0]))
    if event.startswith("socket."):
        sockets.append(event)
sys.addaudithook(audit)
start = time.perf_counter()
{statement}
print(json.dumps({{
    "seconds": time.perf_counter() - start,
    "opened": [name for name in opened if "__pycache__" not in name],
    "sockets": sockets,
    "threads": threading.active_count(),
    "modules": sorted(sys.modules),
}}))
"""


def watch(statement: str) -> dict:
    """Run `statement` in a fresh interpreter and say what it did."""
    code = WATCH.format(statement=statement)
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(PACKAGE)!r})\n" + code],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_import_opens_nothing_and_starts_nothing():
    got = watch("import tokamak")
    assert (got["opened"], got["sockets"], got["threads"]) == ([], [], 1)


def test_import_loads_no_heavy_package():
    heavy = {"torch", "rich", "jinja2", "asyncio", "transformers", "numpy"}
    assert heavy & set(watch("import tokamak")["modules"]) == set()


def test_the_tokenizer_is_imported_without_the_engine_or_numpy():
    got = set(watch("import tokamak; tokamak.Tokenizer")["modules"])
    assert {"torch", "numpy", "jinja2", "asyncio"} & got == set()
    ours = {name.split(".")[1] for name in got if name.startswith("tokamak.")}
    assert ours == {"_native", "errors", "tokenizers"}


def test_import_takes_less_than_150_ms():
    """Best of three: a fresh interpreter on a busy machine may lose its core once."""
    assert min(watch("import tokamak")["seconds"] for _ in range(3)) < 0.150


@pytest.mark.parametrize("statement", ["open('/dev/null').close()", "import socket; socket.socket().close()"])
def test_the_watch_sees_files_and_sockets(statement):
    got = watch(statement)
    assert got["opened"] or got["sockets"]
