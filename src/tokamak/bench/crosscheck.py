"""One model in two engines: the same ids, the same logits, the same greedy text, and where they first part.

Tolerances are for a float32 or float16 model against float32 arithmetic, or for quantised weights in an engine that rounds
activations to 8 bits too: the roundings of two engines differ, so quantised files are held to a looser cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tokamak.bench.nodes import NODE_FLOAT, NODE_QUANTISED, NodeDifference, first_difference
from tokamak.bench.parity import Performance
from tokamak.bench.peers import Peer
from tokamak.errors import TokamakError, UnsupportedError
from tokamak.observe.diff import one_sequence
from tokamak.types import Floats

if TYPE_CHECKING:
    from tokamak.engine.llm import LLM

COSINE_FLOAT = 0.9999
COSINE_QUANTISED = 0.995  # two 8-bit roundings of activations, worst position
AROUND = 24  # characters of text shown before a place where ids part
TOP = 10  # likeliest tokens that are compared as a set, unless told


@dataclass(frozen=True, slots=True)
class Tokens:
    """Ids of one text in both.

    first: index of the first difference, None for none; around: the text before it and both next pieces. authority: who else gives
    our ids, where the peer departs from the original tokenizer; such a difference is the peer's.
    """

    text: str
    equal: bool
    first: int | None
    ours: tuple[int, ...]
    theirs: tuple[int, ...]
    around: str | None = None
    authority: str | None = None


@dataclass(frozen=True, slots=True)
class Logits:
    """All positions, all of the vocabulary.

    cosine: the least of any position. kl: mean and greatest, nats, peer against us. top1: share of positions with the same likeliest
    token; topk: mean share of the peer's k likeliest that are among ours. error: max |difference| / standard deviation of the peer's.
    """

    positions: int
    vocab_size: int
    cosine: float
    kl_mean: float
    kl_most: float
    top1: float
    k: int
    topk: float
    error: float
    worst_position: int


@dataclass(frozen=True, slots=True)
class Choice:
    """The two best tokens of one engine at one position: ids, pieces of text, logits, and how far apart these are."""

    tokens: tuple[int, int]
    pieces: tuple[str, str]
    logits: tuple[float, float]
    margin: float


@dataclass(frozen=True, slots=True)
class Greedy:
    """Greedy tokens after the text.

    first: index where they part, None for never; ours, theirs: the two best of each engine there. margin: that of the peer over the
    greatest difference of both engines' logits at that position (below 1: a tie within their error).
    """

    num_tokens: int
    equal: bool
    first: int | None
    margin: float | None
    ours: Choice | None = None
    theirs: Choice | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything found.

    status: ok, divergence, or native_only: there was no peer to compare with, reason says why; that is never a pass.
    node: the first value that the peer has otherwise. notes: what a reader must know beside the faults.
    """

    peer: str
    version: str | None
    status: str
    tokens: tuple[Tokens, ...] = ()
    logits: Logits | None = None
    greedy: Greedy | None = None
    cosine_wanted: float | None = None
    node: NodeDifference | None = None
    performance: Performance | None = None
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def exit_code(self) -> int:
        """Of the command: 0 ok, 5 a difference, 4 no peer."""
        return {"ok": 0, "divergence": 5}.get(self.status, 4)

    def facts(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)

    def parity(self) -> dict[str, object]:
        """The part of a receipt that says how far the run was checked."""
        first = next(
            (t.first for t in self.tokens if not t.equal), self.greedy.first if self.greedy else None
        )
        return {
            "status": self.status,
            "peer": self.peer if self.status != "native_only" else None,
            "version": self.version,
            "first_difference": first,
            "cosine": self.logits.cosine if self.logits else None,
            "top1_agreement": self.logits.top1 if self.logits else None,
        }


def native_only(peer: str, error: TokamakError) -> Report:
    """The report of a check that had no peer."""
    return Report(peer, None, "native_only", reason=str(error))


