"""The command finds what changed, and nothing where nothing did."""

import json
import sys
from io import BytesIO, TextIOWrapper

import numpy as np
import pytest

from ir3de.upkeep.drift import drift
from tests.serving.alarms import NAMES, WORDS, as_text, new_prompts, router
from tests.serving.routers import saved


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drift") / "router"
    router().save_pretrained(folder)
    return folder


@pytest.fixture
def write(tmp_path):
    def write(name, prompts):
        path = tmp_path / name
        texts = [as_text(ids_T) for ids_T in prompts]
        lines = [json.dumps({"text": text}) for text in texts] if name.endswith(".jsonl") else texts
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture
def run(folder, tmp_path):
    def run(*arguments):
        drift(["--router", str(folder), "--json", str(tmp_path / "drift.json"), *(str(one) for one in arguments)])
        return json.loads((tmp_path / "drift.json").read_text())

    return run


def test_nothing_is_found_where_nothing_changed(run, write):
    found = run(write("live.jsonl", new_prompts(300)))
    assert found["prompts"] == [600, 900]
    assert found["p_value"] > 0.01
    assert found["telling"] == []
    for one in found["experts"]:
        assert one["share_p_value"] > 0.01
        assert one["unusual_p_value"] > 0.01
        assert one["share"] == pytest.approx([1 / 3, 1 / 3], abs=0.03)


def test_a_change_of_the_mix_is_that(run, write):
    code, law, _ = (new_prompts(300)[i : i + 300] for i in (0, 300, 600))
    found = run(write("live.txt", code + law[:50]))
    shares = {one["expert"]: one for one in found["experts"]}
    assert shares["code"]["share"][1] > 0.8
    assert shares["maths"]["share_p_value"] < 0.01
    assert all(one["unusual_p_value"] > 0.01 for one in found["experts"])
    assert found["p_value"] < 0.01  # of tokens: the mix is another one
    before, live = found["from_training"]
    assert abs(live - before) < 0.02  # but not against the training counts in that mix


def test_new_words_are_named(run, write, capsys):
    news = [np.concatenate([ids_T, np.full(1 + i % 3, WORDS - 40)]) for i, ids_T in enumerate(new_prompts(100))]
    found = run(write("live.jsonl", news))
    assert found["telling"][0]["token"] == WORDS - 40
    assert found["telling"][0]["z"] > 4
    assert found["from_training"][1] > found["from_training"][0] + 0.01
    assert f"'w{WORDS - 40}'" in capsys.readouterr().out


def test_saved_counts_add_up_and_can_be_compared_with(run, write, tmp_path):
    prompts = new_prompts(200)
    parts = [write("a.jsonl", prompts[::2]), write("b.jsonl", prompts[1::2])]
    counts = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for part, file in zip(parts, counts, strict=True):
        run(part, "--save", file)
    assert run(*counts) == run(*parts)
    found = run(parts[0], "--against", counts[1])
    assert found["prompts"] == [300, 300]
    assert found["p_value"] > 0.01


@pytest.mark.parametrize("name", ["live.txt", "live.jsonl"])
def test_ends_of_lines_of_windows_are_no_drift(run, write, name):
    path = write(name, new_prompts(50))
    expected = run(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert run(path) == expected


def test_a_field_is_that_of_all_lines(run, write, tmp_path, monkeypatch):
    path = write("live.jsonl", new_prompts(50))
    expected = run(path)
    content = path.read_bytes().replace(b'"text"', b'"q"')
    (tmp_path / "live.ndjson").write_bytes(content)
    assert run("--field", "q", tmp_path / "live.ndjson") == expected
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(content)))
    assert run("--field", "q") == expected


def test_prompts_from_a_pipe(run, write, monkeypatch):
    content = write("live.txt", new_prompts(50)).read_bytes()
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(content)))
    assert run()["prompts"][1] == 150


def test_what_cannot_be_counted_is_reported(run, write, capsys):
    path = write("live.jsonl", new_prompts(50))
    path.write_text(path.read_text() + '{"prompt": "w1"}\nnot JSON\n')
    assert run(path)["prompts"][1] == 150
    said = capsys.readouterr().err
    assert "2 of 152 prompts were not counted" in said


