"""Every run of a name has a version folder, and the name's folder leads to the newest."""

import pytest

from ir3de.runs import INHERITED, RunFolder


def _fit(root, content):
    run = RunFolder.create(root, "x")
    (run.path / "router").mkdir()
    (run.path / "router" / "config.json").write_text(content)
    return run


def test_a_second_run_gets_a_folder_of_its_own_and_links_lead_to_it(tmp_path):
    first = _fit(tmp_path, "first")
    (first.path / "results.csv").write_text("of the first")
    first.publish()
    assert (tmp_path / "x" / "results.csv").read_text() == "of the first"
    second = _fit(tmp_path, "second")
    second.publish()
    assert [first.path.name, second.path.name] == ["version_0", "version_1"]
    assert (tmp_path / "x" / "router" / "config.json").read_text() == "second"
    assert not (tmp_path / "x" / "results.csv").exists(), "results of another router"
    assert RunFolder.newest(tmp_path, "x") == second


def test_a_run_that_failed_before_its_router_was_saved_is_not_the_newest(tmp_path):
    first = _fit(tmp_path, "first")
    RunFolder.create(tmp_path, "x")
    assert RunFolder.newest(tmp_path, "x") == first


def test_processes_of_one_run_share_its_folder(tmp_path, monkeypatch):
    run = RunFolder.create(tmp_path, "x")
    monkeypatch.setenv(INHERITED, str(run.path))
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert RunFolder.create(tmp_path, "x") == run


def test_no_run_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="Run `python main"):
        RunFolder.newest(tmp_path, "x")
