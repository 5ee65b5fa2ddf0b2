"""Explanations are exact, show the whole prompt that was read, and are safe to open in a browser."""

import dataclasses
import html
import io
import re
import unicodedata

import numpy as np
import pytest
from rich.console import Console

from ir3de.compiling.router import compile_router
from ir3de.serving import CompiledRouter, Window
from ir3de.serving.alarm import Alarm
from ir3de.serving.explain import NO_PIECE, Explanation, explain, in_terminal
from ir3de.serving.explain_page import page
from tests.serving.routers import KINDS, byte_pair_router, saved


@pytest.mark.parametrize("kind", KINDS)
def test_what_tokens_give_adds_up_to_the_scores(tmp_path, kind):
    router = CompiledRouter.load(compile_router(str(saved(tmp_path, kind))))
    one = explain(router, "w1 w2 w3 w3 w17 w40 w2 w9 w9 w9")
    total_E = np.zeros(3)
    for given_E in one.contribution_TE:
        total_E += given_E
    assert np.array_equal(total_E / one.divisor, one.route.scores)
    assert one.pieces == ["w1", " w2", " w3", " w3", " w17", " w40", " w2", " w9", " w9", " w9"]
    voting = (one.favourite_T >= 0).sum()
    assert voting == {"entropy_top_1": 1, "entropy_top_7": 7}.get(kind, 10)
    best = one.best_experts()[0]
    assert best == one.route.expert_index
    above = sum(value for _, value in one.telling(best))
    assert above > 0


@pytest.fixture(scope="module")
def over_bytes(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "ir3de.compiling.router.installed_versions", lambda: {"tiktoken": None}
        )  # no check is needed here
        return compile_router(str(byte_pair_router(tmp_path_factory.mktemp("router"))))


def test_the_pieces_are_the_text_that_was_read(over_bytes):
    text = "naïve 🙂 def f(x): <|im_start|> don't  stop\n"
    one = explain(CompiledRouter.load(over_bytes), text)
    assert "".join(one.pieces) == text
    assert len(one.pieces) == one.route.tokens == len(one.contribution_TE)
    assert "" in one.pieces, "the bytes of the emoji are several tokens"


def test_what_has_no_character_of_its_own_is_apart_from_every_piece(over_bytes):
    router = CompiledRouter.load(over_bytes)
    one = explain(router, "a · b 🙂 · 🙂")
    assert {"", " ·"} <= set(one.pieces)
    expert = one.best_experts()[0]
    above_T = (one.contribution_TE[:, expert] - one.contribution_TE.mean(axis=1)) / one.divisor
    pieces = ["·" if piece == " ·" else piece for piece in one.pieces]  # as it is a piece elsewhere
    told = dict(dataclasses.replace(one, pieces=pieces).telling(expert))
    for piece in ("", "·"):
        total = above_T[[other == piece for other in pieces]].sum()
        assert told.get(piece, 0) == pytest.approx(max(total, 0))
    console = Console(file=io.StringIO(), width=1000)
    console.print(*in_terminal(one), sep="\n")
    assert f"{NO_PIECE} +" in console.file.getvalue()
    assert f"<span>{NO_PIECE}&nbsp;+" in page([one])


@pytest.mark.parametrize("window, read", [
    (None, "🙂 hello \ufffd."),
    (Window("last", 4, "tokens"), "\ufffd."),
    (Window("ends", 8, "characters"), "🙂 ho \ufffd."),
])  # fmt: skip
def test_halves_of_a_character_are_shown_as_they_are_read(over_bytes, window, read):
    text = "\ud83d\ude42 hello \ud83d."
    router = CompiledRouter.load(over_bytes, window=window)
    one = explain(router, text)
    assert "".join(one.pieces) == read
    assert np.array_equal(one.route.scores, router.route(text).scores)


@pytest.mark.parametrize("window, gap", [
    (Window("ends", 10, "characters"), True),
    (Window("first", 6, "tokens"), False),
    (Window("ends", 6, "tokens"), True),
])  # fmt: skip
def test_a_gap_shows_where_the_window_left_text_out(over_bytes, window, gap):
    router = CompiledRouter.load(over_bytes, window=window)
    text = "one two three four five six seven"
    one = explain(router, text)
    assert len(one.pieces) == one.route.tokens
    assert bool(one.gaps) == gap
    read = "".join("|" * (i in one.gaps) + piece for i, piece in enumerate(one.pieces))
    head, _, tail = read.partition("|")
    assert text.startswith(head)
    assert text.endswith(tail)


