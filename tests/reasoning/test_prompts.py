"""The router's prompts: whole benchmarks to test on, and nothing of them to fit on."""

import json
from types import SimpleNamespace

import pytest

from ir3de.reasoning.benchmarks import Benchmark
from ir3de.reasoning.prompts import check_sources, in_two_domains, make_prompts, write_prompts
from ir3de.reasoning.settings import Reasoning


def _task(test, train=None, validation=None):
    docs = {name: None if texts is None else [{"q": text} for text in texts] for name, texts in
            (("test", test), ("train", train), ("validation", validation))}  # fmt: skip
    return SimpleNamespace(
        eval_docs=docs["test"],
        has_training_docs=lambda: train is not None,
        has_validation_docs=lambda: validation is not None,
        has_test_docs=lambda: True,
        training_docs=lambda: docs["train"],
        validation_docs=lambda: docs["validation"],
    )


def _texts(name, size):
    return [f"{name} {i}" for i in range(size)]


def _benchmarks(**tasks):
    return {name: Benchmark(name, of, "acc", "none", "q") for name, of in tasks.items()}


def test_no_test_question_of_any_domain_is_fitted_on():
    maths = _task(_texts("sum", 6), ["sum  3", "law 1", *_texts("drill", 30)])
    law = _task(_texts("law", 4), [*_texts("case", 20), "sum 2", "case 3"])
    found = make_prompts(_benchmarks(maths={"a": maths}, law={"b": law}), Reasoning(prompts=50, validation_prompts=9))
    by_name = {one.domain: one for one in found}
    assert by_name["maths"].prompts["test"] == _texts("sum", 6)
    assert by_name["maths"].left_out == {"test questions": 2}
    assert by_name["law"].left_out == {"test questions": 1, "copies": 1}
    for name, texts in (("maths", _texts("drill", 30)), ("law", _texts("case", 20))):
        train, validation = (by_name[name].prompts[split] for split in ("train", "validation"))
        assert sorted([*train, *validation]) == sorted(texts)
        assert len(validation) == len(texts) // 5


def test_tasks_of_a_domain_give_equally_many_prompts():
    tasks = {f"arc_{x}": _task(_texts(f"q{x}", 3), _texts(f"t{x}", size), _texts(f"v{x}", 5))
             for x, size in (("aa", 40), ("bb", 10), ("cc", 40))}  # fmt: skip
    settings = Reasoning(prompts=24, validation_prompts=6, limit=2)
    (one,) = make_prompts(_benchmarks(languages=tasks), settings)
    heads = [text.split()[0] for text in one.prompts["train"]]
    assert {head: heads.count(head) for head in set(heads)} == {"taa": 8, "tbb": 8, "tcc": 8}
    assert {text[0] for text in one.prompts["validation"]} == {"v"}
    assert len(one.prompts["validation"]) == 6
    assert one.questions == 6  # two of each task
    (again,) = make_prompts(_benchmarks(languages=tasks), settings)
    assert again == one
    (other,) = make_prompts(_benchmarks(languages=tasks), Reasoning(prompts=24, validation_prompts=6, limit=2, seed=5))
    assert other.prompts["train"] != one.prompts["train"]


def test_a_source_takes_the_place_of_training_questions(tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text("".join(json.dumps({"text": f"other {i}"}) + "\n" for i in range(10)))
    settings = Reasoning(training={"code": str(path)})
    check_sources(settings)
    (one,) = make_prompts(_benchmarks(code={"h": _task(_texts("f", 3))}), settings)
    assert sorted([*one.prompts["train"], *one.prompts["validation"]]) == sorted(_texts("other", 10))
    write_prompts({"code": tmp_path / "code"}, [one])
    rows = [json.loads(line) for line in (tmp_path / "code/test.jsonl").open()]
    assert rows == [{"text": text} for text in _texts("f", 3)]


def test_what_has_nothing_to_train_on_is_named():
    with pytest.raises(ValueError, match="must not be fitted .* Set `reasoning.training.code`"):
        make_prompts(_benchmarks(code={"h": _task(_texts("f", 3))}), Reasoning())
    with pytest.raises(ValueError, match="of 6 texts, 1 copies, 1 empty texts, 3 test questions were left out"):
        make_prompts(_benchmarks(code={"h": _task(_texts("f", 3), [*_texts("f", 3), "\n", "a", "a "])}), Reasoning())
    with pytest.raises(FileNotFoundError, match="In `reasoning.training.code`"):
        check_sources(Reasoning(training={"code": "/nowhere/prompts.jsonl"}))
    with pytest.raises(ValueError, match=r"the field `q` of the questions of `h`, but they have \['x'\]"):
        _benchmarks(code={})["code"].prompt("h", {"x": "text"})


def test_every_text_is_fitted_on_or_counted(tmp_path):
    """The reference is a loop over the texts as the data module reads them: white space does not tell them apart."""
    train = ["a b", "a  b", "", " \n", "c", "c", "q  1", "d", "e", "a b\n", "f", "g"]
    held_out = ["v", "c", "v ", "", "q 0"]
    (one,) = make_prompts(_benchmarks(x={"1": _task(["q 0", "q 1"], train, held_out)}), Reasoning())
    met, counts = set(), {"copies": 0, "empty texts": 0, "test questions": 0}
    for words in (tuple(text.split()) for text in [*train, *held_out]):
        if words in (("q", "0"), ("q", "1")):
            counts["test questions"] += 1
        elif words in met or not words:
            counts["copies" if words else "empty texts"] += 1
        else:
            met.add(words)
    assert one.left_out == counts
    assert sorted(one.prompts["train"]) == ["a b", "c", "d", "e", "f", "g"]
    assert one.prompts["validation"] == ["v"]


def test_what_a_source_passes_over_is_counted(tmp_path):
    path = tmp_path / "other.jsonl"
    rows = [{"text": f"other {i}"} for i in range(10)] + [{"text": None}, {"text": "other 3"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    settings = Reasoning(training={"code": str(path)})
    (one,) = make_prompts(_benchmarks(code={"h": _task(_texts("f", 3))}), settings)
    assert one.left_out["copies"] == 1
    assert one.left_out["rows without a value"] == 1


def test_questions_of_two_domains_are_counted():
    same = _task(["a", "b c"], _texts("t", 9)), _task(["b  c", "d"], _texts("u", 9))
    found = make_prompts(_benchmarks(x={"1": same[0]}, y={"2": same[1]}), Reasoning())
    assert in_two_domains(found) == {"x": 1, "y": 1}
