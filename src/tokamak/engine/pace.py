"""How long a step takes, learnt from the steps so far: bounds the rows of a prompt that others have to wait for."""

from __future__ import annotations

WEIGHT = 0.2  # of the latest step in the running means
SLACK = 3.0  # without a target: a step with a prompt takes at most so many times one without
FEWEST_ROWS = 8  # of a chunk: fewer cost more per row than they save


class Pace:
    """Running means of the seconds of a step that only decodes, and of each row of a prompt on top of it.

    target_s: longest step while others decode; None: SLACK times a step without a prompt.
    """

    __slots__ = ("row_s", "single_s", "target_s")

    def __init__(self, target_s: float | None = None) -> None:
        self.target_s = target_s
        self.single_s: float | None = None
        self.row_s: float | None = None

    def note(self, rows: int, singles: int, seconds: float) -> None:
        """A step of `rows` rows, `singles` of which were next tokens, took so long."""
        if rows == singles:
            self.single_s = _mean(self.single_s, seconds)
        elif rows - singles >= FEWEST_ROWS:
            base = (self.single_s or 0.0) if singles else 0.0
            self.row_s = _mean(self.row_s, max(1e-9, (seconds - base) / (rows - singles)))

    def chunk(self, most: int) -> int:
        """Rows of prompts that a step may hold beside next tokens; few where nothing is known yet."""
        if self.row_s is None or (self.target_s is None and self.single_s is None):
            return min(most, FEWEST_ROWS)
        single = self.single_s or 0.0
        target = SLACK * single if self.target_s is None else self.target_s
        return min(most, max(FEWEST_ROWS, int((target - single) / self.row_s)))


def _mean(old: float | None, new: float) -> float:
    return new if old is None else old + WEIGHT * (new - old)
