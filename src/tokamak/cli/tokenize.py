"""`tokamak tokenize`: text to token ids, with pieces and offsets."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from tokamak.cli.arguments import file_text, piped_text
from tokamak.cli.console import human_nbytes, loading_bar, print_json
from tokamak.cli.tokenizers import open_tokenizer
from tokamak.errors import InvalidParams

SUMMARY = "Turn text into token ids, with the pieces of the vocabulary and their places in the text."
EXAMPLES = """  tokamak tokenize "Once upon a time"
  tokamak tokenize model.gguf "Hello world" --json
  tokamak tokenize model.gguf --file story.txt --no-special
  echo "Hello" | tokamak tokenize model.gguf
  tokamak tokenize tokenizer.json --corpus books.txt --out books.npy
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the text, and what is special."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[MODEL] [TEXT]",
        help="a lone argument is MODEL if such a file exists or --file or --corpus is given, else TEXT for the "
        "embedded model",
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
    corpus = parser.add_argument_group("a corpus to arrays")
    corpus.add_argument("--corpus", nargs="+", metavar="F", help="text files; a run that was killed goes on")
    corpus.add_argument(
        "--out", metavar="O", help="O.npy (ids; boundaries of documents in O.offsets.npy) or O.arrow"
    )
    corpus.add_argument(
        "--documents",
        choices=("line", "file", "jsonl"),
        default="line",
        help="what a document is: a line that is not empty, a file, or a member of each line's JSON object",
    )
    corpus.add_argument("--field", default="text", metavar="NAME", help="that member (default text)")


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
    if args.corpus or args.out:
        return execute_corpus(args)
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


def execute_corpus(args: argparse.Namespace) -> int:
    """Encode files to --out, with a bar, and print what was done."""
    from tokamak.tokenizers.corpus import CorpusOptions, tokenize_corpus

    if not args.corpus or not args.out or args.file is not None or len(args.words) > 1:
        raise InvalidParams("a corpus needs --corpus F and --out O, and besides them at most MODEL")
    tokenizer = open_tokenizer(args.words[0] if args.words else None, quiet=args.quiet)
    options = CorpusOptions(
        unit=args.documents,
        field=args.field,
        add_special=args.special,
        parse_special=args.parse_special,
        threads=args.threads,
    )
    with loading_bar("tokenizing", quiet=args.quiet) as bar:
        progress = None if bar is None else (lambda done, total, _: bar(done, total))
        report = tokenize_corpus(tokenizer, args.corpus, args.out, options, progress)
    if args.json:
        print_json({f.name: _plain(getattr(report, f.name)) for f in fields(report)})
        return 0
    speed = report.source_nbytes / max(report.took_s, 1e-9)
    went_on = f" (went on after {report.resumed_at})" if report.resumed_at else ""
    print(
        f"{report.out}: {report.tokens} tokens of {report.documents} documents{went_on}, "
        f"{human_nbytes(report.source_nbytes)} in {report.took_s:.1f} s, {human_nbytes(int(speed))}/s"
    )
    return 0


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value