def compare_tokens(
    ours: Sequence[int],
    theirs: Sequence[int],
    text: str,
    decode: Callable[[Sequence[int]], str] | None = None,
) -> Tokens:
    """Where two lists of ids part. decode: ids to text, for the words around the place."""
    pairs = zip(ours, theirs, strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if first is None and len(ours) != len(theirs):
        first = min(len(ours), len(theirs))
    around = None
    if first is not None and decode is not None:
        sides = [
            f"{list(ids[first : first + 3])} {decode(ids[first : first + 3])!r}"
            if first < len(ids)
            else "the end"
            for ids in (ours, theirs)
        ]
        around = f"after {decode(ours[:first])[-AROUND:]!r} ours {sides[0]}, theirs {sides[1]}"
    return Tokens(text, first is None, first, tuple(ours), tuple(theirs), around)


def _log_softmax(x: Floats) -> Floats:
    shifted = x - x.max(axis=-1, keepdims=True)
    out: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return out


def _shared_top(a: Floats, b: Floats, k: int) -> float:
    """Mean share of b's k greatest of each row that are among a's."""
    best = [np.argpartition(x, -k, axis=1)[:, -k:] for x in (a, b)]
    return float(np.mean([len(set(ours) & set(theirs)) / k for ours, theirs in zip(*best, strict=True)]))


def compare_logits(ours: Floats, theirs: Floats, k: int = TOP) -> Logits:
    """ours, theirs: f32[n, V]; a peer that pads its vocabulary is cut to ours. k: 1 .. V likeliest tokens that are compared."""
    width = min(ours.shape[1], theirs.shape[1])
    a, b = ours[:, :width].astype(np.float64), theirs[:, :width].astype(np.float64)
    # about the mean: softmax does not see it, and a common offset would make every cosine 1
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(axis=1) / np.maximum(norms, 1e-300)
    p, q = _log_softmax(b), _log_softmax(a)
    kl = (np.exp(p) * (p - q)).sum(axis=1)
    k = min(k, width)
    return Logits(
        positions=len(a),
        vocab_size=width,
        cosine=float(cosine.min()),
        kl_mean=float(kl.mean()),
        kl_most=float(kl.max()),
        top1=float(np.mean(a.argmax(axis=1) == b.argmax(axis=1))),
        k=k,
        topk=_shared_top(a, b, k),
        error=float(np.abs(a - b).max() / b.std()),
        worst_position=int(cosine.argmin()),
    )


def _choice(row: Floats, decode: Callable[[Sequence[int]], str] | None) -> Choice:
    second, best = (int(i) for i in np.argsort(row)[-2:])
    tokens = (best, second)
    pieces = tuple(decode([one]) if decode else "" for one in tokens)
    top, next_ = (float(row[one]) for one in tokens)
    return Choice(tokens, (pieces[0], pieces[1]), (top, next_), top - next_)


def compare_greedy(
    ids: Sequence[int],
    num_tokens: int,
    ours: Callable[[Sequence[int]], Floats],
    theirs: Callable[[Sequence[int]], Floats],
    decode: Callable[[Sequence[int]], str] | None = None,
) -> Greedy:
    """Let the peer choose token after token and ask us the same; ours, theirs: logits of every position of some ids.

    One pass each: the peer's choices are what both read, so a later token is compared on equal text.
    """
    text = list(ids)
    for i in range(num_tokens):
        theirs_row = theirs(text)[-1]
        chosen = int(theirs_row.argmax())
        ours_row = ours(text)[-1]
        if int(ours_row.argmax()) != chosen:
            width = min(len(ours_row), len(theirs_row))
            gap = float(np.abs(ours_row[:width] - theirs_row[:width]).max())
            sides = _choice(ours_row[:width], decode), _choice(theirs_row[:width], decode)
            margin = sides[1].margin / max(gap, 1e-30)
            return Greedy(num_tokens, equal=False, first=i, margin=margin, ours=sides[0], theirs=sides[1])
        text.append(chosen)
    return Greedy(num_tokens, equal=True, first=None, margin=None)


def first_node(llm: LLM, peer: Peer, ids: Sequence[int], tolerance: float) -> NodeDifference | None:
    """The first inner value that the peer has otherwise, None if there is none or it shows none.

    Raises: UnsupportedError if this build of the peer cannot show values.
    """
    nodes = peer.nodes(ids)
    if not nodes:
        return None
    return first_difference(
        llm.program.taps(one_sequence(ids, llm.program.limits.block_size)), nodes, tolerance
    )


def _texts(
    llm: LLM,
    peer: Peer,
    texts: Sequence[str],
    original: Callable[[str], tuple[str, Sequence[int]] | None] | None,
) -> tuple[Tokens, ...]:
    found: list[Tokens] = []
    for text in texts if llm.tokenizer is not None else ():
        theirs = peer.tokens(text)
        if theirs is None or llm.tokenizer is None:
            continue
        ours = llm.tokenizer.encode(text)
        one = compare_tokens(ours, theirs, text, llm.tokenizer.decode)
        asked = original(text) if original is not None and not one.equal else None
        if asked is not None and list(asked[1]) == ours:
            one = replace(one, authority=asked[0])
        found.append(one)
    return tuple(found)


def _judged(report: Report) -> Report:
    """With faults and status, by what was found."""
    found, greedy, wanted = report.logits, report.greedy, report.cosine_wanted or 0.0
    faults = [
        f"text {i}: ids part at {t.first}, {t.around}"
        for i, t in enumerate(report.tokens)
        if not t.equal and not t.authority
    ]
    notes = [
        f"text {i}: {report.peer} parts at {t.first} from {t.authority}, whose ids are ours; {t.around}"
        for i, t in enumerate(report.tokens)
        if t.authority
    ]
    if found is not None and not found.cosine >= wanted:
        faults.append(f"logits: cosine {found.cosine:.6f} at position {found.worst_position}, below {wanted}")
    if greedy is not None and not greedy.equal and (greedy.margin is None or greedy.margin >= 1):
        faults.append(
            f"greedy: token {greedy.first} differs, and by more than the engines' error ({greedy.margin:.2f} x)"
        )
    status = "divergence" if faults else "ok"
    return replace(report, status=status, faults=tuple(faults), notes=(*report.notes, *notes))


def _compared(
    llm: LLM,
    peer: Peer,
    ids: Sequence[int],
    tokens: tuple[Tokens, ...],
    *,
    num_tokens: int,
    k: int,
    wanted: float,
) -> Report:
    decode = llm.tokenizer.decode if llm.tokenizer else None
    return _judged(
        Report(
            peer.name,
            peer.version,
            "ok",
            tokens=tokens,
            logits=compare_logits(llm.logits(ids), peer.logits(ids), k),
            greedy=compare_greedy(ids, num_tokens, llm.logits, peer.logits, decode),
            cosine_wanted=wanted,
        )
    )


def crosscheck(
    llm: LLM,
    peer: Peer,
    texts: Sequence[str],
    ids: Sequence[int],
    *,
    num_tokens: int = 16,
    k: int = TOP,
    quantised: bool = False,
    cosine: float | None = None,
    node_tolerance: float | None = None,
    exact: Callable[[], Peer] | None = None,
    original: Callable[[str], tuple[str, Sequence[int]] | None] | None = None,
) -> Report:
    """Compare everything.

    texts: for the tokenizers. ids: what logits are compared on. num_tokens: of greedy text. k: likeliest tokens compared as a set.
    quantised: the weights are, so the engines' roundings of activations differ. cosine: least that is a pass, at the worst position
    (0.9999; quantised 0.995). node_tolerance: of `first_difference` (0.01; quantised 0.15). exact: the peer on the same weights
    in float32: where 16-bit weights make it round activations, a difference that vanishes there is that rounding and no fault.
    original: ids of a text by the tokenizer's own library, and its name, to tell who departs from it.
    """
    if llm.facts.get("decoder_start") is not None:
        raise UnsupportedError(
            f"{llm.facts['architecture']} reads a source besides its own text; only models that continue a text are compared"
        )
    wanted = cosine or (COSINE_QUANTISED if quantised else COSINE_FLOAT)
    tolerance = node_tolerance or (NODE_QUANTISED if quantised else NODE_FLOAT)
    report = _compared(
        llm, peer, ids, _texts(llm, peer, texts, original), num_tokens=num_tokens, k=k, wanted=wanted
    )
    if report.status == "ok":
        return report
    reach = list(ids[: report.logits.worst_position + 1]) if report.logits else list(ids)
    try:
        report = replace(report, node=first_node(llm, peer, reach, tolerance))
    except UnsupportedError as error:
        report = replace(report, notes=(*report.notes, str(error)))
    if exact is None or any(not t.equal and not t.authority for t in report.tokens):
        return report
    again = _compared(llm, exact(), ids, report.tokens, num_tokens=num_tokens, k=k, wanted=wanted)
    return _rounded(report, again)


def _rounded(report: Report, again: Report) -> Report:
    """again: of the peer on the same weights in float32. What it finds counts, what it no longer finds is a note."""
    if again.status != "ok" or report.logits is None or again.logits is None:
        return replace(
            report, notes=(*report.notes, "the difference stays where the peer computes in float32")
        )
    where = f"; first at {report.node}" if report.node else ""
    note = (
        f"{report.peer} rounds activations to 16 bits: so {'; '.join(report.faults)}{where}. "
        f"With the same weights in float32 arithmetic its cosine with us is at least {again.logits.cosine:.6f}"
    )
    return replace(again, node=report.node, notes=(*report.notes, note))
