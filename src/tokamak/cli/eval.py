"""`tokamak eval`: perplexity of a model on a text, and its divergence from another."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tokamak.cli.arguments import add_loading, file_text, load_model
from tokamak.cli.console import counting_bar, human_nbytes, print_json
from tokamak.errors import InvalidParams

if TYPE_CHECKING:
    from tokamak.engine.llm import LLM
    from tokamak.engine.quality import BaseLogits, Divergence, Perplexity

SUMMARY = """Measure how well a model predicts a text, or how far it is from another model.

The text is cut in windows of --window tokens; the first half of each is only read, in the second every token but the first
is scored given all before it. That is llama-perplexity's definition."""
EXAMPLES = """  tokamak eval perplexity model.gguf --file wiki.txt
  tokamak eval kl small.gguf --base model-f16.gguf --file wiki.txt --chunks 20
  tokamak eval kl model-f16.gguf --save-logits base.npy --file wiki.txt
  tokamak eval kl small.gguf --base-logits base.npy --file wiki.txt
"""
KINDS = ("perplexity", "kl")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure, of which model, on which text."""
    parser.add_argument("kind", choices=KINDS, help="perplexity, or kl: divergence from a base model")
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a model (default: the embedded one)")
    parser.add_argument("--file", required=True, metavar="F", help="the text, - for stdin")
    parser.add_argument(
        "--window", type=int, default=512, metavar="N", help="tokens per window (default 512)"
    )
    parser.add_argument("--chunks", type=int, metavar="N", help="how many windows (default: all of the text)")
    group = parser.add_argument_group("kl")
    group.add_argument("--base", metavar="MODEL", help="the model to diverge from")
    group.add_argument("--base-logits", metavar="FILE", help="what --save-logits kept of it")
    group.add_argument("--save-logits", metavar="FILE", help="keep this model's distributions instead")
    add_loading(parser)


def report(result: Perplexity | Divergence) -> str:
    """Lines for people."""
    from tokamak.engine.quality import Perplexity

    where = f"{result.tokens} tokens scored in {result.windows} windows of {result.context}"
    if isinstance(result, Perplexity):
        return f"perplexity {result.perplexity:.4f} +- {result.error:.4f}  ({where})"
    return (
        f"kl mean {result.kl_mean:.6f} +- {result.kl_error:.6f}, median {result.kl_median:.6f}, "
        f"99 % {result.kl_99:.6f}, max {result.kl_max:.6f}\n"
        f"same top token {100 * result.same_top:.2f} %, rms of the change of p {100 * result.rms_dp:.3f} %\n"
        f"perplexity {result.perplexity:.4f}, of the base {result.base_perplexity:.4f}  ({where})"
    )


def opened(args: argparse.Namespace, stack: ExitStack) -> LLM | BaseLogits:
    """The base of a divergence. Raises: InvalidParams unless exactly one is named."""
    from tokamak.engine.quality import BaseLogits

    if (args.base is None) == (args.base_logits is None):
        raise InvalidParams("kl needs one of --base MODEL, --base-logits FILE and --save-logits FILE")
    if args.base_logits is not None:
        return BaseLogits.open(args.base_logits)
    return stack.enter_context(load_model(argparse.Namespace(**{**vars(args), "model": args.base})))


def execute(args: argparse.Namespace) -> int:
    """Measure and print."""
    from tokamak.engine import quality

    text = file_text(args.file)
    if args.context is None:
        args.context = args.window  # no more cache than a window needs
    if args.context < args.window:
        raise InvalidParams(f"--context {args.context} holds no window of {args.window} tokens")
    options = {"context": args.window, "chunks": args.chunks}
    saving = args.kind == "kl" and args.save_logits is not None
    with ExitStack() as stack:
        base = opened(args, stack) if args.kind == "kl" and not saving else None
        llm = stack.enter_context(load_model(args))
        progress = stack.enter_context(counting_bar("windows", quiet=args.quiet))
        if saving:
            nbytes = quality.save_logits(args.save_logits, llm, text, progress=progress, **options)
            facts = {"out": args.save_logits, "nbytes": nbytes}
            line = f"{args.save_logits}: {human_nbytes(nbytes)}"
        else:
            result = (
                quality.perplexity(llm, text, progress=progress, **options)
                if base is None
                else quality.divergence(llm, base, text, progress=progress, **options)
            )
            facts, line = dict(quality.facts(result)), report(result)
    if args.json:
        print_json({"kind": args.kind, "model": args.model, **facts})
    else:
        print(line)
    return 0
