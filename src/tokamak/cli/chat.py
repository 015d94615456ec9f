"""`tokamak chat`: a conversation in the terminal with the model's own template."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tokamak.cli.arguments import add_loading, add_model, load_model
from tokamak.cli.console import print_json, remark
from tokamak.cli.dialogue import Conversation, command
from tokamak.cli.run import facts, speed
from tokamak.cli.sampling import add_sampling, sampling_params
from tokamak.errors import TokamakError, UnsupportedError
from tokamak.settings import Settings

SUMMARY = "Talk to a model. Commands inside: /help lists them, /exit leaves."
EXAMPLES = """  tokamak chat model.gguf
  tokamak chat model.gguf --system "Answer in one sentence." --temperature 0.7
  tokamak chat large.gguf --draft small.gguf --context-shift --keep 64
  printf 'Hello\\n/exit\\n' | tokamak chat model.gguf
"""
HISTORY_LINES = 1000
FENCE = '"""'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The system message and everything about answers."""
    add_model(parser)
    parser.add_argument(
        "--system",
        "-sys",
        "--system-prompt",
        dest="system",
        metavar="TEXT",
        help="message that comes before the conversation",
    )
    parser.add_argument(
        "-n", "--max-tokens", "--predict", "--n-predict", dest="max_tokens", type=int, default=None, metavar="N",
        help="tokens an answer (default 512)",
    )  # fmt: skip
    parser.add_argument(
        "--no-history", action="store_true", help="neither read nor write the lines typed before"
    )
    add_sampling(parser)
    add_loading(parser)


def read_line(mark: str = "> ") -> str | None:
    """The next line, with line editing and history on a terminal; None at the end of input."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.rstrip("\n") if line else None
    try:
        return input(mark)
    except EOFError:
        return None


def read_text() -> str | None:
    """One question: a line, lines that end in a backslash, or what stands between two lines of three quotes."""
    line = read_line()
    if line is None or line.strip() == FENCE:
        lines = []
        while line is not None and (more := read_line(". ")) is not None and more.strip() != FENCE:
            lines.append(more)
        return None if line is None else "\n".join(lines)
    while line.endswith("\\"):
        more = read_line(". ")
        line = line[:-1] + ("" if more is None else "\n" + more)
        if more is None:
            break
    return line.strip()


@contextlib.contextmanager
def line_history(*, keep: bool) -> Iterator[None]:
    """Line editing, and the lines of earlier conversations; written back at the end, readable by their owner only."""
    import readline

    path = Path(Settings.load().cache_dir) / "chat_history"
    if keep:
        with contextlib.suppress(OSError):
            readline.read_history_file(path)
    readline.set_history_length(HISTORY_LINES)
    try:
        yield
    finally:
        if keep:
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
                readline.write_history_file(path)


def talk(conversation: Conversation, args: argparse.Namespace) -> None:
    """Read questions and answer them until /exit or the end of input."""
    while (text := read_text()) is not None:
        question: str | None = text
        try:
            if text.startswith("/"):
                question = command(conversation, text)
            if not question:
                continue
            done = conversation.ask(question)
        except EOFError:
            return
        except TokamakError as error:  # a question that does not fit leaves the conversation as it was
            remark(f"tokamak: {error}", quiet=False)
            continue
        sys.stdout.write("\n" if done is not None else "\n[stopped]\n")
        sys.stdout.flush()
        if done is not None and not args.quiet and sys.stderr.isatty():
            remark(speed(done, conversation.llm.context), quiet=False)


def execute(args: argparse.Namespace) -> int:
    """Load and talk; with --json the whole conversation is one document at the end."""
    params = sampling_params(args, max_tokens=args.max_tokens)
    with load_model(args) as llm, contextlib.ExitStack() as around:
        if llm.tokenizer is None or llm.tokenizer.chat_template is None:
            raise UnsupportedError(
                f"{args.model or 'the embedded model'} has no chat template; use `tokamak run` for plain completion"
            )
        if sys.stdin.isatty():
            around.enter_context(line_history(keep=not args.no_history))
            remark("/help lists the commands, /exit leaves.", quiet=args.quiet)
        conversation = Conversation(llm, params, args.system)
        if args.json:
            with contextlib.redirect_stdout(sys.stderr):
                talk(conversation, args)
            answers = [facts(a) for a in conversation.answers]
            print_json({"messages": conversation.messages, "answers": answers})
        else:
            talk(conversation, args)
    return 0
