"""`tokamak run`: one completion, streamed to stdout."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tokamak.cli.arguments import add_loading, add_model, file_text, load_model, piped_text
from tokamak.cli.console import print_json, remark
from tokamak.cli.receipt import write_receipt
from tokamak.cli.sampling import add_sampling, sampling_params
from tokamak.errors import CapacityError, FileRefused, InvalidParams

if TYPE_CHECKING:
    from tokamak.engine.completion import Completion
    from tokamak.engine.llm import LLM
    from tokamak.engine.resolve import Prompt
    from tokamak.sampling import SamplingParams

SUMMARY = "Complete a text and stream the completion to stdout."
EXAMPLES = """  tokamak run -p "Once upon a time"
  tokamak run model.gguf -p "What is a tokamak?" -n 200 --temperature 0
  tokamak run model.gguf --raw -p "def fib(n):" --stop "\\n\\n" --stop "def "
  tokamak run model.gguf -p "Hello" --seed 7 --json > out.json
  tokamak run llava.gguf --mmproj mmproj.gguf --image cat.png -p "What is this?"
  cat notes.txt | tokamak run model.gguf -n 100
  tokamak run model.gguf -f notes.txt --prompt-cache notes.kv --temp 0
  tokamak run code.gguf --raw -p "def add(a, b):" --suffix "return c"
  tokamak run large.gguf --draft small.gguf -p "Hello" --json-schema-file answer.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The prompt and everything about the completion."""
    add_model(parser)
    parser.add_argument("-p", "--prompt", metavar="TEXT", help="the text to continue (default: from stdin)")
    parser.add_argument("-f", "--file", metavar="FILE", help="the same from a file; - is stdin")
    parser.add_argument(
        "--image", action="append", metavar="FILE",
        help="an image the text is about, before it or where a --raw text says <image>; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "-n", "--max-tokens", "--predict", "--n-predict", dest="max_tokens", type=int, default=128, metavar="N",
        help="tokens at most; -1: until the context ends (default 128)",
    )  # fmt: skip
    parser.add_argument(
        "--suffix", metavar="TEXT", help="fill in between the prompt and this, by a model that was taught to"
    )
    parser.add_argument(
        "--prompt-cache",
        metavar="FILE",
        help="read the prompt's cache from this file, and write it there afterwards",
    )
    parser.add_argument(
        "--prompt-cache-all",
        action="store_true",
        help="write the completion's cache too, to go on from there",
    )
    parser.add_argument("--prompt-cache-ro", action="store_true", help="read it only")
    parser.add_argument(
        "--min-tokens", type=int, metavar="N", help="no end of text before so many (default 0)"
    )
    parser.add_argument(
        "--raw", action="store_true", help="continue the text as it is, without the model's chat template"
    )
    parser.add_argument(
        "--logprobs", type=int, metavar="K", help="with --json: log-probabilities of K alternatives"
    )
    parser.add_argument(
        "--receipt", metavar="F", help="write to a file what ran; `tokamak bench verify F` checks it"
    )
    add_sampling(parser, search=True)
    add_loading(parser)


def prompt_of(llm: LLM, text: str, *, raw: bool, images: Sequence[str] = ()) -> Any:
    """The text, or its ids in the model's chat template where the model has one and --raw is absent; with its images."""
    if images:
        if raw or llm.tokenizer is None or llm.tokenizer.chat_template is None:
            return llm.illustrate(text, images)
        parts = [{"type": "image", "image": image} for image in images]
        return llm.chat_prompt([{"role": "user", "content": [*parts, {"type": "text", "text": text}]}])
    if raw or llm.tokenizer is None or llm.tokenizer.chat_template is None:
        return text
    return llm.chat_prompt([{"role": "user", "content": text}])


