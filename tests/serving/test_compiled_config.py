"""What ``compiled.json`` says is checked before it is used, and its router comes with its alarm in one step."""

import json
import shutil

import pytest

from ir3de.compiling.router import compile_router
from ir3de.files import replace_file
from ir3de.serving import CompiledRouter, artifact
from tests.helpers.counts import NAMES
from tests.serving.routers import KINDS, WORDS, saved

_CHANGES = [
    *({key: None} for key in ("source", "experts", "files", "table", "tokenizer", "reader", "k")),
    {"source": {"identity": "x"}}, {"source": []},
    {"experts": []}, {"experts": ["code"]}, {"experts": ["code", "law", "maths", "more"]}, {"experts": ["a", "a", "b"]},
    {"experts": [1, 2, 3]}, {"experts": "abc"},
    {"files": []}, {"files": {"rank.npy": 7}}, {"files": {"rank.npy": "0"}},
    {"table": "other"}, {"table": "mean"}, {"k": 0}, {"k": "7"}, {"k": True},
    {"reader": {}}, {"reader": {"because": 3}}, {"reader": {"because": None}},
    {"reader": {"because": None, "checked": {}}},
    *({"reader": {"because": None, "checked": {"versions": {}}, "pattern": "x", "vocab_size": 7, "special": {"a": one}}}
      for one in (-1, 2**31, 10**30, True, 1.0)),
    {"calibration": {}}, {"calibration": {"calibration": None}},
    {"calibration": {"calibration": {"shifts": [0, 0, 0]}}},
    {"calibration": {"calibration": {"log_scale": 1.0, "length_exponent": 0.0, "shifts": [0.0]}}},
    *({"calibration": {"calibration": {"log_scale": 1.0, "length_exponent": 0.0, "shifts": [0.0] * 3, **change}}}
      for one in (float("nan"), float("inf"), 10**400, True)
      for change in ({"log_scale": one}, {"length_exponent": one}, {"shifts": [0.0, one, 0.0]})),
    *({"calibration": {"calibration": {"log_scale": 1.0, "length_exponent": 0.0, "shifts": [0.0] * 3, **change}}}
      for change in ({"log_scale": 301}, {"length_exponent": -20}, {"shifts": [0.0, 1e101, 0.0]})),
    {"alarm": {}}, {"alarm": []}, {"alarm": {"vocab_size": WORDS}},
    {"alarm": {"vocab_size": 7, "sequences": [12] * 3, "uncalibrated": []}},
    {"alarm": {"vocab_size": str(WORDS), "sequences": [12] * 3, "uncalibrated": []}},
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return compile_router(str(saved(tmp_path_factory.mktemp("whole") / "router", "entropy_top_7")))


def _with_config(whole, folder, change):
    """Return a copy of a compiled router whose config was changed."""
    shutil.copytree(whole, folder)
    config = json.loads((whole / "compiled.json").read_text())
    change(config)
    (folder / "compiled.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("changes", _CHANGES, ids=lambda changes: str(changes)[:120])
def test_a_config_that_does_not_say_what_it_has_to_is_refused(whole, tmp_path, changes):
    changed = _with_config(whole, tmp_path / "changed", lambda config: config.update(changes))
    with pytest.raises(ValueError, match=r"Compile the router again"):
        CompiledRouter.load(changed, alarm=0.0).route([1, 2])


def test_numbers_of_any_size_calibrate(whole, tmp_path):
    """NumPy has no integers so large."""
    for number, (shift, scale, exponent) in enumerate(
        ((10**30, -60, 0), (1e30, -60, 0), (1e100, 300, 0), (-(10**100), 100, 9.3), (0, -300, 0), (0, 0, 13.9))
    ):
        found = {"log_scale": scale, "length_exponent": exponent, "shifts": [0, shift, 0]}
        changed = _with_config(
            whole, tmp_path / str(number), lambda config, found=found: config["calibration"].update(calibration=found)
        )
        assert CompiledRouter.load(changed).route([1, 2]).confidence in (0.0, pytest.approx(1 / 3), 1.0)


@pytest.mark.parametrize(
    "key", ["source", "experts", "files", "table", "k", "tokenizer", "reader", "calibration", "alarm"]
)
def test_a_config_without_a_key_is_refused(whole, tmp_path, key):
    changed = _with_config(whole, tmp_path / "changed", lambda config: config.pop(key))
    with pytest.raises(ValueError, match=f"`{key}` is missing"):
        CompiledRouter.load(changed)


def test_a_file_that_the_config_does_not_name_is_missed(whole, tmp_path):
    for name in json.loads((whole / "compiled.json").read_text())["files"]:
        changed = _with_config(whole, tmp_path / name, lambda config, name=name: config["files"].pop(name))
        with pytest.raises(ValueError, match=f"to name `{name}`"):
            CompiledRouter.load(changed, alarm=0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_other_experts_is_refused(tmp_path, kind):
    compiled = compile_router(str(saved(tmp_path / "router", kind, validation=0)))
    for number, names in enumerate((["code"], ["code", "law"], ["code", "law", "maths", "more"])):
        changed = _with_config(
            compiled, tmp_path / str(number), lambda config, names=names: config.update(experts=names)
        )
        with pytest.raises(ValueError, match=f"to be for its {len(names)} experts"):
            CompiledRouter.load(changed)


@pytest.fixture
def folder(tmp_path):
    return saved(tmp_path / "router", "entropy_top_7")


def test_a_router_and_its_alarm_come_in_one_step(folder, monkeypatch):
    """After every file that is written, what is there can be loaded with an alarm: the old router or the new one."""
    compiled, seen = compile_router(str(folder)), []

    def replace(path, content):
        replace_file(path, content)
        seen.append(CompiledRouter.load(compiled, alarm=0.05).expert_names)

    saved(folder, "entropy_top_7", names=("x", "y"))
    monkeypatch.setattr(artifact, "replace_file", replace)
    compile_router(str(folder))
    assert seen == [*[NAMES] * (len(seen) - 1), ("x", "y")]
    assert len(seen) > 10


def test_a_compile_that_is_ended_at_any_file_leaves_the_router_that_was_there(folder, monkeypatch):
    compiled, left = compile_router(str(folder)), [0]

    def replace(path, content):
        left[0] -= 1
        if left[0] < 0:
            raise OSError("no space left")
        replace_file(path, content)

    saved(folder, "entropy_top_7", names=("x", "y"))
    monkeypatch.setattr(artifact, "replace_file", replace)
    for number in range(100):
        left[0] = number
        try:
            compile_router(str(folder))
        except OSError:
            assert CompiledRouter.load(compiled, alarm=0.05).expert_names == NAMES
        else:
            break
    assert number > 10
    assert CompiledRouter.load(compiled, alarm=0.05).expert_names == ("x", "y")
