"""llama.cpp's own tests of its server, run against ours.

    python tools/llama_suite.py SUITE [--server llama-server] [--tests unit/test_completion.py ...] [--out result.json]
    python tools/llama_suite.py compare theirs.json ours.json

SUITE: tools/server/tests of a llama.cpp source tree, as in the source package of llama-cpp-python. The suite starts a server
for every test; what it starts is this file, which says the options in our words and puts a small random model in the place
of the ones that the suite would fetch. With --server the same is done for a llama-server, so that both run on the same files.
Needs: pytest, requests, openai, wget, filelock, aiohttp, prometheus-client.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORKER = "TOKAMAK_LLAMA_SUITE"  # JSON: the models, and the server to start
PORT = os.environ.get("PORT", "18100")
# What llama-server calls it, what `tokamak serve` does; None: nothing, its value is dropped.
WITH_VALUE = {
    **{
        name: name
        for name in ("--port", "--host", "--threads", "--temp", "--seed", "--n-predict", "--api-key")
    },
    "--alias": "--alias",
    "--chat-template-file": "--chat-template-file",
    "--chat-template": "--chat-template",
    "--reasoning": "--reasoning",
    "--parallel": "--max-sequences",
    "--reasoning-format": "--reasoning-format",
    "--cors-origins": "--cors-origin",
    **dict.fromkeys(("--batch-size", "--ubatch-size", "--n-gpu-layers", "-ctk", "-ctv", "-fa", "--pooling")),
    **dict.fromkeys(("--grp-attn-n", "--grp-attn-w", "--cache-ram", "--tags", "--slot-save-path")),
    **dict.fromkeys(("--spec-type", "--spec-draft-n-max", "--spec-draft-n-min", "--media-path")),
}
SWITCHES = {"--context-shift": "--context-shift", "--no-slots": "--no-slots", "--verbose": "--verbose"}
# What llama-server does without an option, which ours has to be told.
UNASKED = {"--cors-origins": ("--cors-origin", "*"), "--metrics": ("--no-metrics",)}
ALWAYS = ("--any-name", "--today")  # llama-server looks at no name, and tells templates the date
IDLE = {
    *(
        "--offline",
        "--cont-batching",
        "--metrics",
        "--slots",
        "--no-ui",
        "--jinja",
    ),
    *("--no-jinja", "--embedding", "--reranking", "--kv-unified", "--swa-full", "--no-mmproj"),
    *("--no-cache-idle-slots", "--no-models-autoload", "--backend_sampling"),
}


def models(folder: Path) -> dict[str, str]:
    """A decoder and an encoder of random weights."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]
    import tiny

    decoder = tiny.gguf(folder / "tiny.gguf", "llama", "q8_0", context=2048)
    kinds = {"tokenizer.ggml.token_type_count": 2}
    encoder = tiny.gguf(folder / "bert.gguf", "bert", "q8_0", context=512, metadata=kinds)
    ranker = tiny.gguf(
        folder / "ranker.gguf", "bert", "q8_0", context=512, metadata=kinds, keys={"pooling_type": 4}
    )
    return {"decoder": str(decoder), "encoder": str(encoder), "ranker": str(ranker)}


def model_of(words: list[str], known: dict[str, str]) -> str:
    """The file in the place of the one that is asked for by name."""
    kinds = {"reranker": "ranker", "bert|bge": "encoder"}
    found = (kind for names, kind in kinds.items() if any(re.search(names, word) for word in words))
    return known[next(found, "decoder")]


def start(words: list[str]) -> None:
    """In the place of llama-server: become the server under test."""
    worker = json.loads(os.environ[WORKER])
    model = model_of(words, worker["models"])
    if worker["server"]:
        os.execv(worker["server"], [worker["server"], *theirs(words, model)])
    command = [sys.executable, "-m", "tokamak", "serve", *ours(words, model)]
    os.execve(sys.executable, command, os.environ | {"PYTHONPATH": str(ROOT / "src")})


def theirs(words: list[str], model: str) -> list[str]:
    """The same options with a file in the place of a repository."""
    kept, left = [], list(words)
    while left:
        word = left.pop(0)
        if word in ("--hf-repo", "--hf-file", "--model-url"):
            left.pop(0)
        else:
            kept.append(word)
    return [*kept, "--model", model]