def facts(done: Completion) -> dict[str, Any]:
    """The JSON of a completion; rates are null where there is nothing to divide."""
    timings = done.timings
    out: dict[str, Any] = {
        "text": done.text,
        "token_ids": done.token_ids,
        "finish_reason": done.finish_reason,
        "prompt_tokens": done.usage.prompt_tokens,
        "completion_tokens": done.usage.completion_tokens,
        "cached_tokens": done.usage.cached_tokens,
        "drafted_tokens": done.usage.drafted_tokens,
        "accepted_tokens": done.usage.accepted_tokens,
        "shifted_tokens": done.usage.shifted_tokens,
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


def stream_out(llm: LLM, prompt: Prompt, params: SamplingParams, before: str = "") -> Completion:
    """Write `before`, then the pieces of a completion as they come; return the whole.

    Nothing is written when the prompt is refused. Raises: as `LLM.stream`.
    """
    stream = llm.stream(prompt, params)
    sys.stdout.write(before)
    for piece in stream:
        sys.stdout.write(piece)
        sys.stdout.flush()
    return stream.completion


def restore(llm: LLM, args: argparse.Namespace) -> None:
    """Read the prompt cache, if there is one; one that does not fit is named and written anew."""
    if args.prompt_cache and Path(args.prompt_cache).exists():
        try:
            llm.load_state(args.prompt_cache)
        except (FileRefused, CapacityError) as error:
            remark(f"tokamak: {error}; the prompt is computed again", quiet=args.quiet)


def preserve(llm: LLM, args: argparse.Namespace, prompt: Any, done: Completion) -> None:
    """Write the prompt cache, if that was asked for."""
    if not args.prompt_cache or args.prompt_cache_ro:
        return
    if args.image:
        raise InvalidParams("--prompt-cache is not implemented for prompts with images")
    ids = (
        prompt
        if isinstance(prompt, list) or llm.tokenizer is None
        else llm.tokenizer.encode(prompt, parse_special=True)
    )
    more = done.token_ids[:-1] if args.prompt_cache_all else []
    llm.save_state(args.prompt_cache, [*ids, *more])


def asked_prompt(llm: LLM, args: argparse.Namespace, text: str) -> Any:
    """What the model reads."""
    if args.suffix is not None and args.image:
        raise InvalidParams("--suffix and --image are given; give one of them")
    if args.suffix is not None:
        return llm.infill_ids(text, args.suffix)
    return prompt_of(llm, text, raw=args.raw, images=args.image or ())


@contextmanager
def evidence(args: argparse.Namespace, llm: LLM, done: list[Completion]) -> Iterator[None]:
    """Write the receipt of what is computed inside, where --receipt asks for it; `done` holds its completion afterwards."""
    if not args.receipt:
        yield
        return
    from tokamak.bench.suites import since

    before, start = llm.program.records(), perf_counter()
    yield
    seconds, kernels, usage = perf_counter() - start, since(before, llm.program.records()), done[0].usage
    read, made = usage.prompt_tokens - usage.cached_tokens, usage.completion_tokens
    results = {
        "prompt_tokens": read,
        "generated_tokens": made,
        "cached_tokens": usage.cached_tokens,
        "seconds": seconds,
        "ttft_seconds": done[0].timings.ttft_s,
        "nbytes_read": sum(k.nbytes for k in kernels),
    }
    write_receipt(
        args, llm, kernels, results, [{"case": "completion", "tokens": read + made, "seconds": seconds}]
    )


def complete(llm: LLM, prompt: Any, params: SamplingParams, args: argparse.Namespace) -> Completion:
    """The completion; without --json its text is on stdout, as it came where that is possible."""
    before = prompt if isinstance(prompt, str) else ""
    whole = args.json or params.num_beams > 1 or params.num_samples > 1
    done: list[Completion] = []
    with evidence(args, llm, done):
        done.append(llm.generate(prompt, params) if whole else stream_out(llm, prompt, params, before=before))
    if whole and not args.json:
        sys.stdout.write(before + done[0].text)
    return done[0]


def execute(args: argparse.Namespace) -> int:
    """Load, complete, report."""
    params = sampling_params(
        args, max_tokens=args.max_tokens, min_tokens=args.min_tokens, logprobs=args.logprobs
    )
    if args.prompt is not None and args.file is not None:
        raise InvalidParams("--prompt and --file are given; give one of them")
    text = args.prompt
    if text is None:
        text = piped_text("prompt") if args.file is None else file_text(args.file)
    with load_model(args) as llm:
        prompt = asked_prompt(llm, args, text)
        restore(llm, args)
        done = complete(llm, prompt, params, args)
        preserve(llm, args, prompt, done)
        if args.json:
            print_json(facts(done))
            return 0
        sys.stdout.write("\n")
        remark(speed(done, llm.context), quiet=args.quiet)
    return 0
