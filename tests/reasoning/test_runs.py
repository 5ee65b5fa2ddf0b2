"""``reasoning.yaml`` from scores to comparison, only paths, sizes and tasks overridden, under both protocols."""

import json
import shutil
import zlib
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import callbacks  # noqa: F401 - as main.py does
from ir3de.cli import main
from ir3de.data.bpe import train_bpe
from ir3de.routers import Router, load_router
from tests.helpers.benchmarks import DOMAINS, METRICS, SAYS, TASKS
from tests.helpers.settings import save_bert, shipped_router

QUICK = ["--trainer.accelerator", "cpu", "--trainer.max_epochs", "2", "--wandb.mode", "disabled"]


@pytest.fixture(scope="module")
def scored(small, tmp_path_factory):
    """A working directory in which ``scores`` has run, with the options that every command takes."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed, without which HumanEval is not answered")
    folder, bank, given = small
    here = tmp_path_factory.mktemp("run")
    options = ["--config", "reasoning.yaml", *given, "--data.cache_dir", str(folder / "cache")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        main(["scores", *options, "--allow_code_execution", "true"])
        yield here, folder, bank, [*options, *QUICK]


def _published(folder):
    other = {name: str(folder / "prompts" / name) for name in DOMAINS}  # what MoDEM is trained on
    more = ["--faults.trained_on", json.dumps(other), "--reasoning.max_new_tokens", "12"]
    return ["--protocol", "published", *more]


def test_every_question_is_a_row_or_part_of_one(scored):
    _, folder, _, _ = scored
    table = pq.read_table(folder / "scores.parquet").to_pandas()
    assert table.groupby("domain")["questions"].sum().to_dict() == {
        "coding": 9, "instruction": 10, "math": 15, "multilingual": 21,
    }  # fmt: skip
    for domain in DOMAINS:
        (rows,) = [one for name, one in table.groupby("domain") if name == domain]
        texts = [json.loads(line)["text"] for line in (folder / "prompts" / domain / "test.jsonl").open()]
        assert texts == rows["prompt"].tolist()
        assert rows["weight"].sum() == pytest.approx(rows["questions"].sum())


def test_some_domains_are_answered_and_no_table_is_written(scored, capsys):
    here, _, _, options = scored
    asked = ["--domain", "[math]", "--experts.losses.table", str(here / "none.parquet"), "--reasoning.limit", "3"]
    main(["scores", *options[: -len(QUICK)], *asked])  # no leave to run code is needed
    said = capsys.readouterr()
    assert "answered: math" in said.err
    assert "A smaller run: 3 questions" in said.err
    assert not (here / "none.parquet").exists()
    with pytest.raises(SystemExit):
        main(["scores", *options[: -len(QUICK)], "--domain", "[law]"])
    assert "Expected `--domain` to name domains of" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("protocol", ["corrected", "published"])
def test_fit_and_test(scored, protocol):
    here, folder, _, options = scored
    more = ["--name", protocol] + (_published(folder) if protocol == "published" else [])
    table = folder / "scores.parquet"
    if protocol == "published":  # sampled answers to bare questions are other scores
        main(["scores", *options[: -len(QUICK)], *more, "--allow_code_execution", "true"])
        table = here / "reasoning/scores_published.parquet"
    for command in ("fit", "test"):
        main([command, *options, *more])
    config = yaml.safe_load((here / "runs" / protocol / "config.yaml").read_text())
    assert config["reasoning"]["bare_prompts"] == (protocol == "published")
    assert config["faults"]["fit_on_test"] == (["coding", "instruction"] if protocol == "published" else [])
    results = json.loads((here / "runs" / protocol / "results.json").read_text())
    assert results["measure"] == "score"
    assert results["sequences"] == {"coding": 9, "instruction": 10, "math": 15, "multilingual": 20}
    reported = json.loads(table.with_suffix(".json").read_text())["reported"]
    for expert in DOMAINS:
        for domain in DOMAINS:
            mean = np.mean(list(reported[domain][expert].values()))
            assert results["expert_quality"][expert][domain] == pytest.approx(mean, abs=1e-12)
    (average,) = [one for one in results["references"] if one["router"] == "average of the weights"]
    assert average["quality"]["math"] == pytest.approx(reported["math"]["weight_average"]["mini_gsm8k"])


def test_compare(scored):
    here, folder, _, options = scored
    save_bert(here / "bert", train_bpe(iter(["how many coins", "def f(x):", "write about"]), vocab_size=300))
    knn, modem = (shipped_router(here, name, here / "bert") for name in ("knn", "modem_large"))
    other = [*_published(folder), "--experts.losses.table", str(folder / "scores.parquet")]
    for name, learned, more in (("comparison_published", modem, other), ("comparison", knn, [])):
        routers = ["--routers", json.dumps(["paper/ir3de", learned, "oracle", "loss_oracle"])]
        main(["compare", *options, *routers, "--seeds", "1", *more])
        found = json.loads((here / "runs/reasoning" / name / "comparison.json").read_text())
        assert found["failures"] == {}
        rows = {one["name"]: one["row"] for one in found["standings"]}
        assert rows["oracle"]["normalized_performance"] == pytest.approx(100, abs=1e-9)
        assert rows["loss_oracle"]["regret"] == pytest.approx(0, abs=1e-12)
        assert "weight_average" in rows
    report = (here / "runs/reasoning/comparison/report.md").read_text()
    assert "Published and ours (reasoning)" in report


def _expected(folder, route):
    """Return every task's score by looking a router's decisions up in the table."""
    table = pq.read_table(folder / "scores.parquet").to_pandas()
    names = route(table["prompt"].tolist())
    table["routed"] = [row[f"score:{name}"] for name, (_, row) in zip(names, table.iterrows(), strict=True)]
    sums = table.assign(value=table["routed"] * table["weight"]).groupby("task")[["value", "weight"]].sum()
    return (sums["value"] / sums["weight"]).to_dict(), set(names)


@pytest.mark.parametrize("cached", [pytest.param(False, id="asked again"), pytest.param(True, id="answers of scores")])
def test_a_routed_bank_has_the_scores_of_the_table(scored, monkeypatch, cached):
    """Experts that answer what is routed to them give what the look-up gives, on all four kinds of tasks."""
    import lm_eval.evaluator
    from lm_eval.tasks import TaskManager

    from ir3de.reasoning.code_execution import code_execution
    from ir3de.reasoning.routed_lm import RoutedLM

    _, folder, bank, _ = scored
    router = ByHash()
    lm = RoutedLM(router, bank, device="cpu", batch_size=3, cache=str(folder / "cache") if cached else None)
    if cached:
        monkeypatch.setattr("ir3de.reasoning.expert_lm.HFLM.__init__", None)  # nobody is asked
    with code_execution(allowed=True):
        tasks = TaskManager(include_path=str(folder / "tasks"), include_defaults=False).load(
            [name for names in TASKS.values() for name in names]
        )
        for task in tasks["tasks"].values():
            task.set_fewshot_seed(1234)
        found = lm_eval.evaluator.evaluate(lm, tasks, bootstrap_iters=0, confirm_run_unsafe_code=True)["results"]
    expected, names = _expected(folder, lambda prompts: router.route(prompts).names)
    assert names == set(DOMAINS)  # right and wrong
    for domain, of_domain in TASKS.items():
        for task in of_domain:
            assert found[task][METRICS[domain]] == pytest.approx(expected[task], abs=1e-12), task
    assert 0 < expected["mini_gsm8k"] < 0.6
    assert sum(lm.routed["mini_arc_bb"].values()) == 13


def test_lm_evals_command_line_knows_the_routed_bank(scored, capfd, monkeypatch):
    import lm_eval.tasks

    here, folder, _, options = scored
    main(["fit", *options, "--name", "routed", "--model", "routers/ir3de_mean.yaml",
          "--model.router.embeddings", str(folder / "experts/coding")])  # fmt: skip
    router = here / "runs/routed/router"
    only = partial(lm_eval.tasks.TaskManager, include_defaults=False)  # 13,000 files take seconds to read
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", only)
    main(["lm-eval", "run", "--model", "ir3de", "--model_args", f"router={router},bank={folder}/experts",
          "--tasks", "mini_gsm8k", "mini_humaneval", "--include_path", str(folder / "tasks"), "--device", "cpu",
          "--output_path", str(here / "out.json"), "--batch_size", "4", "--confirm_run_unsafe_code"])  # fmt: skip
    (out,) = here.glob("out*.json")
    found = json.loads(out.read_text())
    expected, _ = _expected(folder, lambda prompts: load_router(router).route(prompts).names)
    for task, metric in (("mini_gsm8k", METRICS["math"]), ("mini_humaneval", METRICS["coding"])):
        assert found["results"][task][metric] == pytest.approx(expected[task], abs=1e-12)
    assert sum(found["config"]["routed"]["mini_humaneval"].values()) == 9
    assert "mini_gsm8k: " in capfd.readouterr().err


def test_one_decision_for_all_options_by_the_questions_own_text(small):
    from lm_eval.api.instance import Instance

    from ir3de.reasoning.routed_lm import RoutedLM

    _, bank, _ = small
    router = ByHash()
    docs = [{"instruction": "wo", "query": "few shots and wo"}, {"instruction": "wo ist", "query": "x"}]
    requests = [
        Instance("loglikelihood", docs[i], (f"context {i} of few shots", f" {word}"), k, metadata=("arc", i, 1))
        for i in range(2)
        for k, word in enumerate(("haus", "auto", "zug"))
    ]
    lm = RoutedLM(router, bank, device="cpu")
    answers = lm.loglikelihood(requests)
    assert router.asked == ["wo", "wo ist"]
    assert sum(lm.routed["arc"].values()) == 2
    alone = RoutedLM(router, bank, device="cpu", batch_size=1, residence="one").loglikelihood(requests)
    assert [one[0] for one in answers] == pytest.approx([one[0] for one in alone], abs=1e-4)
    with pytest.raises(ValueError, match="the model argument `prompt_field`"):
        lm.loglikelihood([Instance("loglikelihood", {"query": "x"}, ("a", " b"), 0, metadata=("other", 0, 1))])


def test_a_conversation_is_put_into_the_template_of_the_chosen_expert(small, tmp_path):
    from lm_eval.api.instance import Instance
    from transformers import AutoTokenizer

    from ir3de.reasoning.routed_lm import RoutedLM

    _, bank, _ = small
    own = {}
    for name, path in bank.items():
        shutil.copytree(path, tmp_path / name)
        tokenizer = AutoTokenizer.from_pretrained(path)
        tokenizer.chat_template = f"{name}: {{{{ messages[0]['content'] }}}} now."
        tokenizer.save_pretrained(tmp_path / name)
        own[name] = str(tmp_path / name)
    lm = RoutedLM(ByHash(), own, device="cpu")
    kwargs = {"until": [], "max_gen_toks": 6}
    texts = [f"Question {i}" for i in range(6)]
    requests = [
        Instance("generate_until", {"question": text}, (lm.apply_chat_template([{"role": "user", "content": text}]),
                 kwargs), 0, metadata=("chat", i, 1)) for i, text in enumerate(texts)
    ]  # fmt: skip
    assert lm.generate_until(requests) == [SAYS[name][2] for name in ByHash().route(texts).names]
    with pytest.raises(ValueError, match="has no chat template"):
        RoutedLM(ByHash(), bank, device="cpu").generate_until(requests)


@pytest.mark.parametrize(
    "bank, settings, message",
    [
        ({"math": "a", "coding": "b"}, {}, r"the bank has no \['instruction', 'multilingual'\]"),
        (None, {"dtype": "int8"}, "Expected `dtype` to be float32"),
        (None, {"batch_size": "auto"}, "Expected `batch_size` to be a number"),
    ],
)
def test_a_bank_that_does_not_fit_is_named(small, bank, settings, message):
    from ir3de.reasoning.routed_lm import RoutedLM

    with pytest.raises(ValueError, match=message):
        RoutedLM(ByHash(), small[1] if bank is None else bank, device="cpu", **settings)


class ByHash(Router):
    """Chooses by a hash of the text, and remembers what it was asked."""

    expert_names = DOMAINS
    tokenizer = None

    def __init__(self):
        super().__init__()
        self.asked = []

    def route(self, prompts):
        self.asked += list(prompts)
        expert_B = torch.tensor([zlib.crc32(text.encode()) % len(DOMAINS) for text in prompts])
        return self._decision(expert_B, torch.ones(len(prompts)))

    def forward(self, input_ids, attention_mask):
        raise NotImplementedError

    def settings(self):
        return {}

    def tensors(self):
        return {}

    @classmethod
    def from_artifact(cls, artifact):
        raise NotImplementedError
