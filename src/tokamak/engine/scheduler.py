"""Which rows the next step computes: for every sequence as many missing ones as the budgets of rows and blocks allow.

Sequences that want their next token come first, with the draft behind it, so that a long prompt delays nobody by more than its
chunk, which is as long as `pace.py` says; then the others in order of arrival. Who waits is admitted by priority, then whose
tenant runs least, then in order of arrival. When blocks run out the latest sequence gives its back and starts over (its tokens
are kept, and most of its prefix is usually still filed).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence as Many
from dataclasses import dataclass, field

from tokamak.engine.batch import unread
from tokamak.engine.blocks import BlockPool
from tokamak.engine.pace import Pace
from tokamak.engine.recent import RecentPool, hold_prefix
from tokamak.engine.sequence import Sequence
from tokamak.types import Limits


@dataclass(slots=True)
class Schedule:
    """The rows of one step, and cache blocks to copy before it."""

    chosen: list[tuple[Sequence, int]] = field(default_factory=list)  # (sequence, rows from num_computed on)
    copies: list[tuple[int, int]] = field(default_factory=list)  # (source, destination)
    recent_copies: list[tuple[int, int]] = field(default_factory=list)  # the same in the other pool
    preempted: list[Sequence] = field(default_factory=list)
    stuck: Sequence | None = None  # who has to end where nobody can go on and nobody can start over
    num_rows: int = 0
    num_single: int = 0  # of the rows: next tokens and their drafts


class Scheduler:
    """Queues of sequences over one pool, and one of layers that keep the latest part of a text only where there are such.

    chunk_rows: rows of one prompt per step at most. pace: makes them fewer while others wait for their next token.
    max_collect_rows: rows per step of a sequence that wants the logits of every row, to bound their memory.
    """

    def __init__(
        self, pool: BlockPool, limits: Limits, *, max_collect_rows: int, recent: RecentPool | None = None
    ) -> None:
        self.pool, self.recent, self.limits = pool, recent, limits
        self.chunk_rows = limits.max_rows
        self.pace = Pace()
        self.max_collect_rows = max_collect_rows
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # in order of arrival
        self.num_preempted = 0

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence that holds no blocks."""
        self.waiting.append(sequence)

    def adopt(self, sequence: Sequence, after: Sequence) -> None:
        """Run a fork, whose blocks are computed already, next to the one it came from."""
        self.running.insert(self.running.index(after) + 1, sequence)

    def hold_source(self, sequence: Sequence) -> bool:
        """Blocks for the text that a sequence is about, if there is one; False if they are not free."""
        source = sequence.request.source
        if source is not None and not sequence.holds_source:
            sequence.holds_source = source.hold(self.pool)
        return source is None or sequence.holds_source

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, running or waiting, and give its blocks back."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self._give_back(sequence)

    def schedule(self) -> Schedule:
        """The next step; empty if nothing can run. Blocks for its rows are taken."""
        plan = Schedule()
        budget = self.limits.max_rows
        singles = [s for s in self.running if s.num_missing == 1]
        for sequence in singles:
            budget -= self._choose(sequence, budget, plan)
        plan.num_single = sum(rows for _, rows in plan.chosen)
        if plan.num_single and not self._burst(len(singles)):
            budget = min(budget, self.pace.chunk(budget))
        if len(singles) < len(self.running):
            for sequence in [s for s in self.running if s.num_missing > 1]:
                budget -= self._choose(sequence, budget, plan)
        self._admit_waiting(budget, plan)
        if not plan.chosen and self.waiting and any(s.pending is not None for s in self.running):
            self._break_knot(plan)
        plan.num_rows = sum(rows for _, rows in plan.chosen)
        return plan

    def _burst(self, num_single: int) -> bool:
        """Whether far more wait for their first token than for their next one, and a step can read all of their prompts.

        It is short, and all are done sooner than if those who decode were spared it. Not where a gap between tokens is set.
        """
        missing = [s.num_missing for s in (*self.running, *self.waiting) if s.num_missing > 1]
        short = sum(missing) <= self.limits.max_rows and len(missing) > 2 * num_single
        return short and self.pace.target_s is None

    def rows_beside(self) -> int:
        """Rows that other work between two steps may compute at once without delaying what runs."""
        most = min(self.chunk_rows, self.limits.max_rows)
        return self.pace.chunk(most) if self.running else most

    def _admit_waiting(self, budget: int, plan: Schedule) -> None:
        while (
            self.waiting
            and not plan.preempted
            and budget > 0
            and len(self.running) < self.limits.max_sequences
        ):
            sequence = self._first_waiting(self.waiting)
            if not self._can_run(sequence):  # started over, and its reader lags: nobody waits for that
                ready = [s for s in self.waiting if self._can_run(s)]
                if not ready:
                    break
                sequence = self._first_waiting(ready)
            self._reuse_prefix(sequence)
            if not self._admit(sequence) or not self.hold_source(sequence):
                self._give_back(sequence)
                break
            self.waiting.remove(sequence)
            self.running.append(sequence)
            sequence.start()
            budget -= self._choose(sequence, budget, plan)

    def _first_waiting(self, waiting: Many[Sequence]) -> Sequence:
        """Whose turn it is: highest priority, then the tenant with the fewest that run, then who came first."""
        first = waiting[0]
        if all(
            s.request.priority == first.request.priority and s.request.tenant == first.request.tenant
            for s in waiting
        ):
            return first
        running = Counter(s.request.tenant for s in self.running)
        return min(waiting, key=lambda s: (-s.request.priority, running[s.request.tenant]))

    def _break_knot(self, plan: Schedule) -> None:
        """Every sequence that runs waits for one of its group that waits for blocks: the latest gives its own back."""
        victim = next((s for s in reversed(self.running) if s.pending is not None and not s.shifted), None)
        if victim is not None:
            self._preempt(victim, plan)
            self.waiting.remove(victim)
            self.waiting.append(victim)
            plan.preempted.clear()
            self._admit_waiting(self.limits.max_rows, plan)

    def _can_run(self, sequence: Sequence) -> bool:
        room = sequence.request.room
        return room is None or room()

    def _choose(self, sequence: Sequence, budget: int, plan: Schedule) -> int:
        """Puts rows of a running sequence into the plan; the number of them."""
        if budget <= 0 or len(plan.chosen) >= self.limits.max_sequences or sequence in plan.preempted:
            return 0  # the last: by an earlier one in this very step
        if not self._can_run(sequence) or not self._source_fits(sequence, plan):
            return 0
        rows = min(sequence.num_missing + sequence.num_drafted, budget, self.chunk_rows)
        if self.recent is not None:
            rows = min(rows, self.recent.most_rows)
        if sequence.request.collect is not None and sequence.num_new == 0:
            rows = min(rows, self.max_collect_rows)
        while not self._take_blocks(sequence, rows, plan):
            victim = next((s for s in reversed(self.running) if not s.shifted), None)
            if victim is None:  # all were shifted: the others' blocks may become free yet
                plan.stuck = self.running[-1]
                return 0
            self._preempt(victim, plan)
            if victim is sequence:
                return 0
        plan.chosen.append((sequence, rows))
        return rows

    def _source_fits(self, sequence: Sequence, plan: Schedule) -> bool:
        """Whether its source is read, or can be read whole in this step."""
        sources = unread([*plan.chosen, (sequence, 0)])
        return sum(len(s.token_ids) for s in sources) <= self.limits.max_rows

    def _take_blocks(self, sequence: Sequence, rows: int, plan: Schedule) -> bool:
        """Blocks for the next rows, and a copy of the block they begin in if it is shared."""
        begin = sequence.num_computed
        if not sequence.whole.take(self.pool, begin, rows, plan.copies):
            return False
        return self.recent is None or sequence.recent.take(self.recent, begin, rows, plan.recent_copies)

    def _reuse_prefix(self, sequence: Sequence) -> None:
        """Hold the blocks of the longest filed prefix. The last token is always computed: its logits are wanted."""
        if sequence.request.collect is not None:
            return
        path = self.pool.walk(sequence.keys(0, sequence.num_tokens - 1), sequence.request.salt)
        path = hold_prefix(sequence.whole, sequence.recent, self.pool, self.recent, path)
        self.pool.count(sequence.num_tokens - 1, len(path) * self.pool.block_size)
        if path:
            sequence.chain = path[-1][1]
        sequence.num_filed = len(path)
        sequence.num_computed = len(path) * self.pool.block_size
        if sequence.request.started_s is None:
            sequence.request.cached_tokens = sequence.num_computed

    def _admit(self, sequence: Sequence) -> bool:
        """Whether there is room for all its missing rows, so that it does not push out what runs."""
        size = self.pool.block_size
        missing = -(-sequence.num_tokens // size) - sequence.whole.num_blocks
        if sequence.request.source is not None and not sequence.request.source.holders:
            missing += sequence.request.source.num_blocks(size)
        fits = self.recent is None or (
            self.recent.needed(sequence.num_tokens, sequence.recent.kept) - len(sequence.recent.held)
            <= self.recent.num_available
        )
        return (missing <= self.pool.num_available and fits) or not self.running

    def _preempt(self, victim: Sequence, plan: Schedule) -> None:
        self.running.remove(victim)
        plan.chosen[:] = [entry for entry in plan.chosen if entry[0] is not victim]
        self._give_back(victim)
        self.waiting.appendleft(victim)
        plan.preempted.append(victim)
        self.num_preempted += 1

    def _give_back(self, sequence: Sequence) -> None:
        sequence.whole.clear(self.pool)
        sequence.recent.clear(self.recent or self.pool)
        sequence.forget_cache()
        if sequence.request.source is not None and sequence.holds_source:
            sequence.holds_source = False
            sequence.request.source.release(self.pool)
