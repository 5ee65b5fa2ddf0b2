"""The command ``route``: what goes in, what comes out, and what becomes of lines that are no prompts."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ir3de.route_command import main, route
from ir3de.routers import load_router
from ir3de.serving import CompiledRouter
from ir3de.serving.alarm import Alarm
from tests.serving.routers import random_prompts, saved

ROOT = Path(__file__).parents[2]
PROGRAM = (
    "import resource, sys; from ir3de.route_command import route; status = route(sys.argv[1:]);"
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(status)"
)


def process(router, *arguments, program=PROGRAM):
    return subprocess.Popen(
        [sys.executable, "-c", program, "--router", router, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip


def test_texts_are_routed_as_the_router_does(router, run):
    texts = ["w1 w2 w3", "w40 w41", "w7"]
    status, rows, said = run(*texts)
    loaded = load_router(router)
    assert (status, said.count("\n")) == (0, 1), "why tiktoken is not used"
    assert [row["expert"] for row in rows] == loaded.route(texts).names
    assert [list(row["scores"].values()) for row in rows] == loaded.scores(texts).tolist()
    assert [row["tokens"] for row in rows] == [3, 2, 1]
    fields = ["expert", "highest", "confidence", "scores", "tokens", "window", "p_value", "none_because"]
    assert all(list(row) == fields and row["p_value"] is row["none_because"] is None for row in rows)
    assert list(rows[0]["scores"]) == list(loaded.expert_names)


def test_a_window_and_a_threshold_are_reported(run):
    window = {"keep": "ends", "size": 4, "unit": "tokens"}
    options = ("--window", "ends", "--window-tokens", "4", "--threshold", "1", "--fallback", "law")
    _, rows, said = run("w1 w2 w3 w4 w5 w6", "w1 w2", *options)
    assert [row["window"] for row in rows] == [window, None]
    assert [row["tokens"] for row in rows] == [4, 2]
    assert [row["expert"] for row in rows] == ["law", "law"]
    assert "1 of 2 prompts were longer than the window" in said
    assert "2 of 2 prompts were below the threshold" in said


@pytest.mark.parametrize("fallback", [None, "law"])
def test_unusual_prompts_are_told(router, run, fallback):
    alarm = Alarm.load(f"{router}/compiled")
    texts = [" ".join(f"w{i}" for i in ids) for ids in random_prompts(100)]
    options = () if fallback is None else ("--fallback", fallback)
    status, rows, said = run("--alarm", "0.2", *options, stdin="\n".join(texts).encode())
    assert status == 0
    p_values = [alarm.check(ids).p_value for ids in random_prompts(100)]
    assert [row["p_value"] for row in rows] == p_values
    unusual = [p_value <= 0.2 for p_value in p_values]
    assert 0 < sum(unusual) < 100
    assert [row["none_because"] for row in rows] == ["unusual" if one else None for one in unusual]
    assert [row["expert"] for row in rows] == [
        fallback if one else row["highest"] for one, row in zip(unusual, rows, strict=True)
    ]
    assert f"{sum(unusual)} of 100 prompts were unusual, by the alarm" in said


def test_a_router_that_can_have_no_alarm_is_refused(run, tmp_path):
    folder = saved(tmp_path / "router", "majority", validation=0)
    for where in (folder, folder, folder / "compiled"):  # compiled first, and then not again
        with pytest.raises(FileNotFoundError, match="no alarm beside it"):
            run("w1", "--alarm", "0.1", folder=str(where))


@pytest.mark.parametrize("arguments, message", [
    (("w1", "--window", "first"), "and 0 sizes"),
    (("w1", "--window-tokens", "5"), "--window None"),
    (("w1", "--window", "first", "--window-tokens", "5", "--window-characters", "5"), "and 2 sizes"),
    (("--files", "nowhere.txt"), "at `nowhere.txt`, but there is none"),
    (("--files", str(ROOT)), "is a folder"),
    (("--files", "{tmp}/a.jsonl.gz"), "`.*/a.jsonl.gz` is compressed. .* `gzip -dc` gives"),
    (("--field", "q", "--files", "{tmp}/A.ZST"), "`.*/A.ZST` is compressed. .* `zstd -dc` gives"),
    (("w1", "--fallback", "law"), "Give a threshold, or an alarm above 0"),
    (("w1", "--fallback", "law", "--alarm", "0"), "Give a threshold, or an alarm above 0"),
    (("", "--explain"), "Text 1 cannot be explained. Expected at least one token"),
    (("w1", "--alarm", "1"), "at least 0 and below 1"),
    (tuple(["w1"] * 101 + ["--explain"]), "at most 100 prompts"),
])  # fmt: skip
def test_what_does_not_go_together_is_said_in_a_sentence(run, tmp_path, arguments, message):
    for name in ("a.jsonl.gz", "A.ZST"):
        (tmp_path / name).write_bytes(b"\x1f\x8b")
    with pytest.raises((ValueError, OSError), match=message):
        run(*(one.replace("{tmp}", str(tmp_path)) for one in arguments))


@pytest.mark.parametrize("closed, message", [
    ("stdin", "Expected prompts on standard input, but it is closed"),
    ("stdout", "Expected standard output for the answers, but it is closed"),
])  # fmt: skip
def test_closed_input_or_output_is_said_in_a_sentence(router, monkeypatch, closed, message):
    monkeypatch.setattr(sys, closed, None)  # as Python starts with `<&-` or `>&-`
    with pytest.raises(ValueError, match=message):
        route(["--router", router])


def test_with_standard_error_closed_the_answers_are_alone(router, monkeypatch, capsysbinary):
    monkeypatch.setattr(sys, "stderr", None)
    assert route(["--router", router, "w1", "--threshold", "1"]) == 0
    assert [json.loads(line)["tokens"] for line in capsysbinary.readouterr().out.splitlines()] == [1]


def test_a_mistake_ends_the_program_with_a_sentence_and_status_1(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--router", str(tmp_path), "w1"])
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: Expected a saved or a compiled router in `{tmp_path}`")


def test_a_router_is_compiled_when_it_is_first_used_and_when_it_was_changed(run, tmp_path):
    folder = saved(tmp_path / "router", "majority")
    _, first, said = run("w1", folder=str(folder))
    assert "compiling the router" in said
    _, again, said = run("w1", folder=str(folder))
    assert (again, "compiling" in said) == (first, False)
    saved(folder, "majority", names=("x", "y"))
    _, rows, said = run("w1", folder=str(folder))
    assert ("compiling" in said, list(rows[0]["scores"])) == (True, ["x", "y"])
    assert run("w1", folder=str(folder / "compiled"))[1] == rows


def test_explanations_are_shown_and_written(router, monkeypatch, capsys, tmp_path):
    assert route(["--router", router, "--explain", "--html", str(tmp_path / "why.html"), "w1 w2 w3"]) == 0
    out, said = capsys.readouterr()
    assert "w1 w2 w3" in out
    assert CompiledRouter.load(f"{router}/compiled").route("w1 w2 w3").expert in out
    assert "w3</span>" in (tmp_path / "why.html").read_text()
    assert "written" in said


def test_what_was_not_as_usual_is_told_of_what_is_explained(router, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"w1 \xff\nw2 w3 w4\nw5\n")))
    window = ("--window", "first", "--window-tokens", "2")
    assert route(["--router", router, "--explain", *window, "--threshold", "1"]) == 0
    said = capsys.readouterr().err
    assert "1 of 3 prompts had what is no UTF-8 or no character; it was read as U+FFFD" in said
    assert "1 of 3 prompts were longer than the window" in said
    assert "3 of 3 prompts were below the threshold" in said


@pytest.mark.parametrize("name, message", [
    ("there", "`--html` to be a file to write, but `.*/there` is a folder. Name a file in it, .* `.*/there/why.html`"),
    ("a_file/why.html", "in a folder that can be written, but `.*/a_file` is none"),
    ("a_file/more/why.html", "in a folder that can be written, but `.*/a_file` is none"),
])  # fmt: skip
def test_where_no_page_can_be_written_is_said_before_anything_is_explained(router, tmp_path, capsys, name, message):
    (tmp_path / "there").mkdir()
    (tmp_path / "a_file").write_text("mine")
    with pytest.raises(ValueError, match=message):
        route(["--router", router, "--html", str(tmp_path / name), "w1"])
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a_file", "there"]


def test_a_page_is_written_into_a_folder_that_is_made(router, tmp_path, capsys):
    assert route(["--router", router, "--html", str(tmp_path / "new" / "more" / "why.html"), "w1"]) == 0
    assert "w1" in (tmp_path / "new" / "more" / "why.html").read_text()


@pytest.mark.parametrize("name, content, message", [
    (None, "w1\n\nw2\n", "^Line 2 cannot be explained. Expected at least one token"),
    (None, "w1\nw2\n   ", "^Line 3 cannot"),
    ("a.jsonl", '{"text": "w1"}\n{"text": ""}\n', "^Line 2 of `.*/a.jsonl` cannot"),
    ("a.jsonl", '{"text": "w1"}\n{"text": 3}\n', "^Line 2 of `.*/a.jsonl` cannot .* without a string in `text`"),
    ("a.txt", " \n", "^`.*/a.txt` cannot"),
])  # fmt: skip
def test_what_cannot_be_explained_is_named(run, tmp_path, name, content, message):
    first = tmp_path / "first.jsonl"
    first.write_text('{"text": "w1"}\n' * 3)
    arguments = () if name is None else ("--files", str(first), str(tmp_path / name))
    (tmp_path / (name or "unread")).write_text(content)
    with pytest.raises(ValueError, match=message):
        run("--explain", *arguments, stdin=content.encode() if name is None else b"")


def test_memory_does_not_grow_with_the_prompts_and_order_is_kept(router):
    peaks = []
    for number in (2_000, 40_000):
        running = process(router)
        lines = [f"w{i % 59} " * (1 + i % 7) for i in range(number)]
        out, said = running.communicate("\n".join(lines).encode())
        assert [json.loads(line)["tokens"] for line in out.splitlines()] == [1 + i % 7 for i in range(number)]
        peaks.append(int(said.split()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 8, f"MiB of {number} prompts: {peaks}"


def test_whoever_writes_a_line_gets_its_answer_before_the_next(router):
    running = process(router)
    for number in (1, 5, 2):
        running.stdin.write(("w1 " * number + "\n").encode())
        running.stdin.flush()
        assert json.loads(running.stdout.readline())["tokens"] == number
    running.communicate()
    assert running.returncode == 0


def test_a_reader_that_has_had_enough_ends_the_program_quietly(router):
    running = process(router, program="import sys; from ir3de.route_command import main; main(sys.argv[1:])")
    running.stdin.write(b"w1 w2\n" * 10)
    running.stdin.flush()
    running.stdout.readline()
    running.stdout.close()
    try:
        running.stdin.write(b"w1 w2\n" * 100_000)
        running.stdin.close()
    except BrokenPipeError:
        pass
    said = running.stderr.read()
    assert running.wait(timeout=60) == 141
    assert b"Error" not in said
    assert b"Traceback" not in said
