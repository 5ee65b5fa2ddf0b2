"""Answers of experts: lm-eval's own numbers, kept in shards, resumed, sampled, and cut where a window is too short."""

import json
import shutil
from pathlib import Path

import lm_eval.evaluator
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from ir3de.experts.bank import ExpertBank
from ir3de.experts.expert_tokenizer import load_expert_tokenizer
from ir3de.reasoning.answers import AnswerCache, request_keys
from ir3de.reasoning.benchmarks import load_benchmarks
from ir3de.reasoning.code_execution import code_execution
from ir3de.reasoning.expert_lm import Asking, ExpertLM
from ir3de.reasoning.settings import Reasoning
from ir3de.reasoning.task_scores import question_scores, score_task
from tests.helpers.benchmarks import FIELDS, METRICS, TASKS, needs_bwrap


def _settings(folder, **more):
    given = {"tasks": TASKS, "metric": METRICS, "prompt_field": FIELDS, "include_path": str(folder / "tasks")}
    return Reasoning(**given | more)


def _expert(bank, name, cache, *, bare=None, batch_size=3, shard_requests=4, seed=1):
    asking = Asking(
        batch_size=batch_size, shard_requests=shard_requests, device=torch.device("cpu"), seed=seed, bare=bare or {}
    )
    tokenizer = load_expert_tokenizer(bank[name], fallback=None)
    return ExpertLM(ExpertBank(bank), name, tokenizer=tokenizer, asking=asking, cache=AnswerCache(cache))


@pytest.mark.parametrize(
    "domain, expert",
    [
        ("math", "coding"),
        ("multilingual", "multilingual"),
        pytest.param("coding", "math", marks=needs_bwrap),
        ("instruction", "instruction"),
    ],
)
def test_scores_are_those_of_lm_evals_own_model(small, tmp_path, monkeypatch, domain, expert):
    """The reference is ``lm-eval run --model hf`` without its command line: HFLM loads model and tokenizer itself."""
    folder, bank, _ = small
    settings = _settings(folder)
    code = domain == "coding"
    with code_execution(allowed=code):
        benchmark = load_benchmarks(settings, [domain], allow_code=code)[domain]
        lm = _expert(bank, expert, tmp_path / "cache")
        for name, task in benchmark.tasks.items():
            mine = score_task(lm, task, benchmark, settings, allow_code=code)
            task.set_fewshot_seed(1234)
            reference = HFLM(pretrained=bank[expert], device="cpu", dtype="float32", batch_size=1)
            theirs = lm_eval.evaluator.evaluate(
                reference, {"tasks": {name: task}}, bootstrap_iters=0, confirm_run_unsafe_code=code
            )
            assert mine.reported == pytest.approx(theirs["results"][name][METRICS[domain]], abs=1e-12)
            assert mine.reported > 0
            assert (mine.score_Q * mine.weight_Q).sum() / mine.weight_Q.sum() == pytest.approx(mine.reported)
            assert mine.prompts == [doc[FIELDS[domain]] for doc in task.eval_docs]
            with monkeypatch.context() as patch:  # another run asks the same, examples included: nothing is answered
                patch.setattr(HFLM, "__init__", None)
                again = _expert(bank, expert, tmp_path / "cache")
                assert score_task(again, task, benchmark, settings, allow_code=code).reported == mine.reported


def _asked(count=10, **kwargs):
    return [
        Instance("generate_until", {"question": f"{i} now."}, (f"few shots {i} now.", {"max_gen_toks": 5, **kwargs}), 0,
                 metadata=("t", i, 1)) for i in range(count)
    ]  # fmt: skip


def test_a_killed_run_goes_on(small, tmp_path, monkeypatch):
    bank, calls = small[1], []
    plain = HFLM.generate_until

    def counted(self, requests, disable_tqdm=False):
        calls.append(len(requests))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(self, requests, disable_tqdm=disable_tqdm)

    monkeypatch.setattr(HFLM, "generate_until", counted)
    requests = _asked(do_sample=True, temperature=9.0)
    with pytest.raises(KeyboardInterrupt):
        _expert(bank, "math", tmp_path / "cache").generate_until(requests)
    resumed = _expert(bank, "math", tmp_path / "cache").generate_until(requests)
    assert calls == [4, 4, 2, 2]  # shards of four; the third was not finished
    whole = _expert(bank, "math", tmp_path / "other").generate_until(requests)
    assert resumed == whole
    assert len(set(whole)) > 1  # sampled
    again = _expert(bank, "math", tmp_path / "cache")
    assert again.generate_until(requests) == whole
    assert len(calls) == 4 + 3
    assert _expert(bank, "math", tmp_path / "seed", seed=2).generate_until(requests) != whole


