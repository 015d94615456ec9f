"""`tokamak crosscheck`: the same model in a reference engine."""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tokamak.cli.arguments import add_loading, add_model, file_text, load_model
from tokamak.cli.console import print_json, remark
from tokamak.errors import InvalidParams, UnavailableError, UnsupportedError

if TYPE_CHECKING:
    from tokamak.bench.crosscheck import Choice, Report
    from tokamak.bench.peers import Peer
    from tokamak.engine.llm import LLM

SUMMARY = (
    "Compare ids, logits of every position and greedy text with llama.cpp, bitnet.cpp or transformers on the same weights, name the first\n"
    "value of the graph that differs; exit code 5 on a difference, 4 when there is no reference engine (status native_only)."
)
EXAMPLES = """  tokamak crosscheck model.gguf --against llama.cpp
  tokamak crosscheck model.gguf --against llama.cpp --perf
  tokamak crosscheck model.gguf --against transformers --reference DIR --peer-dtype bf16
  tokamak crosscheck model.gguf --against bitnet.cpp --runner build --activation silu
  tokamak crosscheck DIR --against transformers -n 64 --top-k 20 --json
"""
MOST_IDS = 256  # positions that are compared
WIDE_NBYTES = 1 << 31  # of a copy in float32 that is made to tell a peer's rounding from a fault


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the peer, the text."""
    add_model(parser)
    parser.add_argument(
        "--against",
        default="llama.cpp",
        metavar="PEER",
        help="llama.cpp (default), bitnet.cpp or transformers",
    )
    parser.add_argument(
        "--reference", metavar="PATH", help="the peer's own copy of the model (default: MODEL)"
    )
    parser.add_argument(
        "--peer-dtype", choices=("f32", "bf16"), default="f32", help="arithmetic of transformers"
    )
    parser.add_argument(
        "--runner", metavar="DIR",
        help="of a C++ engine: a source tree that is built; 'build' fetches and builds the pinned commit",
    )  # fmt: skip
    parser.add_argument(
        "--activation", choices=("relu2", "silu"),
        help="run a BitNet file with this gate: some C++ engines compute the other one",
    )  # fmt: skip
    parser.add_argument(
        "-f", "--file", metavar="F", help="text to compare on; - is stdin (default: a mixed line)"
    )
    parser.add_argument("-n", type=int, default=16, metavar="N", help="greedy tokens to compare (default 16)")
    parser.add_argument(
        "--top-k", type=int, default=10, metavar="K", help="likeliest tokens compared as a set (default 10)"
    )
    parser.add_argument(
        "--cosine", type=float, metavar="C", help="least cosine (default 0.9999; quantised 0.995)"
    )
    parser.add_argument(
        "--node-tolerance", type=float, metavar="E", help="of an inner value (default 0.01; quantised 0.15)"
    )
    parser.add_argument(
        "--perf", nargs="?", type=float, const=20.0, metavar="SECONDS",
        help="also measure both engines in turns, in at most so many seconds (default 20, at most 30)",
    )  # fmt: skip
    add_loading(parser)


def copied(path: str, to: str | None, stack: ExitStack, architecture: str | None = None) -> str:
    """A copy of a model that lives as long as the stack. to: its format, None: as it is. architecture: its name."""
    from tokamak.loaders.quantize import quantize

    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tokamak-crosscheck-"))
    target = Path(folder) / "copy.gguf"
    quantize(path, target, to, architecture=architecture)
    return str(target)


def exact_form(args: argparse.Namespace, where: str, formats: set[str]) -> str | None:
    """How the peer is asked in float32, to tell its rounding of activations: "copy" of the weights, its "dtype", None: it is already."""
    path, short = Path(where), {"f16", "bf16"}
    if args.against == "transformers":
        return "dtype" if args.peer_dtype == "bf16" else None
    if not formats & short or formats - short - {"f32"} or path.is_dir():
        return None
    return "copy" if 2 * path.stat().st_size <= WIDE_NBYTES else None


def opened(args: argparse.Namespace, path: str, room: int, stack: ExitStack) -> tuple[Peer, tuple[str, ...]]:
    """The peer, closed with the stack, and what was done so that it reads the file."""
    from tokamak import models
    from tokamak.bench.peers import open_peer
    from tokamak.engine.contents import contents

    runner = args.runner
    if runner == "build":
        from tokamak.bench.runner import build
        from tokamak.settings import Settings

        folder = Settings.load().cache_dir / "reference"
        runner = build(args.against, folder, threads=args.threads, say=partial(remark, quiet=args.quiet))
    form = {"context": room, "threads": args.threads, "dtype": args.peer_dtype, "kv_dtype": args.kv_dtype}
    notes: tuple[str, ...] = ()
    try:
        peer = open_peer(args.against, path, runner=runner, **form)
    except UnsupportedError:
        known = str(contents(args.model)["architecture"])
        name = models.known_as(known)
        if args.against == "transformers" or name == known:
            raise
        copy = copied(path, None, stack, name)
        peer = open_peer(args.against, copy, runner=runner, **form)
        notes = (
            f"{args.against} does not read {known}; it read a copy named {name}, and computes as that name says",
        )
    stack.enter_context(closing(peer))
    return peer, notes


def compared(args: argparse.Namespace) -> Report:
    """Load both, compare. A peer that is not there, or that does not read the model, gives a report that says so."""
    from tokamak.bench.crosscheck import native_only
    from tokamak.bench.peers import PEERS
    from tokamak.bench.texts import TEXT, text_for
    from tokamak.engine.loading import default_model

    if args.against not in PEERS:
        raise InvalidParams(f"{args.against!r} is no reference engine; known: {', '.join(PEERS)}")
    args.kv_dtype = args.kv_dtype or "f32"
    more = {"prefix_cache_nbytes": 0} if args.perf else {}
    with ExitStack() as stack:
        llm = stack.enter_context(load_model(args, activation=args.activation, **more))
        text = file_text(args.file) if args.file else TEXT
        if llm.tokenizer and not args.file:
            text = text_for(llm.tokenizer, text)
        ids = llm.tokenizer.encode(text) if llm.tokenizer else list(range(1, min(64, llm.vocab_size)))
        ids = ids[: min(MOST_IDS, llm.context - args.n)]
        if not ids:
            raise InvalidParams("the text has no token to compare on")
        where, room = str(args.reference or args.model or default_model()), max(len(ids) + args.n, MOST_IDS)
        remark(f"loading {args.against} ...", quiet=args.quiet)
        try:
            peer, notes = opened(args, where, room, stack)
        except (UnavailableError, UnsupportedError) as error:
            return native_only(args.against, error)
        report = checked(args, llm, peer, (text, ids, where))
    return replace(report, notes=(*notes, *report.notes))


def checked(args: argparse.Namespace, llm: LLM, peer: Peer, on: tuple[str, list[int], str]) -> Report:
    """Both are loaded: compare them, and measure them if that is asked for."""
    from tokamak.bench.crosscheck import crosscheck
    from tokamak.bench.parity import measure, paced
    from tokamak.bench.texts import collapsed, original
    from tokamak.engine.contents import contents

    text, ids, where = on
    facts = contents(args.model)
    formats = {str(f["format"]) for f in facts["formats"]}
    spaces = args.against != "transformers" and facts["metadata"].get(
        "tokenizer.ggml.remove_extra_whitespaces"
    )
    with ExitStack() as stack:
        how = exact_form(args, where, formats)

        def exact() -> Peer:
            wide = copied(where, "f32", stack) if how == "copy" else where
            asked = argparse.Namespace(**{**vars(args), "peer_dtype": "f32"})
            return opened(asked, wide, len(ids) + args.n, stack)[0]

        report = crosscheck(
            llm,
            peer,
            list(dict.fromkeys((*text.splitlines(), text))),
            ids,
            num_tokens=args.n,
            k=args.top_k,
            quantised=bool(formats - {"f32", "f16", "bf16"}),
            cosine=args.cosine,
            node_tolerance=args.node_tolerance,
            exact=exact if how else None,
            original=collapsed(peer) if spaces else original(where),
        )
    if args.perf:
        pace = measure(paced(llm), peer, ids, max(1, args.n), seconds=args.perf)
        report = replace(report, performance=pace)
    return report


def choice(side: Choice) -> str:
    """The two best tokens of one engine."""
    best = ", ".join(
        f"{t} {p!r} {v:.4f}" for t, p, v in zip(side.tokens, side.pieces, side.logits, strict=True)
    )
    return f"{best} (margin {side.margin:.4f})"


def lines(report: Report) -> list[str]:
    """A report for people."""
    if report.logits is None or report.greedy is None:
        return [f"{report.peer}: {report.status}, nothing was compared: {report.reason}"]
    same = sum(t.equal for t in report.tokens)
    found, greedy = report.logits, report.greedy
    numbers = (
        f"{found.positions} positions x {found.vocab_size}: cosine at least {found.cosine:.6f} (wanted "
        f"{report.cosine_wanted}), KL {found.kl_mean:.2e} (most {found.kl_most:.2e}) nats, top-1 equal in "
        f"{100 * found.top1:.1f} %, top-{found.k} shared {100 * found.topk:.1f} %"
    )
    out = [
        f"{report.peer} ({report.version}): {report.status}",
        f"  tokens   {same} of {len(report.tokens)} texts have equal ids",
        f"  logits   {numbers}",
    ]
    state = (
        "equal"
        if greedy.equal
        else f"part at {greedy.first}, margin {greedy.margin:.2f} x the engines' difference"
    )
    out.append(f"  greedy   {greedy.num_tokens} tokens: {state}")
    if greedy.ours and greedy.theirs:
        out += [f"           ours   {choice(greedy.ours)}", f"           theirs {choice(greedy.theirs)}"]
    if report.performance:
        out += [
            f"  {p.name:<8} {p.tokens} tokens: ours {p.ours:.1f}, theirs {p.theirs:.1f} tok/s, ratio {p.ratio:.3f} "
            f"(spread {100 * p.spread:.0f} % of {p.pairs} pairs)"
            for p in (report.performance.prompt, report.performance.decode)
        ]
    out += [f"  fault    {fault}" for fault in report.faults]
    out += [f"  node     {report.node}"] if report.node and report.faults else []
    return out + [f"  note     {note}" for note in report.notes]


def execute(args: argparse.Namespace) -> int:
    """Print what was found; exit code 5 for a difference, 4 where nothing could be compared."""
    report = compared(args)
    if args.json:
        print_json(report.facts())
    else:
        print("\n".join(lines(report)))
    return report.exit_code
