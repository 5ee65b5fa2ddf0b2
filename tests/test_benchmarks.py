"""The benchmarks' own arithmetic: what they compare is the same, and nothing is measured on what can't be used."""

import asyncio
import json
import os
import statistics
import sys
import time
from contextlib import asynccontextmanager
from types import SimpleNamespace

import accuracy
import bench
import confidence
import decisions
import fit_from_counts
import gateway
import numpy as np
import prompt_files
import pytest
import texts
import torch
import turns

from tests.helpers.waiting import wait_until


def test_the_fit_from_counts_is_the_streamed_one(monkeypatch):
    for name, value in (("VOCAB", 300), ("DIM", 8), ("DOMAINS", 3), ("LENGTH", 16), ("BATCH", 4)):
        monkeypatch.setattr(fit_from_counts, name, value)
    table_VD = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    domains = fit_from_counts.make_tokens(640)
    counted_DE, *_ = fit_from_counts.fit_from_counts(table_VD, domains)
    streamed_DE, *_ = fit_from_counts.fit_streamed(table_VD, domains, 1.0)
    torch.testing.assert_close(counted_DE, streamed_DE.double(), atol=1e-4, rtol=1e-3)


def test_turns_take_the_best_round_of_each_item():
    rounds = iter([[3e-6, 5e-6], [1e-6, 9e-6]])
    found = turns.in_turns({"a": turns.Run(lambda items: next(rounds), ["x", "y"])}, 2)["a"]
    assert found["best"] == pytest.approx(np.median([1, 5]))
    assert found["p50"] == pytest.approx(4)
    assert found["p99"] == pytest.approx(np.percentile([3, 5, 1, 9], 99))
    assert found["calls"] == 4


def test_slow_runs_take_part_in_some_rounds():
    counted = {"fast": 0, "slow": 0}

    def run(name):
        def seconds(items):
            counted[name] += 1
            return [1e-6 for _ in items]

        return seconds

    turns.in_turns({"fast": turns.Run(run("fast"), [0]), "slow": turns.Run(run("slow"), [0], every=3)}, 7)
    assert counted == {"fast": 7, "slow": 3}


def test_a_ratio_is_of_equally_many_rounds():
    fast = iter([[8e-6, 1e-6], [2e-6, 1e-6], [6e-6, 1e-6]])
    slow = iter([[50e-6], [40e-6]])
    runs = {
        "fast": turns.Run(lambda items: next(fast), ["x", "y"]),
        "slow": turns.Run(lambda items: next(slow), ["x"], every=2),
        "other": turns.Run(lambda items: [1e-6, 1e-6], ["x", "y"]),
    }
    found = turns.in_turns(runs, 3)
    assert found["fast"]["best"] == pytest.approx(np.median([2, 1]))
    assert turns.bests("fast", "slow", found) == pytest.approx((np.median([6, 1]), 40))  # the slow one has no round 1
    assert turns.bests("slow", "fast", found) == pytest.approx((40, np.median([6, 1])))
    assert turns.bests("fast", "other", found) == pytest.approx((1.5, 1))
    assert found["slow"]["calls"] == 2


def test_no_text_is_learned_and_tested():
    documents = {name: [f"{name} {i}" for i in range(size)] for name, size in (("a", 10), ("b", 23))}
    train, test = texts.split(documents)
    for name, all_ in documents.items():
        assert not set(train[name]) & set(test[name])
        assert sorted(train[name] + test[name]) == sorted(all_)
        assert len(test[name]) == len(all_) // 5


def test_passages_are_all_of_the_text_unless_a_number_is_given():
    documents = {"a": ["x" * 950, "y" * 400, "   "], "b": ["z" * 1200]}
    every = texts.passages(documents, None)
    assert "".join(every["a"]) == "x" * 950 + "y" * 400
    assert [len(one) for one in every["b"]] == [400, 400, 400]
    assert [len(some) for some in texts.passages(documents, 2).values()] == [2, 2]


def test_ids_are_taken_from_the_beginning_where_there_are_too_few():
    sequence = decisions.sequence
    assert sequence(np.arange(5), 3, 4).tolist() == [3, 4, 0, 1]
    assert sequence(np.arange(5), 10, 12).tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def test_decisions_are_measured_where_freed_memory_is_used_again(monkeypatch):
    class StartedAnew(Exception):
        pass

    def execve(program, command, environment):
        assert (program, command) == (sys.executable, [sys.executable, "decisions.py", "--rounds", "3"])
        assert environment.items() >= decisions.REUSING.items()
        assert int(environment["MALLOC_MMAP_THRESHOLD_"]) > 16 * 1024 * 576 * 4  # the published formula's tensor
        raise StartedAnew

    for name in decisions.REUSING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(decisions, "installed_text", None)  # nothing is measured
    monkeypatch.setattr(sys, "argv", ["decisions.py", "--rounds", "3"])
    with pytest.raises(StartedAnew):
        decisions.main()


def _write(path, rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_prompts_are_read_line_by_line(tmp_path):
    separated = '{"domain": "b", "text": "one\u2028two\x85three"}'
    path = _write(tmp_path / "p.jsonl", [separated, "", {"domain": "a", "text": "x", "more": 1}])
    assert prompt_files.read_prompts(path) == {"a": ["x"], "b": ["one\u2028two\x85three"]}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "x"}, "line 2: expected the field `domain` to be a string that is not empty; it is missing"),
        ({"domain": "a"}, "line 2: expected the field `text` to be a string that is not empty; it is missing"),
        ({"domain": "a", "text": 5}, "line 2: expected the field `text` .* it is 5"),
        ({"domain": "a", "text": " "}, "line 2: expected the field `text` .* it is ' '"),
        ({"domain": "a", "text": "\ud800"}, "line 2: the field `text` has half of a surrogate pair"),
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 is not a JSON object"),
    ],
)
def test_a_wrong_line_of_prompts_is_named(tmp_path, row, said):
    path = _write(tmp_path / "p.jsonl", [{"domain": "a", "text": "x"}, row])
    with pytest.raises(ValueError, match=f"p.jsonl, {said}"):
        prompt_files.read_prompts(path)


