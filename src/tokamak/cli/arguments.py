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
    from tokamak.loaders.adapters import Adapter


def add_model(parser: argparse.ArgumentParser) -> None:
    """The MODEL argument."""
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a .gguf file (default: the embedded model)"
    )


def add_loading(parser: argparse.ArgumentParser) -> None:
    """How a model is loaded."""
    group = parser.add_argument_group("loading")
    group.add_argument(
        "--context", "-c", "--ctx-size", dest="context", type=int, metavar="N",
        help="tokens of context (default: what was trained and fits)",
    )  # fmt: skip
    group.add_argument("--kv-dtype", choices=KV_DTYPES, help="type of the K/V cache (default f16)")
    group.add_argument(
        "--draft", "-md", "--model-draft", dest="draft", metavar="FILE",
        help="a smaller model with the same vocabulary that guesses ahead; the text stays the same",
    )  # fmt: skip
    group.add_argument("--mmproj", "-mm", metavar="FILE", help="the model's image encoder, .gguf")
    group.add_argument("--tokenizer", metavar="FILE", help="a tokenizer file that wins over the model's own")
    group.add_argument(
        "--i2-s", metavar="LAYOUT", help="of i2_s tensors, which no file tells: i2_s, i2_s_arm or i2_s_rows4"
    )
    group.add_argument(
        "--keep-packed", action="store_const", const=True,
        help="write the packed weights to the cache directory the first time, map them afterwards",
    )  # fmt: skip
    group.add_argument(
        "--to", metavar="MIX", help="round float weights on the way, as quantize does: q4_k_m, q8_0"
    )
    group.add_argument(
        "--lora", "--lora-scaled", action="append", metavar="FILE[:SCALE]",
        help="a LoRA adapter, .gguf or a directory of PEFT's; may be given again",
    )  # fmt: skip
    group.add_argument(
        "--control-vector", "--control-vector-scaled", action="append", metavar="FILE[:SCALE]",
        help="a control vector, .gguf; may be given again",
    )  # fmt: skip
    group.add_argument(
        "--control-vector-layer-range", nargs=2, type=int, metavar=("FIRST", "LAST"),
        help="the layers that control vectors change (default: all but the first)",
    )  # fmt: skip
    group.add_argument("--executor", metavar="NAME", help="auto, cpu or reference (default auto)")
    group.add_argument(
        "--threads-batch", type=int, metavar="N", help="threads that read prompts (default --threads)"
    )
    group.add_argument(
        "--affinity", metavar="CPUS", help="bind threads to CPUs, as 0,1 or 0-3 (default: not bound)"
    )


def load_model(args: argparse.Namespace, **more: Any) -> LLM:
    """Load MODEL with a bar for people who look; what had to be assumed about the file goes to stderr.

    more: further options of `load`, None: not given.
    """
    import tokamak

    names = (
        "context",
        "kv_dtype",
        "executor",
        "tokenizer",
        "threads_batch",
        "draft",
        "mmproj",
        "i2_s",
        "keep_packed",
        "to",
    )
    options = {name: getattr(args, name, None) for name in names}
    if getattr(args, "affinity", None):
        options["affinity"] = cpu_list(args.affinity)
    if found := adapters_of(args):
        options["adapters"] = found
    options |= more
    given = {name: value for name, value in options.items() if value is not None}
    with loading_bar(f"loading {args.model or 'the embedded model'}", quiet=args.quiet) as progress:
        llm = tokamak.load(args.model, threads=args.threads_given, progress=progress, **given)
    for note in dict.fromkeys((*llm.facts["notes"], *(llm.tokenizer.notes if llm.tokenizer else ()))):
        remark(f"tokamak: {note}", quiet=args.quiet)
    return llm


def adapters_of(args: argparse.Namespace) -> list[Adapter]:
    """What --lora and --control-vector name. Raises: InvalidParams for a scale that is no number."""
    from tokamak import Adapter

    asked = getattr(args, "control_vector_layer_range", None)
    layers = (asked[0], asked[1]) if asked else None
    loras = [Adapter(*scaled(one)) for one in getattr(args, "lora", None) or []]
    vectors = [Adapter(*scaled(one), layers=layers) for one in getattr(args, "control_vector", None) or []]
    return loras + vectors


def scaled(text: str) -> tuple[str, float]:
    """FILE:SCALE; the scale is 1 where there is none."""
    path, colon, scale = text.rpartition(":")
    if not colon or Path(text).exists():
        return text, 1.0
    try:
        return path, float(scale)
    except ValueError:
        raise InvalidParams(f"{text!r}: {scale!r} is no scale; write FILE:SCALE, as style.gguf:0.5") from None


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
