"""`tokamak chat`: a conversation in the terminal with the model's own template."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from tokamak.cli.arguments import add_loading, add_model, load_model
from tokamak.cli.console import print_json, remark
from tokamak.cli.run import facts, speed, stream_out
from tokamak.cli.sampling import add_sampling, sampling_params
from tokamak.errors import Cancelled, TokamakError, UnsupportedError

if TYPE_CHECKING:
    from tokamak.engine.completion import Completion
    from tokamak.engine.llm import LLM
    from tokamak.sampling import SamplingParams

SUMMARY = "Talk to a model. Commands inside: /help, /clear, /metrics, /exit."
EXAMPLES = """  tokamak chat model.gguf
  tokamak chat model.gguf --system "Answer in one sentence." --temperature 0.7
  printf 'Hello\\n/exit\\n' | tokamak chat model.gguf
"""
HELP = """/help     this text
/clear    forget the conversation
/metrics  tokens and speed so far
/exit     leave (also Ctrl-D)
Ctrl-C stops an answer; at the prompt it leaves."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The system message and everything about answers."""
    add_model(parser)
    parser.add_argument("--system", metavar="TEXT", help="message that comes before the conversation")
    parser.add_argument(
        "-n", "--max-tokens", type=int, default=512, metavar="N", help="tokens an answer (default 512)"
    )
    add_sampling(parser)
    add_loading(parser)


DEFAULT_ANSWER = 512


class Conversation:
    """Messages so far, and what they cost."""

    def __init__(self, llm: LLM, params: SamplingParams, system: str | None) -> None:
        self.llm, self.params = llm, params
        self.system = [] if system is None else [{"role": "system", "content": system}]
        self.messages = list(self.system)
        self.answers: list[Completion] = []

    def clear(self) -> None:
        """Forget everything but the system message."""
        self.messages = list(self.system)

    def ask(self, text: str) -> Completion | None:
        """Stream the answer to `text` and remember both; None, and nothing remembered, when it was stopped."""
        messages = [*self.messages, {"role": "user", "content": text}]
        prompt = self.llm.chat_ids(messages)
        params = self.params
        if params.max_tokens is None:
            room = max(1, self.llm.context - len(prompt))
            params = params.replaced(max_tokens=min(DEFAULT_ANSWER, room))
        try:
            done = stream_out(self.llm, prompt, params)
        except (KeyboardInterrupt, Cancelled):
            return None
        self.messages = [*messages, {"role": "assistant", "content": done.text}]
        self.answers.append(done)
        return done

    def metrics(self) -> str:
        """What /metrics prints."""
        prompt = sum(a.usage.prompt_tokens for a in self.answers)
        made = sum(a.usage.completion_tokens for a in self.answers)
        cached = sum(a.usage.cached_tokens for a in self.answers)
        lines = [
            f"{len(self.answers)} answers, {prompt} prompt tokens ({cached} from the cache), {made} generated"
        ]
        return "\n".join([*lines, *(speed(a, self.llm.context) for a in self.answers[-1:])])


def read_line() -> str | None:
    """The next line, with line editing and history on a terminal; None at the end of input."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.rstrip("\n") if line else None
    try:
        return input("> ")
    except EOFError:
        return None


def command(conversation: Conversation, line: str) -> bool:
    """Do what a line beginning with '/' says; False to leave."""
    if line == "/exit":
        return False
    if line == "/clear":
        conversation.clear()
        print("The conversation is forgotten.")
    elif line == "/metrics":
        print(conversation.metrics())
    elif line == "/help":
        print(HELP)
    else:
        print(f"{line.split(maxsplit=1)[0]} is unknown.\n{HELP}")
    return True


def talk(conversation: Conversation, args: argparse.Namespace) -> None:
    """Read lines and answer them until /exit or the end of input."""
    while (line := read_line()) is not None:
        line = line.strip()
        if line.startswith("/"):
            if not command(conversation, line):
                return
        elif line:
            try:
                done = conversation.ask(line)
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
    with load_model(args) as llm:
        if llm.tokenizer is None or llm.tokenizer.chat_template is None:
            raise UnsupportedError(
                f"{args.model or 'the embedded model'} has no chat template; use `tokamak run` for plain completion"
            )
        if sys.stdin.isatty():
            import readline  # noqa: F401  line editing and history for input()

            remark("/help lists the commands, /exit leaves.", quiet=args.quiet)
        conversation = Conversation(llm, params, args.system)
        if args.json:
            from contextlib import redirect_stdout

            with redirect_stdout(sys.stderr):
                talk(conversation, args)
            answers = [facts(a) for a in conversation.answers]
            print_json({"messages": conversation.messages, "answers": answers})
        else:
            talk(conversation, args)
    return 0