def test_prompts_to_teach_and_to_test_have_the_same_domains(tmp_path):
    both, one, few = (
        _write(tmp_path / name, [{"domain": domain, "text": "x"} for domain in domains for _ in range(number)])
        for name, domains, number in (("both", "ab", 10), ("one", "a", 10), ("few", "ab", 9))
    )
    assert [set(found) for found in prompt_files.read_both(both, few)] == [{"a", "b"}] * 2
    with pytest.raises(ValueError, match="one has no prompt of the domain 'b', which .*both has"):
        prompt_files.read_both(both, one)
    with pytest.raises(ValueError, match="one has no prompt of the domain 'b', which .*both has"):
        prompt_files.read_both(one, both)
    with pytest.raises(ValueError, match="few has 9 prompts of the domain 'a', but at least 10"):
        prompt_files.read_both(few, both)
    with pytest.raises(ValueError, match="empty has no prompts"):
        prompt_files.read_prompts(_write(tmp_path / "empty", []))


@pytest.mark.parametrize("script", [bench, accuracy, confidence])
def test_prompts_are_checked_before_anything_is_measured(monkeypatch, capsys, tmp_path, script):
    absent = str(tmp_path / "absent.jsonl")
    monkeypatch.setattr(script, *("run", None) if script is bench else ("installed_text", None))
    given = ["--rivals", sys.executable] if script is bench else []
    monkeypatch.setattr(sys, "argv", ["bench.py", *given, "--prompts", absent, absent])
    with pytest.raises(SystemExit, match="2"):
        script.main()
    said = capsys.readouterr().err
    assert f"No such file or directory: '{absent}'" in said
    assert "make bench" not in said.partition("error: ")[2]


def test_other_prompts_leave_the_parts_that_use_none(tmp_path):
    one, other = _write(tmp_path / "one", ["1"]), _write(tmp_path / "other", ["2"])
    for name in bench.PARTS:
        assert bench.fingerprint(name, [one]) == bench.fingerprint(name, [one])
        same = bench.fingerprint(name, [one]) == bench.fingerprint(name, [other])
        assert same is (name not in ("accuracy", "confidence"))


def test_the_load_is_what_the_server_answered(monkeypatch):
    counted = []
    monkeypatch.setattr(gateway, "_BEGIN_SECONDS", 0.01)

    async def answer(reader, writer):
        while head := await reader.read(1):
            head += await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split()[0])
            counted.append(json.loads(await reader.readexactly(length)))
            body = b'{"id": "1000.0"}'  # says that it thought for so long
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    async def loaded():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            start = time.perf_counter()
            found = await gateway.load(address, {"model": "a"}, clients=3, seconds=0.05)
            return *found, time.perf_counter() - start

    rate, taken, seconds = asyncio.run(loaded())
    assert counted == [{"model": "a"}] * len(taken)
    assert len(taken) / seconds <= rate <= len(taken) / 0.05
    assert all(-1000 <= one <= seconds - 1000 for one in taken)


def test_the_ways_through_the_gateway_take_turns_in_a_drawn_order(monkeypatch, tmp_path):
    asked = []

    async def load(address, body, *, clients, seconds):
        asked.append((address, body["model"], body.get("stream", False)))
        rate = {"alone": 100.0, "through": 40.0}[address] + len(asked)
        return rate, [0.001, 0.002, 0.003] if address == "alone" else [0.004, 0.006, 0.008, 0.010]

    @asynccontextmanager
    async def replaced(router):
        yield

    monkeypatch.setattr(gateway, "load", load)
    monkeypatch.setattr(gateway, "replaced_every_second", replaced)
    arguments = SimpleNamespace(clients=[2], rounds=3, seconds=0.0)
    found = gateway.measure(arguments, "alone", "through", tmp_path, 0.0)["2"]
    rounds = [asked[i : i + 6] for i in range(0, len(asked), 6)]
    assert len(rounds) == 3
    assert all(sorted(one) == sorted(rounds[0]) for one in rounds)
    assert any(one != rounds[0] for one in rounds)
    rates = [100 + number for number, one in enumerate(asked, 1) if one == ("alone", "a", False)]
    row = found["upstream alone"]
    assert (row["requests_per_second"], row["answers"]) == (statistics.median(rates), 9)
    assert (row["p50_ms"], row["p99_ms"]) == pytest.approx((2, 3))
    assert (found["named"]["p50_ms"], found["named"]["p99_ms"]) == pytest.approx((8, 10))


def test_a_program_that_says_much_is_read_to_the_end(tmp_path):
    """A pipe holds 64 KiB: who is not read waits."""
    done = tmp_path / "done"
    says = (
        "import pathlib, sys; print('answering at http://x:1/v1', file=sys.stderr, flush=True);"
        f"sys.stderr.write('word\\n' * 100_000); sys.stderr.flush(); pathlib.Path({str(done)!r}).touch();"
        "sys.stdin.read()"
    )
    with gateway.process("-c", says) as address:
        assert address == "http://x:1"
        wait_until(done.exists)
    with pytest.raises(RuntimeError, match="ended before it answered"), gateway.process("-c", "pass"):
        pass
