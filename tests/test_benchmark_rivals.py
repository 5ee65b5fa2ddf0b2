"""The rivals of the benchmarks: all learn from the same text, and what that costs each is counted."""

import sys
from types import SimpleNamespace

import accuracy
import numpy as np
import pytest
import rival
from rivals import base, dictionaries, encoders

FAKE_WORKER = """
import json, sys
passes = 0
for line in sys.stdin:
    what, value = json.loads(line)
    if what == "train":
        answer = ["fake 1.0", 2.5, {"learned": value, "arguments": sys.argv[1:]}]
    elif what == "time":
        answer = [0.001 * len(text) for text in value]
    elif what == "stages":
        passes += 1
        answer = {"encoding": [passes * 1e-6 for _ in value], "scoring": [4e-6 / passes for _ in value]}
    elif what == "route":
        answer = [text[:1] for text in value]
    elif what == "add":
        answer = float(len(value[1]))
    else:
        sys.exit(3)
    print(json.dumps(answer), flush=True)
"""


def test_rivals_learn_all_that_routers_count(monkeypatch, tmp_path):
    learned = {}

    def theirs(name, python, train, **_):
        learned[name] = train
        return {}

    monkeypatch.setattr(accuracy, "theirs", theirs)
    monkeypatch.setattr(accuracy, "ours", lambda *_: {})
    monkeypatch.setattr(accuracy.Embeddings, "load", lambda *_, **__: None)
    train = {name: [name * 3_000, name * 500_000] for name in "ab"}
    accuracy.measure(train, {"a": ["a"]}, "python", None, tmp_path / "log")
    assert learned.keys() == {"kolmo", "kolmo_one_size", "aurelio", "minilm_knn"}
    for name, text in learned.items():
        assert {domain: "".join(some) for domain, some in text.items()} == {
            domain: "".join(some) for domain, some in train.items()
        }, name
    assert learned["kolmo"] == train
    assert len(learned["minilm_knn"]["a"]) == 8 + 1250


def test_a_rival_is_asked_through_a_pipe(monkeypatch, tmp_path):
    (tmp_path / "worker.py").write_text(FAKE_WORKER)
    monkeypatch.setattr(rival, "_WORKER", tmp_path / "worker.py")
    learned = {"a": ["one", "two"]}
    with rival.Rival("kolmo", sys.executable, learned, tmp_path / "log", tmp_path) as one:
        assert (one.version, one.teach_seconds) == ("fake 1.0", 2.5)
        assert one.settings == {"learned": learned, "arguments": ["kolmo", str(tmp_path)]}
        assert one.seconds(["ab", "abcd"]) == pytest.approx([0.002, 0.004])
        assert one.choices(["a1", "b2"]) == ["a", "b"]
        assert one.add("c", ["x", "y", "z"]) == 3
        stages = one.stages(["x", "y"], rounds=4)
        assert {stage: row["best"] for stage, row in stages.items()} == pytest.approx({"encoding": 1, "scoring": 1})
        assert {stage: row["p50"] for stage, row in stages.items()} == pytest.approx(
            {"encoding": 2.5, "scoring": 5 / 3}
        )
        with pytest.raises(RuntimeError, match=r"kolmo ended when it was asked to remove: see .*log"):
            one.remove("a")


def test_rivals_learn_documents_or_passages_and_few_where_only_time_counts(monkeypatch, tmp_path):
    (tmp_path / "worker.py").write_text(FAKE_WORKER)
    monkeypatch.setattr(rival, "_WORKER", tmp_path / "worker.py")
    documents, cut = {"a": ["document"]}, {"a": [f"passage {i}" for i in range(30)]}
    names = ("kolmo", "kolmo_one_size", "minilm_knn", "aurelio_free_few")
    with rival.rivals(names, sys.executable, documents, cut, tmp_path / "log") as found:
        learned = {name: one.settings["learned"]["a"] for name, one in found.items()}
    assert learned["kolmo"] == learned["kolmo_one_size"] == documents["a"]
    assert learned["minilm_knn"] == cut["a"]
    assert learned["aurelio_free_few"] == cut["a"][:10]
    with rival.rivals(names, None, documents, cut, tmp_path / "log") as found:
        assert found == {}


def test_vectors_are_encoded_once_and_cost_every_rival_their_time(monkeypatch, tmp_path):
    encoded = []
    clock = iter(range(0, 10**12, 7 * 10**9))  # every look at it is seven seconds later
    monkeypatch.setattr(base.time, "perf_counter_ns", lambda: next(clock))

    def encode(some):
        encoded.append(list(some))
        return np.array([[len(one), 1.0] for one in some])

    first, second = base.Kept(tmp_path), base.Kept(tmp_path)
    vectors = first.vectors(encode, ["a", "bcd"])
    np.testing.assert_array_equal(second.vectors(encode, ["a", "bcd"]), vectors)
    assert encoded == [["a", "bcd"]]
    assert (first.spent(), second.spent(), second.spent()) == (0.0, 7.0, 0.0)
    second.vectors(encode, ["a", "bce"])  # other texts
    assert len(encoded) == 2

    class Learner(encoders.EncoderKNN):
        def __init__(self):
            self._encoder, self._rows, self.kept = encode, {}, base.Kept(tmp_path)

    assert Learner().answer("add", ["x", ["a", "bcd"]]) == 7.0 + 7.0  # what it took itself, and what was spent before
    assert len(encoded) == 2


def test_one_size_of_dictionaries_is_chosen_on_held_out_training_text():
    made = []

    class Router:
        """Is right with dictionaries of 16,000 bytes only."""

        def __init__(self, dict_size):
            self.size, self.learned, self.asked = dict_size, {}, []
            made.append(self)

        def add_domain(self, name, samples, target_model):
            self.learned[name] = samples

        def route(self, text):
            self.asked.append(text)
            return SimpleNamespace(winner=text[0] if self.size == 16_000 else "a")

    class Chosen(dictionaries.KolmoOneSize):
        def __init__(self):
            self._new = Router

    documents = {name: [f"{name}{i}" for i in range(10)] for name in "ab"}
    one = Chosen()
    one.train(documents)
    assert one.settings() == {"dictionary_bytes": 16_000}
    *tried, chosen = made
    assert [router.size for router in tried] == list(dictionaries.SIZES)
    assert chosen.size == 16_000
    assert chosen.learned == documents
    for router in tried:
        learned = {text for some in router.learned.values() for text in some}
        assert len(router.asked) == 4
        assert not learned & set(router.asked)
