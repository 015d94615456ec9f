"""`tokamak detokenize`: token ids to text."""

from __future__ import annotations

import argparse
import re
import sys

from tokamak.cli.arguments import piped_text
from tokamak.cli.console import print_json
from tokamak.cli.tokenizers import open_tokenizer
from tokamak.errors import InvalidParams

SUMMARY = "Turn token ids into text."
EXAMPLES = """  tokamak detokenize 1 403 407
  tokamak detokenize model.gguf 1,403,407 --skip-special
  tokamak tokenize model.gguf "Hello" --json | tokamak detokenize model.gguf
"""
IDS = re.compile(r"[\s,\[\]]*(-?\d+[\s,\[\]]*)+")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model and the ids."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[MODEL] IDS",
        help="numbers apart by spaces or commas; default: from stdin",
    )
    parser.add_argument("--skip-special", action="store_true", help="leave special tokens out of the text")


def model_and_ids(words: list[str]) -> tuple[str | None, str | None]:
    """MODEL is a first word that is no list of numbers; the rest are ids."""
    model = words[0] if words and not IDS.fullmatch(words[0]) else None
    rest = words[1:] if model is not None else words
    return model, " ".join(rest) if rest else None


def parse_ids(text: str) -> list[int]:
    """Ids from a list of numbers, or from the JSON that `tokenize --json` prints.

    Raises: InvalidParams naming what is no number.
    """
    if text.lstrip().startswith("{"):
        import json

        try:
            ids = json.loads(text)["ids"]
        except (ValueError, KeyError) as error:
            raise InvalidParams(f"stdin is no JSON with ids: {error}") from error
        text = " ".join(map(str, ids)) if isinstance(ids, list) else str(ids)
    words = re.split(r"[\s,\[\]]+", text.strip(" \t\r\n,[]"))
    for word in words:
        if word and not re.fullmatch(r"-?\d{1,18}", word):
            raise InvalidParams(f"{word!r} is no token id")
    return [int(word) for word in words if word]


def execute(args: argparse.Namespace) -> int:
    """Print the text."""
    model, text = model_and_ids(args.words)
    ids = parse_ids(piped_text("token ids") if text is None else text)
    decoded = open_tokenizer(model, quiet=args.quiet).decode(ids, skip_special=args.skip_special)
    if args.json:
        print_json({"text": decoded})
    else:
        sys.stdout.write(decoded + "\n")
    return 0
