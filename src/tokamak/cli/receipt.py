"""The evidence of a run, written to a file where that is asked for."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tokamak.cli.arguments import add_loading

if TYPE_CHECKING:
    from tokamak.engine.llm import LLM
    from tokamak.types import KernelRecord


def overrides(args: argparse.Namespace) -> dict[str, object]:
    """The options of loading that were given, by name; what is not among them is as the file says."""
    parser = argparse.ArgumentParser()
    add_loading(parser)
    return {
        name: value
        for name, usual in vars(parser.parse_args([])).items()
        if (value := getattr(args, name, usual)) != usual
    }


def write_receipt(
    args: argparse.Namespace,
    llm: LLM,
    kernels: Sequence[KernelRecord],
    results: Mapping[str, object],
    samples: Sequence[Mapping[str, object]],
) -> None:
    """Write to `args.receipt` what ran: the kernels as their program counted them, the file by its digest.

    results: totals and rates. samples: tokens and seconds of each repetition. Raises: CheckFailed without kernels or tokens.
    """
    from tokamak.bench.suites import by_kernel
    from tokamak.engine.contents import formats
    from tokamak.engine.loading import default_model
    from tokamak.loaders import open_checkpoint
    from tokamak.observe import receipts

    checkpoint = open_checkpoint(default_model() if args.model is None else args.model)
    by_format = formats(checkpoint.weights)
    receipt = receipts.make(
        executor="reference" if args.executor == "reference" else "cpu",
        executor_reason=f"{args.executor or 'auto'} was asked for",
        kernels=by_kernel(kernels),
        threads=llm.facts["threads"],
        model={
            "name": Path(checkpoint.path).name,
            "sha256": receipts.sha256(checkpoint.path),
            "weight_types": {f["format"]: f["tensors"] for f in by_format},
            "parameters": sum(f["parameters"] for f in by_format),
        },
        tokenizer={
            "sha256": llm.tokenizer.digest.hex() if llm.tokenizer else None,
            "strategy": llm.facts["tokenizer"],
        },
        results=results,
        samples=samples,
        overrides=overrides(args),
    )
    receipts.write(args.receipt, receipt)
