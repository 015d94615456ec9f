"""A long prompt delays running streams by no more than the target, and changes nothing of what anybody says."""

import numpy as np
import pytest

from core_runs import finish, prompt_of, request, run
from hash_model import HashProgram
from tokamak.engine import core as engine_core
from tokamak.engine.core import EngineCore
from tokamak.engine.pace import FEWEST_ROWS, Pace

STEP_S, ROW_S = (
    0.010,
    0.0005,
)  # of a step, and of each row at the beginning of a prompt; twice that at its end


class TimedProgram(HashProgram):
    """Every run takes its time on a clock of its own."""

    now = 0.0

    def run(self, batch):
        depth = float(batch.positions.max()) / 2000.0
        took = STEP_S + ROW_S * (len(batch.token_ids) - 4) * (1.0 + depth)
        TimedProgram.now += took
        self.steps.append((len(batch.token_ids), len(batch.starts) - 1, took))
        return super().run(batch)


def timed(monkeypatch, target_s):
    """Rows, sequences and seconds of each step while four streams run and 2,000 tokens are read, and what was said."""
    monkeypatch.setattr(engine_core.time, "perf_counter", lambda: TimedProgram.now)
    program = TimedProgram(num_blocks=1024, max_rows=512)
    program.steps = []
    core = EngineCore(program)
    core.scheduler.pace.target_s = target_s
    run(core, request(prompt_of(7, 64), max_new=2))
    streams = [request(prompt_of(i, 2), max_new=300) for i in range(4)]
    for stream in streams:
        core.add(stream)
    early = {}
    for _ in range(8):
        for out in core.step():
            early.setdefault((out.request.id, out.index), []).append((out.token_id, out.logprob.logprob))
    program.steps.clear()
    reader = request(prompt_of(9, 2000), max_new=1)
    core.add(reader)
    late = finish(core, *streams, reader)
    said = [early.get((s.id, 0), []) + late[i][0] for i, s in enumerate([*streams, reader])]
    return [step for step in program.steps if step[0] > step[1]], said


@pytest.mark.parametrize("target_s", [None, 0.040, 0.080])
def test_a_step_beside_streams_takes_no_longer_than_the_target(monkeypatch, target_s):
    steps, _ = timed(monkeypatch, target_s)
    limit = 3.0 * STEP_S if target_s is None else target_s
    took = np.array([s for _, _, s in steps])
    assert np.percentile(took, 95) <= 1.15 * limit  # the cost of a row rises while the mean follows
    assert np.median(took) >= 0.6 * limit  # and the time there is gets used


def test_before_anything_is_known_few_rows_are_read():
    assert Pace().chunk(512) == Pace(0.05).chunk(512) == FEWEST_ROWS


def test_the_target_changes_nothing_of_what_is_said(monkeypatch):
    assert timed(monkeypatch, None)[1] == timed(monkeypatch, 0.015)[1] == timed(monkeypatch, 10.0)[1]


def test_without_streams_a_chunk_is_as_long_as_it_can_be():
    pace = Pace(0.001)
    assert pace.chunk(8) == 8
    core = EngineCore(HashProgram(num_blocks=1024, max_rows=512))
    core.scheduler.pace.target_s = 1e-6
    core.add(request(prompt_of(1, 600), max_new=1))
    core.step()
    assert len(core.program.batches[0].token_ids) == 512


@pytest.mark.parametrize(
    ("num", "target_s", "rows"), [(7, None, 1 + 7 * 20), (2, None, None), (7, 0.02, None)]
)
def test_a_burst_of_short_prompts_is_read_in_one_step_unless_a_target_is_set(num, target_s, rows):
    core = EngineCore(HashProgram(num_blocks=1024, max_rows=512))
    core.scheduler.pace.target_s = target_s
    core.add(request(prompt_of(1, 4), max_new=50))
    core.step()
    for i in range(num):
        core.add(request(prompt_of(i + 2, 20), max_new=1))
    core.step()
    read = len(core.program.batches[-1].token_ids)
    assert read == rows if rows else read < 1 + num * 20