def test_answers_that_are_kept_do_not_change(small, tmp_path):
    """A smaller run, then the whole one in other shards: what was used is used again, however the files are called."""
    cache = tmp_path / "cache"
    requests = _asked(do_sample=True, temperature=9.0)
    answered = {}
    for size, shard_requests in ((3, 4), (10, 4), (10, 7), (10, 3)):
        values = _expert(small[1], "math", cache, shard_requests=shard_requests).generate_until(requests[:size])
        for place, value in enumerate(values):
            assert answered.setdefault(place, value) == value
    assert len(set(answered.values())) > 1  # sampled
    keys = [key for file in cache.glob("*.json") for key, _, _ in json.loads(file.read_text())]
    assert len(keys) == len(set(keys)) == 10


def test_damaged_answers_are_named(small, tmp_path):
    _expert(small[1], "math", tmp_path / "cache").generate_until(_asked(2))
    (file,) = (tmp_path / "cache").glob("*.json")
    file.write_text(file.read_text()[:-3])
    with pytest.raises(ValueError, match="is damaged .* Delete it"):
        AnswerCache(tmp_path / "cache")


def test_bare_prompts_are_the_questions_alone(small, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        HFLM, "generate_until", lambda self, requests, **_: [seen.append(r.args[0]) or "" for r in requests]
    )
    _expert(small[1], "math", tmp_path, bare={"t": "question"}).generate_until(_asked(3))
    assert seen == ["0 now.", "1 now.", "2 now."]


def test_prompts_that_do_not_fit_are_counted(small, tmp_path):
    bank = {}
    for name, path in small[1].items():
        bank[name] = str(shutil.copytree(path, tmp_path / name))
        config = Path(bank[name]) / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 16}))
    lm = _expert(bank, "math", tmp_path / "cache")
    tokenizer = load_expert_tokenizer(bank["math"], fallback=None)
    words = ["now " * size for size in (2, 8, 40)]
    requests = [Instance("generate_until", {}, (text, {"max_gen_toks": 5}), 0, metadata=("t", 0, 1)) for text in words]
    lm.generate_until(requests)
    assert lm.cut == sum(len(tokenizer.encode(text)) > 11 for text in words) > 0
    again = _expert(bank, "math", tmp_path / "cache")
    again.generate_until(requests)
    assert again.cut == lm.cut  # known without asking again
    pairs = [Instance("loglikelihood", {}, (text, " now"), 0, metadata=("t", 0, 1)) for text in words]
    again.cut = 0
    again.loglikelihood(pairs)
    assert again.cut == sum(len(tokenizer.encode(f"{text} now")) > 17 for text in words) > 0
    with pytest.raises(ValueError, match="asks for up to 16 new tokens, but the expert `math` reads 16 at most"):
        lm.generate_until([Instance("generate_until", {}, ("a", {"max_gen_toks": 16}), 0, metadata=("t", 0, 1))])


def test_keys_tell_sampled_repetitions_apart():
    greedy = [("a", {"do_sample": False}), ("a", {"do_sample": False}), ("b", {"do_sample": False})]
    sampled = [("a", {"do_sample": True}), ("a", {"do_sample": True})]
    keys = request_keys("generate_until", greedy)
    assert keys[0] == keys[1] != keys[2]
    assert len(set(request_keys("generate_until", sampled))) == 2
    assert request_keys("loglikelihood", [("a", "b")]) != request_keys("loglikelihood", [("ab", "")])


@pytest.mark.parametrize(
    "values, scores, weights",
    [
        ([1.0, 0], [1, 0], [1, 1]),
        ([True, False], [1, 0], [1, 1]),
        ([[True, False, True], [False], []], [2 / 3, 0, 0], [3, 1, 0]),
    ],
)
def test_a_question_counts_as_often_as_it_has_checks(values, scores, weights):
    score_Q, weight_Q = question_scores(values)
    assert score_Q.tolist() == pytest.approx(scores)
    assert weight_Q.tolist() == weights


def test_a_metric_that_is_not_there_is_named(small, tmp_path):
    folder, bank, _ = small
    settings = _settings(folder, metric=METRICS | {"math": "exact_match,none"}, limit=2)
    with code_execution(allowed=False):
        benchmark = load_benchmarks(settings, ["math"], allow_code=False)["math"]
        (task,) = benchmark.tasks.values()
        with pytest.raises(ValueError, match="has no `exact_match,none`, but .*exact_match,strict-match"):
            score_task(_expert(bank, "math", tmp_path), task, benchmark, settings, allow_code=False)
