"""`tokamak imatrix`: calibration data for `tokamak quantize`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tokamak.cli.arguments import file_text
from tokamak.cli.console import counting_bar, print_json

SUMMARY = "Measure on a text how large the activations are that meet each column of each matrix."
EXAMPLES = """  tokamak imatrix model-f16.gguf --file calibration.txt
  tokamak imatrix model-f16.gguf --file calibration.txt -o imatrix.gguf --chunks 100
  tokamak quantize model-f16.gguf small.gguf --to iq3_xxs --imatrix imatrix.gguf
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, text, windows."""
    parser.add_argument("model", metavar="MODEL", help="a .gguf file, best in f16, bf16 or f32")
    parser.add_argument("--file", required=True, metavar="F", help="the text, - for stdin")
    parser.add_argument("-o", "--out", default="imatrix.gguf", metavar="OUT", help="default imatrix.gguf")
    parser.add_argument(
        "--context", type=int, default=512, metavar="N", help="tokens per window (default 512)"
    )
    parser.add_argument("--chunks", type=int, metavar="N", help="how many windows (default: all of the text)")
    parser.add_argument("--tokenizer", metavar="FILE", help="a tokenizer file that wins over the model's own")
    parser.add_argument("--executor", default="auto", metavar="NAME", help="auto, cpu or reference")


def execute(args: argparse.Namespace) -> int:
    """Measure and write."""
    from tokamak.engine.calibrate import measure_importance
    from tokamak.loaders.imatrix import write_imatrix

    text = file_text(args.file)
    began = time.perf_counter()
    with counting_bar("windows", quiet=args.quiet) as progress:
        matrix = measure_importance(
            args.model,
            text,
            dataset=Path(args.file).name,
            context=args.context,
            chunks=args.chunks,
            executor=args.executor,
            threads=args.threads,
            tokenizer=args.tokenizer,
            progress=progress,
        )
    write_imatrix(args.out, matrix)
    seconds = time.perf_counter() - began
    if args.json:
        facts = {"out": args.out, "entries": len(matrix.sums), "windows": matrix.num_chunks}
        print_json(facts | {"context": matrix.chunk_size, "seconds": seconds})
    else:
        tokens = matrix.num_chunks * matrix.chunk_size
        print(f"{args.out}: {len(matrix.sums)} tensors, {tokens} tokens, {seconds:.1f} s")
    return 0
