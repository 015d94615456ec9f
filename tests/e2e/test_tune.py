"""`tokamak tune` on a real program: it measures, and what it keeps is read by the next load."""

import json

import pytest

import tokamak
from tokamak.cli.main import main
from tokamak.engine import tuned
from tokamak.engine.trial import Bench
from tokamak.engine.tuned import Tuned
from tokamak.types import Tuning


def test_programs_of_one_bench_share_the_weights_and_measure(tiny_model):
    bench = Bench(tiny_model)
    few, many = (bench.measure(Tuned(1, 1, rows), repeats=1, decode=2) for rows in (32, 512))
    assert min(few.prompt_tok_s, few.decode_tok_s, many.prompt_tok_s) > 0
    assert few.nbytes < many.nbytes
    assert bench.program(Tuned(1)).memory()["weights_mapped"] > 0


@pytest.mark.parametrize("goal", ["throughput", "latency", "memory"])
def test_it_reports_what_it_found_and_keeps_only_what_won(tiny_model, tmp_path, monkeypatch, capsys, goal):
    pytest.importorskip("optuna")
    monkeypatch.setenv("TOKAMAK_CACHE_DIR", str(tmp_path))
    assert main(["tune", str(tiny_model), "--for", goal, "--trials", "3", "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["trials"] == 3
    assert report["improved"] == (report["kept"] is not None) == (tmp_path / tuned.FILE).exists()
    assert report["improved"] or report["choice"] == report["default"]


def test_what_was_kept_is_used_by_the_next_load_and_can_be_dropped(tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TOKAMAK_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TOKAMAK_THREADS", raising=False)
    tuned.write(tmp_path, Tuned(1, 2, 64, Tuning(16 << 10, 64 << 10, 0)))
    with tokamak.load(tiny_model) as llm:
        assert (llm.facts["threads"], llm.facts["threads_batch"]) == (1, 2)
        assert llm.program.limits.max_rows == 64
        assert llm.program.limits.tuning.spin_us == 0
    assert main(["tune", "--forget"]) == 0
    assert "forgotten" in capsys.readouterr().out
    with tokamak.load(tiny_model) as llm:
        assert llm.program.limits.max_rows == 512
