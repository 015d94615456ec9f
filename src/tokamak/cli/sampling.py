"""Options about the completion itself, and their way into `SamplingParams`: one row each, with llama.cpp's names beside ours.

An option that is not given is not passed on, so that defaults live in one place: where they are used.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokamak.cli.arguments import file_text
from tokamak.errors import InvalidParams

if TYPE_CHECKING:
    from tokamak.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class Option:
    """names: the first is the field of SamplingParams, with dashes. kind: makes the value of the text, bool: a flag."""

    names: str
    kind: Callable[[str], Any] | type[bool]
    help: str

    @property
    def field(self) -> str:
        """Its name in `SamplingParams`."""
        return self.names.split()[0].replace("-", "_")


def words(text: str) -> list[str]:
    """Parts between commas or semicolons."""
    return [part.strip() for part in text.replace(";", ",").split(",") if part.strip()]


def biases(text: str) -> dict[int | str, float]:
    """TOKEN=AMOUNT between commas, or llama.cpp's TOKEN+AMOUNT; TOKEN is an id or a text."""
    found: dict[int | str, float] = {}
    for part in text.split(","):
        at = max(part.rfind(sign) for sign in "=+-") if "=" not in part else part.rfind("=")
        token, amount = part[:at], part[at:].lstrip("=")
        try:
            found[int(token) if token.isdecimal() else token] = float(amount)
        except ValueError:
            raise InvalidParams(
                f"--logit-bias {part!r} must be TOKEN=AMOUNT, as 15=-1.5 or ' cat'=2"
            ) from None
    return found


def schema(text: str) -> dict[str, Any]:
    """A JSON schema.  Raises: InvalidParams."""
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise InvalidParams(f"the JSON schema is no JSON: {error}") from None
    return found


OPTIONS = (
    Option("temperature temp", float, "0 is greedy (default 0.8)"),
    Option("top-k", int, "keep the K most likely tokens; 0: all (default 40)"),
    Option("top-p", float, "keep the smallest set of tokens that reaches this probability (default 0.95)"),
    Option("min-p", float, "keep tokens of at least this share of the likeliest one's probability (default 0.05)"),
    Option("typical-p typical", float, "keep tokens whose surprise is near the expected one (default 1: off)"),
    Option("tfs-z tfs", float, "cut the tail where the second derivative is spent (default 1: off)"),
    Option("eta-cutoff", float, "cut by entropy (default 0: off)"),
    Option("top-n-sigma top-nsigma", float, "keep logits within so many deviations of the largest (default off)"),
    Option("xtc-probability", float, "chance of dropping all likely tokens but the least (default 0)"),
    Option("xtc-threshold", float, "probability from which a token is likely (default 0.1)"),
    Option("dynatemp-range", float, "temperature plus and minus this, by entropy (default 0)"),
    Option("dynatemp-exponent dynatemp-exp", float, "exponent of the entropy (default 1)"),
    Option("mirostat", int, "1 or 2: keep the surprise near a target instead of filtering (default 0)"),
    Option("mirostat-tau mirostat-ent", float, "target in bits (default 5)"),
    Option("mirostat-eta mirostat-lr", float, "how fast it adapts (default 0.1)"),
    Option("repetition-penalty repeat-penalty", float, "divide the logits of tokens that occurred (default 1: off)"),
    Option("repetition-last-n repeat-last-n", int, "tokens that penalties look back; -1: all (default 64)"),
    Option("presence-penalty", float, "subtract from the logits of tokens that occurred (default 0)"),
    Option("frequency-penalty", float, "subtract as often as they occurred (default 0)"),
    Option("dry-multiplier", float, "penalise tokens that would go on a repetition (default 0: off)"),
    Option("dry-base", float, "growth with its length (default 1.75)"),
    Option("dry-allowed-length", int, "length that is allowed (default 2)"),
    Option("dry-last-n dry-penalty-last-n", int, "tokens that DRY looks back (default -1: all)"),
    Option("samplers", words, "the stages by name, in their order; others are off"),
    Option("logit-bias", biases, "TOKEN=AMOUNT by commas, an id or a text each; -inf bans"),
    Option("seed", int, "same seed, same text (default: drawn and reported)"),
    Option("ignore-eos", bool, "go on past end-of-text tokens"),
    Option("grammar", str, "GBNF that the text has to follow"),
    Option("json-schema", schema, "JSON schema that the text has to follow"),
    Option("regex", str, "regular expression that the text has to match"),
    Option("guidance-scale cfg-scale", float, "lead away from --negative-prompt; 1: off"),
    Option("negative-prompt", str, "what guidance leads away from"),
    Option("token-healing", bool, "take back a last token that could be the beginning of a longer one"),
    Option("speculation", str, "auto, off, lookup (what followed earlier in the text) or draft (see --draft)"),
    Option("speculation-tokens draft-max", int, "tokens guessed ahead at most (default 8)"),
    Option("context-shift", bool, "where the context ends, drop the oldest tokens and go on"),
    Option("keep", int, "tokens at the beginning that stay in a shift (default 0)"),
)  # fmt: skip
SEARCH = (
    Option("num-beams", int, "search with so many beams instead of drawing; nothing is shown before the end"),
    Option("length-penalty", float, "sum of log-probabilities / length ^ this (default 1)"),
    Option("early-stopping", lambda t: {"true": True, "false": False}.get(t.lower(), t), "true, false or never"),
    Option("best-of", int, "draw so many, show the most likely one"),
)  # fmt: skip


def add_sampling(parser: argparse.ArgumentParser, *, search: bool = False) -> None:
    """How the next token is chosen and when to stop. search: also what gives no text before its end."""
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "--preset", metavar="NAME", help="fast (greedy), balanced or quality; other options still win"
    )
    for option in OPTIONS + (SEARCH if search else ()):
        flags = [f"--{name}" for name in option.names.split()]
        if option.kind is bool:
            group.add_argument(*flags, action="store_true", default=None, help=option.help)
        else:
            metavar = {float: "X", int: "N"}.get(option.kind, "TEXT")  # type: ignore[call-overload]
            group.add_argument(
                *flags, dest=option.field, type=_typed(option.kind), metavar=metavar, help=option.help
            )
    group.add_argument(
        "--stop", "-r", "--reverse-prompt", dest="stop", action="append", metavar="TEXT",
        help="end before this text; may be repeated",
    )  # fmt: skip
    group.add_argument("--grammar-file", metavar="FILE", help="the same from a file")
    group.add_argument("--json-schema-file", metavar="FILE", help="the same from a file")


def _typed(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """The same for argparse, which shows the message of its own error only."""
    if isinstance(kind, type):
        return kind

    def convert(text: str) -> Any:
        try:
            return kind(text)
        except InvalidParams as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def sampling_params(args: argparse.Namespace, **more: Any) -> SamplingParams:
    """The SamplingParams of the options that were given. Raises: InvalidParams."""
    from tokamak.sampling import SamplingParams

    names = ["preset", "stop", *(option.field for option in OPTIONS + SEARCH)]
    given = {name: getattr(args, name, None) for name in names}
    if args.grammar_file is not None:
        given["grammar"] = file_text(args.grammar_file)
    if args.json_schema_file is not None:
        given["json_schema"] = schema(file_text(args.json_schema_file))
    given |= more
    return SamplingParams(**{name: value for name, value in given.items() if value is not None})
