"""`tokamak run`: one completion, streamed to stdout."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from tokamak.cli.arguments import (
    add_loading,
    add_model,
    add_sampling,
    load_model,
    piped_text,
    sampling_params,
)
from tokamak.cli.console import print_json, remark

if TYPE_CHECKING:
    from tokamak.engine.completion import Completion
    from tokamak.engine.llm import LLM
    from tokamak.sampling import SamplingParams

SUMMARY = "Complete a text and stream the completion to stdout."
EXAMPLES = """  tokamak run -p "Once upon a time"
  tokamak run model.gguf -p "What is a tokamak?" -n 200 --temperature 0
  tokamak run model.gguf --raw -p "def fib(n):" --stop "\\n\\n" --stop "def "
  tokamak run model.gguf -p "Hello" --seed 7 --json > out.json
  cat notes.txt | tokamak run model.gguf -n 100
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The prompt and everything about the completion."""
    add_model(parser)
    parser.add_argument("-p", "--prompt", metavar="TEXT", help="the text to continue (default: from stdin)")
    parser.add_argument(
        "-n", "--max-tokens", type=int, default=128, metavar="N", help="tokens at most (default 128)"
    )
    parser.add_argument(
        "--min-tokens", type=int, metavar="N", help="no end of text before so many (default 0)"
    )
    parser.add_argument(
        "--raw", action="store_true", help="continue the text as it is, without the model's chat template"
    )
    parser.add_argument(
        "--logprobs", type=int, metavar="K", help="with --json: log-probabilities of K alternatives"
    )
    add_sampling(parser)
    add_loading(parser)


def prompt_of(llm: LLM, text: str, *, raw: bool) -> str | list[int]:
    """The text, or its ids in the model's chat template where the model has one and --raw is absent."""
    if raw or llm.tokenizer is None or llm.tokenizer.chat_template is None:
        return text
    return llm.chat_ids([{"role": "user", "content": text}])


def facts(done: Completion) -> dict[str, Any]:
    """The JSON of a completion; rates are null where there is nothing to divide."""
    timings = done.timings
    out: dict[str, Any] = {
        "text": done.text,
        "token_ids": done.token_ids,
        "finish_reason": done.finish_reason,
        "prompt_tokens": done.usage.prompt_tokens,
        "completion_tokens": done.usage.completion_tokens,
        "seed": done.seed,
        "timings": {
            "load_s": timings.load_s,
            "ttft_s": timings.ttft_s,
            "prefill_tok_s": timings.prefill_tok_s,
            "decode_tok_s": timings.decode_tok_s,
        },
    }
    if done.logprobs is not None:
        out["logprobs"] = [
            None
            if entry is None
            else {
                "token_id": entry.token_id,
                "logprob": entry.logprob,
                "top": [{"token_id": i, "logprob": p} for i, p in entry.top],
            }
            for entry in done.logprobs
        ]
    return out


def speed(done: Completion, context: int) -> str:
    """One line about a completion for people. context: tokens that fit."""
    t = done.timings
    rates = [f"{t.prefill_tok_s:.0f} tok/s prompt" if t.prefill_tok_s else ""]
    rates += [f"{t.decode_tok_s:.1f} tok/s" if t.decode_tok_s else ""]
    counts = f"{done.usage.prompt_tokens} + {done.usage.completion_tokens} tokens of {context}"
    return ", ".join(["[" + counts, *filter(None, rates), f"{done.finish_reason}, seed {done.seed}]"])


def stream_out(llm: LLM, prompt: str | list[int], params: SamplingParams, before: str = "") -> Completion:
    """Write `before`, then the pieces of a completion as they come; return the whole.

    Nothing is written when the prompt is refused. Raises: as `LLM.stream`.
    """
    stream = llm.stream(prompt, params)
    sys.stdout.write(before)
    for piece in stream:
        sys.stdout.write(piece)
        sys.stdout.flush()
    return stream.completion


def execute(args: argparse.Namespace) -> int:
    """Load, complete, report."""
    params = sampling_params(
        args, max_tokens=args.max_tokens, min_tokens=args.min_tokens, logprobs=args.logprobs
    )
    text = piped_text("prompt") if args.prompt is None else args.prompt
    with load_model(args) as llm:
        prompt = prompt_of(llm, text, raw=args.raw)
        if args.json:
            print_json(facts(llm.generate(prompt, params)))
            return 0
        done = stream_out(llm, prompt, params, before=prompt if isinstance(prompt, str) else "")
        sys.stdout.write("\n")
        remark(speed(done, llm.context), quiet=args.quiet)
    return 0