def ours(words: list[str], model: str) -> list[str]:
    """The options of `tokamak serve`.  Exits for one that is not known: the test asks for something else."""
    said, left, context, sequences = (
        [model, "--threads", "2", "--drain", "1", "--no-history", *ALWAYS],
        list(words),
        0,
        1,
    )
    for option, instead in UNASKED.items():
        said += () if option in words else instead
    while left:
        word = left.pop(0)
        if word in ("--hf-repo", "--hf-file", "--model-url"):
            left.pop(0)
        elif word == "--ctx-size":
            context = int(left.pop(0))
        elif word in WITH_VALUE:
            value = left.pop(0)
            sequences = int(value) if word == "--parallel" else sequences
            said += [WITH_VALUE[word], value] if WITH_VALUE[word] else []
        elif word in SWITCHES:
            said.append(SWITCHES[word])
        elif word not in IDLE:
            raise SystemExit(f"{word}: nothing like it here")
    if context:  # llama-server shares its context among the slots
        shared = "--kv-unified" not in words and "--embedding" not in words
        said += ["--context", str(context // sequences if shared else context)]
    return said


def run(args: argparse.Namespace) -> int:
    """The suite; a result for each test to --out, counts per file to stdout."""
    suite = Path(args.suite).resolve()
    with tempfile.TemporaryDirectory() as folder:
        shim = Path(folder, "llama-server")
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" start "$@"\n')
        shim.chmod(0o755)
        worker = {"server": args.server and str(Path(args.server).resolve()), "models": models(Path(folder))}
        env = os.environ | {WORKER: json.dumps(worker), "LLAMA_SERVER_BIN_PATH": str(shim), "PORT": PORT}
        report = Path(folder, "report.xml")
        words = [
            sys.executable,
            "-m",
            "pytest",
            *(args.tests or ["unit"]),
            "-m",
            "not slow",
            "-q",
            "-p",
            "no:xdist",
        ]
        words += ["-p", "no:cacheprovider", f"--junitxml={report}", "--tb=short", *args.more]
        began = time.perf_counter()
        log = Path(args.out).with_suffix(".log")
        with log.open("w") as out:
            subprocess.run(words, cwd=suite, env=env, stdout=out, stderr=out, check=False)
        found = results(report.read_text())
    Path(args.out).write_text(json.dumps(found, indent=1))
    for outcome in ("passed", "failed", "skipped"):
        print(outcome, sum(o == outcome for o in found.values()))
    print(f"{time.perf_counter() - began:.0f} s; {args.out}, {log}")
    return 0


def results(xml: str) -> dict[str, str]:
    """What became of each test. The report is written by pytest here, not by a stranger."""
    from xml.etree import ElementTree as ET

    found = {}
    for case in ET.fromstring(xml).iter("testcase"):  # see above
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        found[f"{case.get('classname')}::{case.get('name')}"] = outcome
    return found


def compare(theirs_path: str, ours_path: str) -> int:
    """Tests that the first passes and the second does not."""
    one, other = (json.loads(Path(path).read_text()) for path in (theirs_path, ours_path))
    lost = [name for name, outcome in one.items() if outcome == "passed" and other.get(name) != "passed"]
    print(f"{sum(o == 'passed' for o in one.values())} pass there, {len(lost)} of them not here")
    print(*lost, sep="\n")
    return 5 if lost else 0


def main() -> int:
    """See the module."""
    if sys.argv[1:2] == ["start"]:
        start(sys.argv[2:])
    if sys.argv[1:2] == ["compare"]:
        return compare(*sys.argv[2:4])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", metavar="SUITE")
    parser.add_argument("--server", metavar="FILE", help="a llama-server to run instead of ours")
    parser.add_argument("--tests", nargs="*", metavar="FILE", help="files of the suite (default: all)")
    parser.add_argument("--out", default="llama-suite.json", metavar="FILE")
    parser.add_argument("--more", nargs="*", default=[], metavar="WORD", help="further words for pytest")
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
