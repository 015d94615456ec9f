"""Settings: one rule of truth, arguments before the environment, errors that name the variable."""

from __future__ import annotations

import pytest

from tokamak import settings
from tokamak.errors import InvalidParams


@pytest.mark.parametrize("text", ["1", "true", "yes", "TRUE", "Yes"])
def test_yes_is_true(text):
    assert settings.truth(text, "X") is True


@pytest.mark.parametrize("text", ["0", "false", "no", "False", "NO"])
def test_no_is_false(text):
    assert settings.truth(text, "X") is False


@pytest.mark.parametrize("text", ["", "on", "off", "2", "y", "t", " 1", "none", "enabled"])
def test_anything_else_is_refused_by_name(text):
    with pytest.raises(InvalidParams, match="TOKAMAK_OFFLINE"):
        settings.truth(text, "TOKAMAK_OFFLINE")


@pytest.mark.parametrize("text", ["0", "-1", "1025", "two", "1.5", "", "9" * 40, "\u0663"])
def test_thread_counts_out_of_range_are_refused(text):
    with pytest.raises(InvalidParams, match="TOKAMAK_THREADS"):
        settings.thread_count(text, "TOKAMAK_THREADS")


def test_an_argument_wins_over_the_environment_and_that_over_the_default():
    environ = {"TOKAMAK_THREADS": "3", "TOKAMAK_CACHE_DIR": "/a", "TOKAMAK_OFFLINE": "1"}
    assert settings.Settings.load(threads=2, environ=environ).threads == 2
    from_env = settings.Settings.load(environ=environ)
    assert (from_env.threads, str(from_env.cache_dir), from_env.offline) == (3, "/a", True)
    default = settings.Settings.load(environ={})
    assert (default.offline, default.isa, default.log) == (False, None, "warning")
    assert default.threads == settings.available_cpus() >= 1


def test_an_empty_variable_counts_as_absent():
    got = settings.Settings.load(environ={"TOKAMAK_OFFLINE": "", "TOKAMAK_THREADS": "", "TOKAMAK_ISA": ""})
    assert (got.offline, got.isa) == (False, None)


def test_an_argument_false_wins_over_an_environment_that_says_yes():
    assert settings.Settings.load(offline=False, environ={"TOKAMAK_OFFLINE": "yes"}).offline is False


def test_unknown_log_level_is_refused():
    with pytest.raises(InvalidParams, match="TOKAMAK_LOG"):
        settings.Settings.load(environ={"TOKAMAK_LOG": "loud"})


def test_endpoint_has_no_trailing_slash():
    assert settings.Settings.load(environ={"HF_ENDPOINT": "https://x.y/"}).hf_endpoint == "https://x.y"


def test_control_group_quota_is_read_in_both_versions(tmp_path):
    assert settings.cgroup_cpus(tmp_path) is None
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert settings.cgroup_cpus(tmp_path) is None
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("150000\n")
    assert settings.cgroup_cpus(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert settings.cgroup_cpus(tmp_path) is None
    (tmp_path / "cpu.max").write_text("300000 100000\n")
    assert settings.cgroup_cpus(tmp_path) == 3.0