def test_few_prompts_are_refused(run, write):
    with pytest.raises(ValueError, match="at least 100 live prompts"):
        run(write("live.jsonl", new_prompts(10)))


def test_counts_of_another_router_are_refused_or_left_out(run, write, tmp_path, capsys):
    other = router(validation=150)
    other.save_pretrained(tmp_path / "other")
    drift(["--router", str(tmp_path / "other"), str(write("live.txt", new_prompts(50))), "--save",
           str(tmp_path / "other.npz")])  # fmt: skip
    with pytest.raises(ValueError, match="of one router"):
        run(tmp_path / "other.npz")
    run(write("own.txt", new_prompts(50)), "--save", tmp_path / "own.npz")
    alone = run(tmp_path / "own.npz")
    assert "left out" not in capsys.readouterr().err
    assert run(tmp_path / "own.npz", tmp_path / "other.npz") == alone
    assert "1 files are another router's and were left out: " in capsys.readouterr().err
    with pytest.raises(ValueError, match="of one router"):
        run(write("live.txt", new_prompts(50)), "--against", tmp_path / "other.npz")


def test_a_router_that_knows_nothing_of_what_is_usual_is_refused(tmp_path, write):
    path = write("live.txt", new_prompts(50))
    with pytest.raises(ValueError, match="too few validation sequences"):
        drift(["--router", str(saved(tmp_path / "router", "majority", validation=1)), str(path)])
    with pytest.raises(ValueError, match="too few validation sequences"):
        drift(["--router", str(tmp_path / "router" / "compiled"), str(path)])


def test_an_expert_without_prompts_is_told_as_that(run, write, capsys):
    found = run(write("live.txt", new_prompts(150)[:150]))
    none = [one for one in found["experts"] if one["share"][1] == 0]
    assert none
    for one in none:
        assert one["unusual"][1] is None
        assert one["unusual_p_value"] == 1
    assert "no prompts" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--save", "--json"])
def test_a_folder_to_write_is_refused_before_prompts_are_read(folder, option, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)  # reading it would fail
    with pytest.raises(ValueError, match=f"Expected `{option}` to be a file to write, but `{tmp_path}` is a folder"):
        drift(["--router", str(folder), option, str(tmp_path)])


@pytest.mark.parametrize("option", ["--save", "--json"])
@pytest.mark.parametrize("place", ["a_file/x", "a_file/more/x", "/proc/ir3de/x"])
def test_where_nothing_can_be_written_is_said_before_prompts_are_read(folder, option, place, tmp_path, monkeypatch):
    (tmp_path / "a_file").touch()
    monkeypatch.setattr(sys, "stdin", None)  # reading it would fail
    with pytest.raises(ValueError, match=f"Expected `{option} .*/x` to be in a folder that can be written"):
        drift(["--router", str(folder), option, str(tmp_path / place)])


@pytest.mark.parametrize("place, flip", [(4, 0x40), (6, 0x01), (8, 0x01)], ids=["version", "encrypted", "method"])
def test_damaged_counts_are_refused_by_name(run, write, tmp_path, place, flip):
    path = tmp_path / "live.npz"
    run(write("live.txt", new_prompts(50)), "--save", path)
    content = bytearray(path.read_bytes())
    for signature, shift in (
        (b"PK\x03\x04", 0),
        (b"PK\x01\x02", 2),
    ):  # a member's own header, and its entry in the list
        content[content.index(signature) + place + shift] ^= flip
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="live.npz`, but it holds none"):
        run(path)


def test_what_no_prompts_can_be_read_from_is_named(run, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="live.jsonl"):
        run(tmp_path / "live.jsonl")
    (tmp_path / "live.jsonl.gz").touch()
    with pytest.raises(ValueError, match="`.*/live.jsonl.gz` is compressed"):
        run(tmp_path / "live.jsonl.gz")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ValueError, match="standard input, but it is closed"):
        run()


def test_names_are_the_routers(run, write):
    assert [one["expert"] for one in run(write("live.txt", new_prompts(50)))["experts"]] == list(NAMES)
