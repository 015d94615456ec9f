"""Options that several verbs share, and their way into `load` and `SamplingParams`.

An option that is not given is not passed on, so that defaults live in one place: where they are used.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokamak.cli.console import loading_bar, remark
from tokamak.errors import InvalidParams
from tokamak.types import KV_DTYPES

if TYPE_CHECKING:
    from tokamak.engine.llm import LLM
    from tokamak.sampling import SamplingParams

# option, type, what it does; the field of SamplingParams has the same name.
SAMPLING = (
    ("temperature", float, "0 is greedy (default 0.8)"),
    ("top-k", int, "keep the K most likely tokens; 0: all (default 40)"),
    ("top-p", float, "keep the smallest set of tokens that reaches this probability (default 0.95)"),
    ("min-p", float, "keep tokens of at least this share of the likeliest one's probability (default 0.05)"),
    ("repetition-penalty", float, "divide the logits of tokens that occurred (default 1: off)"),
    ("presence-penalty", float, "subtract from the logits of tokens that occurred (default 0)"),
    ("frequency-penalty", float, "subtract as often as they occurred (default 0)"),
    ("seed", int, "same seed, same text (default: drawn and reported)"),
)


def add_model(parser: argparse.ArgumentParser) -> None:
    """The MODEL argument."""
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a .gguf file (default: the embedded model)"
    )


def add_loading(parser: argparse.ArgumentParser) -> None:
    """How a model is loaded."""
    group = parser.add_argument_group("loading")
    group.add_argument(
        "--context", type=int, metavar="N", help="tokens of context (default: what was trained and fits)"
    )
    group.add_argument("--kv-dtype", choices=KV_DTYPES, help="type of the K/V cache (default f16)")
    group.add_argument("--tokenizer", metavar="FILE", help="a tokenizer file that wins over the model's own")
    group.add_argument(
        "--i2-s", metavar="LAYOUT", help="of i2_s tensors, which no file tells: i2_s, i2_s_arm or i2_s_rows4"
    )
    group.add_argument("--executor", metavar="NAME", help="auto, cpu or reference (default auto)")
    group.add_argument(
        "--threads-batch", type=int, metavar="N", help="threads that read prompts (default --threads)"
    )
    group.add_argument(
        "--affinity", metavar="CPUS", help="bind threads to CPUs, as 0,1 or 0-3 (default: not bound)"
    )


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """How the next token is chosen and when to stop."""
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "--preset", metavar="NAME", help="fast (greedy), balanced or quality; other options still win"
    )
    for name, kind, text in SAMPLING:
        group.add_argument(f"--{name}", type=kind, metavar="X" if kind is float else "N", help=text)
    group.add_argument(
        "--stop", action="append", metavar="TEXT", help="end before this text; may be repeated"
    )
    group.add_argument(
        "--ignore-eos", action="store_true", default=None, help="go on past end-of-text tokens"
    )


def sampling_params(args: argparse.Namespace, **more: Any) -> SamplingParams:
    """The SamplingParams of the options that were given. Raises: InvalidParams."""
    from tokamak.sampling import SamplingParams

    names = ["preset", "stop", "ignore_eos", *(name.replace("-", "_") for name, _, _ in SAMPLING)]
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return SamplingParams(**given, **{name: value for name, value in more.items() if value is not None})


def load_model(args: argparse.Namespace, **more: Any) -> LLM:
    """Load MODEL with a bar for people who look; what had to be assumed about the file goes to stderr.

    more: further options of `load`, None: not given.
    """
    import tokamak

    names = ("context", "kv_dtype", "executor", "tokenizer", "threads_batch", "i2_s")
    options = {name: getattr(args, name, None) for name in names}
    if getattr(args, "affinity", None):
        options["affinity"] = cpu_list(args.affinity)
    options |= more
    given = {name: value for name, value in options.items() if value is not None}
    with loading_bar(f"loading {args.model or 'the embedded model'}", quiet=args.quiet) as progress:
        llm = tokamak.load(args.model, threads=args.threads_given, progress=progress, **given)
    for note in dict.fromkeys((*llm.facts["notes"], *(llm.tokenizer.notes if llm.tokenizer else ()))):
        remark(f"tokamak: {note}", quiet=args.quiet)
    return llm


def cpu_list(text: str) -> list[int]:
    """CPU numbers of "0,2-3": in the order given. Raises: InvalidParams."""
    cpus: list[int] = []
    for item in text.split(","):
        first, dash, last = item.partition("-")
        ends = [first, last if dash else first]
        if not all(end.isascii() and end.isdigit() and len(end) < 6 for end in ends):
            raise InvalidParams(
                f"--affinity {text!r} must be CPU numbers and ranges with commas between, as 0,2-3"
            )
        cpus += range(int(ends[0]), int(ends[1]) + 1)
    return cpus


def piped_text(what: str) -> str:
    """All of stdin. Raises: InvalidParams when stdin is a terminal, so that nobody waits for nothing."""
    if sys.stdin is None or sys.stdin.isatty():
        raise InvalidParams(f"no {what}: give it as an argument or pipe it in")
    return sys.stdin.buffer.read().decode("utf-8", "replace")


def file_text(path: str) -> str:
    """Text of a file, or of stdin for "-". Raises: InvalidParams if it cannot be read."""
    if path == "-":
        return piped_text("text")
    try:
        return Path(path).read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise InvalidParams(f"{path}: cannot be read: {error.strerror}") from error
