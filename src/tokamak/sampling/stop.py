"""Stop strings over a stream of text: what may be given out now, and whether a stop has come.

Text is held back exactly as long as it may still become a stop. Works on characters, so it is fed from a
decoder that never emits half of one.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Looks for any of some strings in text that arrives in pieces.

    If a piece completes several, the one that begins earliest cuts. `matched` is the stop that came.
    """

    __slots__ = ("_held", "_stops", "matched")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.matched: str | None = None

    def push(self, piece: str) -> str:
        """The text that can no longer change; once a stop has come, what stood before it, then nothing."""
        if self.matched is not None:
            return ""
        text = self._held + piece
        if not self._stops:
            return text
        found = [(at, i) for i, stop in enumerate(self._stops) if (at := text.find(stop)) >= 0]
        if found:
            at, i = min(found)
            self.matched, self._held = self._stops[i], ""
            return text[:at]
        keep = self._longest_held(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """The text still held: no more will come, so it is not a stop."""
        text, self._held = self._held, ""
        return text

    def _longest_held(self, text: str) -> int:
        """Characters at the end of text that are the beginning of a stop, as many as possible."""
        longest = 0
        for stop in self._stops:
            at = max(0, len(text) - len(stop) + 1)
            while (at := text.find(stop[0], at)) >= 0 and len(text) - at > longest:
                if stop.startswith(text[at:]):
                    longest = len(text) - at
                    break
                at += 1
        return longest
