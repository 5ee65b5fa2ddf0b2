"""Events are whole however the bytes come, and what is none is found out."""

import random

import pytest

from ir3de.gateway.answers import ExpertFailed
from ir3de.gateway.events import EventSplitter, Kind, kind_of

PART = b'data: {"choices": [{"delta": {"content": "a"}}]}'


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_events_are_the_same_however_they_are_cut(end):
    events = [PART + end, b": wait" + end, b"event: x" + end[: len(end) // 2] + PART + end, b"data: [DONE]" + end]
    stream = b"".join(events)
    draw = random.Random(0)
    for _ in range(300):
        cuts = sorted(draw.sample(range(1, len(stream)), draw.randint(0, 20)))
        splitter, found = EventSplitter(1000), []
        for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            found += splitter.feed(stream[a:b])
        assert found == events
    assert [kind_of(event) for event in events] == [Kind.PART, Kind.COMMENT, Kind.PART, Kind.END]


def test_what_is_left_at_the_end_is_an_event():
    splitter = EventSplitter(1000)
    assert splitter.feed(PART + b"\n\ndata: [DONE]\n") == [PART + b"\n\n"]
    assert [kind_of(event) for event in splitter.end()] == [Kind.END]
    assert EventSplitter(1000).end() == []


def test_an_event_of_many_pieces_is_put_together_once():
    splitter = EventSplitter(10**9)
    for _ in range(200_000):  # a copy of all for each piece would be 140 GB
        assert splitter.feed(b"x" * 7) == []
    assert [len(event) for event in splitter.feed(b"\n\n")] == [1_400_002]


def test_an_event_that_never_ends_is_given_up_at_the_limit():
    splitter = EventSplitter(100)
    splitter.feed(b"x" * 100)
    with pytest.raises(ExpertFailed, match="more than 100 bytes"):
        splitter.feed(b"x")


@pytest.mark.parametrize(
    "event, kind",
    [
        (b'data: {"choices": [], "usage": {}}\n\n', Kind.PART),
        (b'data:{"choices":\ndata: []}\n\n', Kind.PART),
        (b": \n\n", Kind.COMMENT),
        (b"\n\n", Kind.COMMENT),
        (b"data:[DONE]\n\n", Kind.END),
        (b"id: 7\nretry: 3\n\n", Kind.COMMENT),
        (b"data: [DONE] \r\n\r\n", Kind.END),
        (b"data:\n\n", Kind.COMMENT),
        (b'data: {"choices": [{}], "error": null}\n\n', Kind.PART),
    ],
)
def test_what_is_an_event(event, kind):
    assert kind_of(event) is kind


@pytest.mark.parametrize(
    "event, reason",
    [
        (b"<html>\n\n", "garbage"),
        (b"data: {\n\n", "garbage"),
        (b"data: 7\n\n", "garbage"),
        (b"data: {}\n\n", "garbage"),
        (b'data: {"choices": 1}\n\n', "garbage"),
        (b"data: \xff\xfe\n\n", "garbage"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "garbage"),
        (b'data: {"error": {}}\n\n', "error"),
        (b'data: {"choices": [{}], "error": {"message": "m"}}\n\n', "error"),
        (b'data: {"choices": [7]}\n\n', "garbage"),
    ],
)
def test_what_is_none(event, reason):
    with pytest.raises(ExpertFailed) as caught:
        kind_of(event)
    assert caught.value.reason == reason
