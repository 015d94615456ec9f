"""One model in two engines: the same ids, the same logits, the same greedy text, and where they first part.

Tolerances are for a float32 or float16 model against float32 arithmetic, or for quantised weights in an engine that rounds
activations to 8 bits too: the roundings of two engines differ, so quantised files are held to a looser cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from tokamak.bench.peers import Peer
from tokamak.types import Floats

COSINE_FLOAT = 0.9999
COSINE_QUANTISED = 0.995  # two 8-bit roundings of activations, worst position
MATCH = 0.02  # rms difference over rms: a value that is the peer's


@dataclass(frozen=True, slots=True)
class Tokens:
    """Ids of one text in both. first: index of the first difference, None for none."""

    text: str
    equal: bool
    first: int | None
    ours: tuple[int, ...]
    theirs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Logits:
    """All positions. cosine, top1: least and share over positions; kl: mean and greatest, nats, peer against us."""

    positions: int
    cosine: float
    kl_mean: float
    kl_most: float
    top1: float
    error: float  # max |difference| / standard deviation of the peer's
    worst_position: int


@dataclass(frozen=True, slots=True)
class Greedy:
    """Greedy tokens after the text. first: index where they part, None for never; margin: top-1 minus top-2 logit of the
    peer there, over the greatest difference of both engines' logits at that position (below 1: a tie within their error)."""

    num_tokens: int
    equal: bool
    first: int | None
    margin: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything found. status: ok or divergence."""

    peer: str
    version: str
    status: str
    tokens: tuple[Tokens, ...]
    logits: Logits
    greedy: Greedy
    cosine_wanted: float
    parting: str | None = None  # the first value that the peer does not have
    faults: tuple[str, ...] = field(default=())

    def facts(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)


def compare_tokens(ours: Sequence[int], theirs: Sequence[int], text: str) -> Tokens:
    """Where two lists of ids part."""
    pairs = zip(ours, theirs, strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if first is None and len(ours) != len(theirs):
        first = min(len(ours), len(theirs))
    return Tokens(text, first is None, first, tuple(ours), tuple(theirs))


def _log_softmax(x: Floats) -> Floats:
    shifted = x - x.max(axis=-1, keepdims=True)
    out: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return out


def compare_logits(ours: Floats, theirs: Floats) -> Logits:
    """ours, theirs: f32[n, V]; a peer that pads its vocabulary is cut to ours."""
    width = min(ours.shape[1], theirs.shape[1])
    a, b = ours[:, :width].astype(np.float64), theirs[:, :width].astype(np.float64)
    # about the mean: softmax does not see it, and a common offset would make every cosine 1
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(axis=1) / np.maximum(norms, 1e-300)
    p, q = _log_softmax(b), _log_softmax(a)
    kl = (np.exp(p) * (p - q)).sum(axis=1)
    return Logits(
        positions=len(a),
        cosine=float(cosine.min()),
        kl_mean=float(kl.mean()),
        kl_most=float(kl.max()),
        top1=float(np.mean(a.argmax(axis=1) == b.argmax(axis=1))),
        error=float(np.abs(a - b).max() / b.std()),
        worst_position=int(cosine.argmin()),
    )


def compare_greedy(
    ids: Sequence[int],
    num_tokens: int,
    ours: Callable[[Sequence[int]], Floats],
    theirs: Callable[[Sequence[int]], Floats],
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
            apart = float(np.abs(ours_row[:width] - theirs_row[:width]).max())
            top = np.partition(theirs_row, -2)[-2:]
            return Greedy(num_tokens, equal=False, first=i, margin=float(top[1] - top[0]) / max(apart, 1e-30))
        text.append(chosen)
    return Greedy(num_tokens, equal=True, first=None, margin=None)


def parting(taps: Mapping[str, Floats], hidden: Sequence[Floats]) -> str | None:
    """The first of the peer's hidden states that no value of ours is, in words; None if all are found.

    taps: our intermediates in the order of execution. The last hidden state of a peer may be before or after the final norm.
    """
    last = "the beginning"
    for layer, wanted in enumerate(hidden):
        scale = float(np.sqrt(np.mean(np.square(wanted, dtype=np.float64)))) or 1.0
        errors = {
            name: float(np.sqrt(np.mean(np.square(value.astype(np.float64) - wanted)))) / scale
            for name, value in taps.items()
            if value.shape == wanted.shape
        }
        if not errors:
            return f"nothing of ours has the shape {wanted.shape} of hidden state {layer}"
        best = min(errors, key=errors.__getitem__)
        if not errors[best] <= MATCH:
            return f"after {last}: hidden state {layer} is nearest to {best}, {errors[best]:.2g} away"
        last = best
    return None


def crosscheck(
    peer: Peer,
    texts: Sequence[str],
    *,
    encode: Callable[[str], list[int]] | None,
    logits: Callable[[Sequence[int]], Floats],
    ids: Sequence[int],
    num_tokens: int,
    quantised: bool,
) -> Report:
    """Compare everything. texts: for the tokenizers. ids: what logits are compared on. num_tokens: of greedy text."""
    compared = []
    for text in texts if encode is not None else ():
        theirs = peer.tokens(text)
        if theirs is not None:
            compared.append(compare_tokens(encode(text) if encode else [], theirs, text))
    found = compare_logits(logits(ids), peer.logits(ids))
    greedy = compare_greedy(ids, num_tokens, logits, peer.logits)
    wanted = COSINE_QUANTISED if quantised else COSINE_FLOAT
    faults = [f"text {i}: ids part at {t.first}" for i, t in enumerate(compared) if not t.equal]
    if not found.cosine >= wanted:
        faults.append(f"logits: cosine {found.cosine:.6f} at position {found.worst_position}, below {wanted}")
    if not greedy.equal and (greedy.margin is None or greedy.margin >= 1):
        faults.append(
            f"greedy: token {greedy.first} differs, and by more than the engines' error ({greedy.margin:.2f} x)"
        )
    status = "divergence" if faults else "ok"
    return Report(
        peer.name, peer.version, status, tuple(compared), found, greedy, wanted, faults=tuple(faults)
    )
