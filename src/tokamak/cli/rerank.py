"""`tokamak rerank`: documents by how well they answer a question."""

from __future__ import annotations

import argparse

from tokamak.cli.arguments import add_loading, load_model, piped_text
from tokamak.cli.console import print_json
from tokamak.errors import InvalidParams, UnsupportedError

SUMMARY = "Score documents against a query with a model that has a ranking head."
EXAMPLES = """  tokamak rerank reranker.gguf -q "where do pandas live" -d "in China" -d "on Mars"
  tokamak rerank bge-reranker/ -q "where do pandas live" --top 3 --json < one-document-per-line.txt
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the query, the documents."""
    parser.add_argument("model", metavar="MODEL", help="a .gguf file or a directory, a cross-encoder")
    parser.add_argument("-q", "--query", required=True, metavar="TEXT", help="what is asked")
    parser.add_argument(
        "-d",
        "--document",
        action="append",
        metavar="TEXT",
        help="may be given again; default: one a line from stdin",
    )
    parser.add_argument("--top", type=int, metavar="N", help="only the best so many")
    add_loading(parser)


def execute(args: argparse.Namespace) -> int:
    """Print score and document, best first; the score is raw, before any sigmoid."""
    if args.top is not None and args.top < 1:
        raise InvalidParams(f"--top is {args.top}; it must be 1 or more")
    documents = args.document or [line for line in piped_text("documents").splitlines() if line.strip()]
    if not documents:
        raise InvalidParams("there is no document to rank")
    with load_model(args) as llm:
        rank = getattr(llm, "rerank", None)
        if rank is None:
            raise UnsupportedError(f"{llm.facts['architecture']} has no head that ranks documents")
        scores = rank(args.query, documents)
    best = sorted(range(len(documents)), key=lambda i: (-scores[i], i))[: args.top]
    if args.json:
        found = [{"index": i, "relevance_score": float(scores[i]), "document": documents[i]} for i in best]
        print_json({"query": args.query, "results": found})
        return 0
    for i in best:
        print(f"{scores[i]:9.4f}  {documents[i]}")
    return 0