def test_the_terminal_shows_the_prompt_in_colours(over_bytes):
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system="truecolor")
    text = "[bold]markup is text[/bold]"
    console.print(*in_terminal(explain(CompiledRouter.load(over_bytes), text)), sep="\n")
    shown = console.file.getvalue()
    assert "\x1b[" in shown
    assert text in re.sub(r"\x1b\[[0-9;]*m", "", shown)


def test_a_prompt_cannot_rewrite_the_terminal(over_bytes):
    """Nothing of a prompt but its ends of lines is a control character there, and nothing is lost."""
    controls = "".join(map(chr, [*range(0x20), 0x7F, *range(0x80, 0xA0)]))
    console = Console(file=io.StringIO(), width=10_000)
    one = explain(CompiledRouter.load(over_bytes), f"a{controls}b \x1b[2J\x1b]0;mine\x07 \x9b31m")
    console.print(*in_terminal(dataclasses.replace(one, expert_names=("co\x1b[1mde", "prose"))), sep="\n")
    shown = console.file.getvalue()
    assert {c for c in shown if unicodedata.category(c) == "Cc"} == {"\n"}, "tabs became spaces"
    assert re.search("a␀␁␂␃␄␅␆␇␈ +\n␋␌␍␎", shown)
    assert "␡␛@␛A" in shown
    assert "b ␛[2J␛]0;mine␇ ␛[31m" in shown
    assert "co␛[1mde" in shown


@pytest.mark.parametrize("bounds, heading, fact", [
    ({}, None, None),
    ({"alarm": 0.0}, None, "p-value"),
    ({"threshold": 1.0}, "none of them (below the threshold it is not known which of them)", None),
    ({"alarm": 0.999}, "none of them (the prompt is unusual for all of them)", "p-value"),
    ({"alarm": 0.999, "fallback": "law"}, "law (the prompt is unusual for all of them)", "p-value"),
])  # fmt: skip
def test_it_says_who_answers_why_and_how_unusual_the_prompt_is(tmp_path, bounds, heading, fact):
    compiled = compile_router(str(saved(tmp_path, "naive_bayes")))
    one = explain(CompiledRouter.load(compiled, **bounds), "w1 w2 w3")
    console = Console(file=io.StringIO(), width=1000)
    console.print(*in_terminal(one), sep="\n")
    terminal, content = console.file.getvalue(), html.unescape(page([one]))
    heading = heading or one.expert_names[one.route.expert_index]
    assert terminal.startswith(f"{heading}  confidence")
    assert f"<h2>{heading}</h2>" in content
    assert ("p-value" in terminal) == ("p-value" in content) == (fact is not None)
    if fact is not None:
        p_value = Alarm.load(compiled).check(np.array([1, 2, 3])).p_value
        share = f"p-value {p_value:.3g} ({100 * p_value:.3g}% of the validation sequences are at least so unusual)"
        assert share in terminal
        assert share in content


def test_a_page_is_made_in_time_that_grows_with_the_tokens_and_not_their_square(over_bytes, monkeypatch):
    looked = []
    for name, before in (("weight_T", Explanation.weight_T), ("best_experts", Explanation.best_experts)):
        monkeypatch.setattr(Explanation, name, lambda self, before=before: looked.append(1) or before(self))
    one = explain(CompiledRouter.load(over_bytes), "one two three " * 20)
    page([one, one])
    assert len(looked) == 4, "once for a prompt each, not for a token"


def test_the_page_stands_alone_and_runs_nothing(over_bytes):
    text = "<script>alert('x')</script> & \"quotes\""
    content = page([explain(CompiledRouter.load(over_bytes), text)])
    assert "<script" not in content
    assert not re.search(r'(src|href)="', content)
    shown = html.unescape(re.sub(r"<[^>]*>", "", re.search(r"<pre>(.*?)</pre>", content, re.DOTALL)[1]))
    assert shown == text
