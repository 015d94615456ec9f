"""The command `tokamak`: finds the verb, parses its options, turns errors into one line and an exit code.

Each verb is a module of this package with `SUMMARY`, `EXAMPLES`, `add_arguments(parser)` and
`execute(args) -> int`; it is imported when it is asked for, so that `--help` starts at once.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import os
import sys
from collections.abc import Sequence

from tokamak import __version__
from tokamak.errors import TokamakError
from tokamak.settings import Settings

VERBS = {
    "run": "complete a text, streamed",
    "chat": "talk to a model in the terminal",
    "serve": "answer over HTTP, as OpenAI's API does",
    "tokenize": "text to token ids",
    "detokenize": "token ids to text",
    "embed": "vectors of texts",
    "rerank": "documents by how well they answer a question",
    "train-tokenizer": "a new vocabulary from text files",
    "inspect": "metadata, tensors, formats, memory and graph of a model file",
    "convert": "a directory with safetensors as GGUF, or a model packed for this machine",
    "bench": "prompt and decode speed against the limits of this machine",
    "crosscheck": "ids, logits and greedy text against llama.cpp or transformers",
    "quantize": "a GGUF file in a smaller weight format",
    "prune": "a model without its smallest weights, channels and heads",
    "imatrix": "how much each column of each matrix counts, for quantize",
    "eval": "how well a model predicts a text, or how far it is from another",
    "diff": "the first node of the graph where two executors differ",
    "tune": "find the settings with which this machine is fastest",
    "doctor": "what this machine has and what tokamak makes of it",
}
# Words that make a verb another one: `tokamak bench verify` is bench_verify.py.
SUBVERBS = {"bench": ("verify", "compare")}
EXIT_CODES = (
    "exit codes: 0 done, 1 runtime error, 2 usage, 3 model or tokenizer file refused,\n"
    "4 unavailable (hardware, dependency, network), 5 a check failed, 130 interrupted"
)
USAGE_ERROR = 2
INTERRUPTED = 130


def overview() -> str:
    """The text of `tokamak --help`."""
    verbs = "\n".join(f"  {verb:<17}{summary}" for verb, summary in VERBS.items())
    return (
        "usage: tokamak COMMAND [MODEL] [options]\n\n"
        "Low-bit language models on the machine you have. MODEL is a .gguf file; without it the\n"
        "embedded default model is used.\n\n"
        f"commands:\n{verbs}\n\n"
        "  tokamak COMMAND --help shows the options and examples of a command;\n"
        "  tokamak --version shows the version.\n\n"
        f"{EXIT_CODES}"
    )


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The parser of one verb: its own options, then the ones every verb has."""
    module = importlib.import_module(f"tokamak.cli.{verb.replace(' ', '_').replace('-', '_')}")
    parser = argparse.ArgumentParser(
        prog=f"tokamak {verb}",
        description=module.SUMMARY,
        epilog=f"examples:\n{module.EXAMPLES.rstrip()}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    group = parser.add_argument_group("common options")
    group.add_argument("--json", action="store_true", help="machine-readable output on stdout")
    group.add_argument(
        "--threads", "-t", type=int, metavar="N", help="threads (default: TOKAMAK_THREADS, then all CPUs)"
    )
    group.add_argument("--quiet", action="store_true", help="no progress and no remarks on stderr")
    parser.set_defaults(execute=module.execute)
    return parser


def complain(message: str) -> None:
    """Print one line on stderr; a message of several lines is joined."""
    print("tokamak: " + " ".join(message.split()), file=sys.stderr)


def unknown(verb: str) -> int:
    """Report a verb that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(verb, VERBS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(VERBS)}"
    complain(f"unknown command {verb!r}; {hint}")
    return USAGE_ERROR


def silence_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush into a closed pipe does not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_verb(verb: str, arguments: Sequence[str]) -> int:
    """Parse and execute one verb; every error becomes a line on stderr and an exit code."""
    try:
        args = parser_of(verb).parse_args(arguments)
        settings = Settings.load(threads=args.threads)
        args.threads_given = args.threads  # None: what was tuned may decide
        args.threads = settings.threads
        logging.basicConfig(level=settings.log.upper(), stream=sys.stderr, format="tokamak: %(message)s")
        code = int(args.execute(args))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has what it wanted, as in `tokamak run ... | head -1`
        silence_stdout()
        return 0
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except TokamakError as error:
        complain(str(error))
        return error.exit_code
    except (OSError, MemoryError) as error:
        complain(f"{type(error).__name__}: {error}")
        return 1
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run `tokamak` with `argv` (default: the process's arguments) and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if verb in ("-h", "--help", "help"):
        print(overview())
        return 0
    if verb == "--version":
        print(f"tokamak {__version__}")
        return 0
    if not verb:
        print(overview(), file=sys.stderr)
        return USAGE_ERROR
    if verb not in VERBS:
        return unknown(verb)
    if rest and rest[0] in SUBVERBS.get(verb, ()):
        return run_verb(f"{verb} {rest[0]}", rest[1:])
    return run_verb(verb, rest)
