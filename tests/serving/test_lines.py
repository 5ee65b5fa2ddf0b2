"""What prompts are: lines, JSON lines, files and pipes; what becomes of lines that are none, and what is held."""

import io
import os
from pathlib import Path

import pytest

from ir3de.route_command import route
from ir3de.routers import load_router
from ir3de.serving import CompiledRouter
from ir3de.serving.lines import Tally, answers, lines_of
from tests.serving.routers import random_prompts


@pytest.mark.parametrize("end", ["", "\n"], ids=["no end of line", "end of line"])
def test_a_prompt_a_line_and_an_answer_a_line(router, run, end):
    texts = [" ".join(f"w{i}" for i in ids) for ids in random_prompts(300)]
    status, rows, _ = run(stdin=("\n".join(texts) + end).encode())
    assert status == 0
    assert [row["expert"] for row in rows] == load_router(router).route(texts).names


def test_lines_of_windows_are_read_without_their_carriage_return(run):
    _, rows, _ = run(stdin=b"w1 w2\r\nw1 w2\n")
    assert rows[0] == rows[1]


@pytest.mark.parametrize("content, options", [
    (b"w1 w2\nw3", ()),
    (b"w1", ()),
    (b'{"text": "w1 w2"}\n{"text": "w3"}\n', ("--field", "text")),
    (b"", ()),
])  # fmt: skip
def test_a_byte_order_mark_is_none_of_the_text(run, tmp_path, content, options):
    marked = b"\xef\xbb\xbf" + content
    assert run(*options, stdin=marked) == run(*options, stdin=content)
    path = tmp_path / ("prompts.jsonl" if options else "prompt.txt")
    found = []
    for one in (marked, content):
        path.write_bytes(one)
        found.append(run("--files", str(path)))
    assert found[0] == found[1]


def test_a_byte_order_mark_within_the_text_is_read(run):
    _, rows, _ = run(stdin=b"w1\n\xef\xbb\xbfw2\nw2\n")
    assert rows[1]["scores"] != rows[2]["scores"]


def test_lines_that_are_no_prompts_keep_their_place_and_are_counted(run):
    status, rows, said = run(stdin=b"w1\n\nw2 \xff\xfe\n   \nw3")
    assert status == 1
    assert [row.get("error") for row in rows] == [None, "without a token", None, "without a token", None]
    assert [row["expert"] is None for row in rows] == [False, True, False, True, False]
    assert [row.get("replaced", False) for row in rows] == [False, False, True, False, False]
    assert "2 of 5 prompts were not routed: 2 without a token" in said
    assert "1 of 5 prompts had what is no UTF-8" in said


def test_json_lines_that_are_no_prompts_keep_their_place_and_are_counted(run):
    lines = [
        b'{"q": "w1"}',
        b"nonsense",
        b"",
        b'{"q": 3}',
        b'["w1"]',
        b'{"p": "w1"}',
        b'{"q": "\\ud800 w2"}',
        b"[" * 9999,
    ]
    status, rows, said = run("--field", "q", stdin=b"\n".join(lines))
    missing = "without a string in `q`"
    assert status == 1
    assert [row.get("error") for row in rows] == [
        None, "not JSON", "without a token", missing, missing, missing, None, "not JSON",
    ]  # fmt: skip
    assert rows[6]["replaced"] is True
    assert f"6 of 8 prompts were not routed: 2 not JSON, 3 {missing}, 1 without a token" in said


def test_files_are_prompts_and_jsonl_files_have_some(run, tmp_path):
    (tmp_path / "one.txt").write_text("w1 w2\nw3")
    (tmp_path / "more.jsonl").write_text('{"text": "w4"}\n{"text": "w5 w6"}\n')
    _, rows, _ = run("--files", str(tmp_path / "one.txt"), str(tmp_path / "more.jsonl"))
    assert [(Path(row["source"]).name, row["tokens"]) for row in rows] == [
        ("one.txt", 3), ("more.jsonl", 1), ("more.jsonl", 2),
    ]  # fmt: skip


@pytest.mark.parametrize("name, options", [
    ("more.JSONL", ()),
    ("more.ndjson", ("--field", "text")),
    ("more", ("--field", "text")),
])  # fmt: skip
def test_a_field_makes_every_file_one_of_json_lines(run, tmp_path, name, options):
    (tmp_path / name).write_text('{"text": "w4"}\n{"text": "w5 w6"}\n')
    status, rows, _ = run(*options, "--files", str(tmp_path / name))
    assert (status, [row["tokens"] for row in rows]) == (0, [1, 2])
    (tmp_path / name).write_text('{"text": "w4"}\n{"text": ""}\n')
    with pytest.raises(ValueError, match=f"Line 2 of `.*{name}` cannot be explained"):
        run(*options, "--explain", "--files", str(tmp_path / name))


def test_a_field_of_a_text_is_refused(router, capsys):
    with pytest.raises(SystemExit) as stopped:
        route(["--router", router, "w1", "--field", "text"])
    assert stopped.value.code == 2
    assert "--field is for lines" in capsys.readouterr().err


@pytest.mark.parametrize("content, options", [("w1 w2\nw3", ()), ('{"q": "w1 w2 w3"}\n', ("--field", "q"))])
def test_a_pipe_is_a_file(run, content, options):
    end, other = os.pipe()
    os.write(other, content.encode())
    os.close(other)
    status, rows, _ = run(*options, "--files", f"/dev/fd/{end}")
    os.close(end)
    assert (status, [row["tokens"] for row in rows]) == (0, [3])


def test_few_answers_are_held_however_many_prompts_come_together(router):
    """What is held is bounded by bytes, not by prompts times experts."""
    loaded = CompiledRouter.load(f"{router}/compiled")
    [batch] = lines_of(io.BytesIO(b"w1\n" * 5_000), json_field=None)
    tally = Tally()
    held, out = [], []
    for some in answers(loaded, [batch], tally):
        held.append(tally.prompts - sum(one.count(b"\n") for one in out))
        out.append(some)
    assert len(batch) == tally.prompts == b"".join(out).count(b"\n") == 5_000
    assert max(held) < 1_000
    assert max(map(len, out)) < (1 << 16) + 1_000
