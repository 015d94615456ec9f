"""`tokamak tokenize`: text to token ids, with pieces and offsets."""

from __future__ import annotations

import argparse
from pathlib import Path

from tokamak.cli.arguments import file_text, piped_text
from tokamak.cli.console import print_json
from tokamak.cli.tokenizers import open_tokenizer
from tokamak.errors import InvalidParams

SUMMARY = "Turn text into token ids, with the pieces of the vocabulary and their places in the text."
EXAMPLES = """  tokamak tokenize "Once upon a time"
  tokamak tokenize model.gguf "Hello world" --json
  tokamak tokenize model.gguf --file story.txt --no-special
  echo "Hello" | tokamak tokenize model.gguf
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the text, and what is special."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[MODEL] [TEXT]",
        help="a lone argument is MODEL if such a file exists or --file is given, else TEXT for the embedded model",
    )
    parser.add_argument("--file", metavar="F", help="read the text from a file ('-': stdin)")
    parser.add_argument(
        "--special",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="put bos and eos where the model wants them (default yes)",
    )
    parser.add_argument(
        "--parse-special", action="store_true", help="read names of special tokens as those tokens"
    )


def model_and_text(words: list[str], file: str | None) -> tuple[str | None, str | None]:
    """Which of the words is MODEL and which TEXT; None for what was not given.

    Raises: InvalidParams for more than two words, or a text beside --file.
    """
    if len(words) > (2 if file is None else 1):
        raise InvalidParams(
            f"{len(words)} arguments; quote the text: tokenize [MODEL] [TEXT], or MODEL and --file"
        )
    if len(words) == 2:
        return words[0], words[1]
    if not words:
        return None, None
    is_model = file is not None or Path(words[0]).exists() or words[0].endswith(".gguf")
    return (words[0], None) if is_model else (None, words[0])


def execute(args: argparse.Namespace) -> int:
    """Print the ids, one token a line, or everything as JSON."""
    model, text = model_and_text(args.words, args.file)
    if args.file is not None:
        text = file_text(args.file)
    elif text is None:
        text = piped_text("text")
    tokenizer = open_tokenizer(model, quiet=args.quiet)
    encoding = tokenizer.encode_full(text, add_special=args.special, parse_special=args.parse_special)
    ids, offsets = encoding.ids.tolist(), encoding.char_spans.tolist()
    if args.json:
        print_json({"ids": ids, "pieces": encoding.pieces, "offsets": offsets})
        return 0
    for token_id, piece, (start, end) in zip(ids, encoding.pieces, offsets, strict=True):
        print(f"{token_id}\t{piece!r}\t{start}..{end}")
    return 0
