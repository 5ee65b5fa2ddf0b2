"""``reasoning.yaml`` from scores to comparison, only paths, sizes and tasks overridden, under both protocols.

Without bubblewrap the tasks that run no code go all the way.
"""

import json
import shutil
import zlib
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import callbacks  # noqa: F401 - as main.py does
from ir3de.cli import main
from ir3de.data.bpe import train_bpe
from ir3de.routers import Router, load_router
from tests.helpers.benchmarks import DOMAINS, HAS_BWRAP, METRICS, SAYS, TASKS, overrides
from tests.helpers.settings import save_bert, shipped_router

QUICK = ["--trainer.accelerator", "cpu", "--trainer.max_epochs", "2", "--wandb.mode", "disabled"]
ANSWERED = tuple(name for name in DOMAINS if name != "coding" or HAS_BWRAP)
CODE = ["--allow_code_execution", "true"] if HAS_BWRAP else []
TABLES = {"corrected": Path("reasoning/scores.parquet"), "published": Path("reasoning/scores_published.parquet")}


@pytest.fixture(scope="module")
def scored(small, tmp_path_factory):
    """A working directory in which ``scores`` has run: its folder with tasks and experts, options, what was said."""
    folder, bank, _ = small
    given = overrides(folder, bank, ANSWERED)
    options = ["--config", "reasoning.yaml", *given, "--data.cache_dir", str(folder / "cache")]
    said = StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("run"))
        with redirect_stderr(said):
            main(["scores", *options, *CODE])
        yield folder, options, " ".join(said.getvalue().split())


@pytest.fixture(scope="module")
def options(scored):
    """For each protocol the options of every command; by both of them ``scores`` has run."""
    other = {name: name for name in ANSWERED}  # what MoDEM is trained on: here the prompts themselves
    more = ["--faults.trained_on", json.dumps(other), "--reasoning.max_new_tokens", "12"]
    tested = json.dumps([name for name in ("coding", "instruction") if name in ANSWERED])
    published = [*scored[1], "--protocol", "published", *more, "--faults.fit_on_test", tested]
    main(["scores", *published, *CODE])  # sampled answers to bare questions are other scores
    return {"corrected": [*scored[1], *QUICK], "published": [*published, *QUICK]}


def _reported(protocol):
    """Return each domain's score under each expert, as the mean of what lm-eval reports of its tasks."""
    reported = json.loads(TABLES[protocol].with_suffix(".json").read_text())["reported"]
    return {
        domain: {member: np.mean(list(tasks.values())) for member, tasks in by_member.items()}
        for domain, by_member in reported.items()
    }


def test_every_question_is_a_row_or_part_of_one(scored):
    table = pq.read_table(TABLES["corrected"]).to_pandas()
    questions = {"coding": 9, "instruction": 10, "math": 15, "multilingual": 21}
    assert table.groupby("domain")["questions"].sum().to_dict() == {name: questions[name] for name in ANSWERED}
    for domain in ANSWERED:
        (rows,) = [one for name, one in table.groupby("domain") if name == domain]
        texts = [json.loads(line)["text"] for line in Path(f"reasoning/{domain}/test.jsonl").read_text().splitlines()]
        assert texts == rows["prompt"].tolist()
        assert rows["weight"].sum() == pytest.approx(rows["questions"].sum())


def test_what_is_not_fitted_on_is_said(scored):
    said = scored[2]
    assert "left out of what instruction is fitted on: 1 copies, 1 empty texts, 1 test questions" in said
    assert "left out of what math" not in said


@pytest.mark.parametrize(
    "domain, answered", [("math", "math"), ("[math]", "math"), ("[multilingual, math]", "math, multilingual")]
)
def test_some_domains_are_answered_and_no_table_is_written(scored, capsys, domain, answered):
    asked = ["--domain", domain, "--experts.losses.table", "none.parquet", "--reasoning.limit", "3"]
    main(["scores", *scored[1], *asked, "--experts.losses.residence", "all"])  # no leave to run code is needed
    said = " ".join(capsys.readouterr().err.split())
    assert f"answered: {answered}." in said
    assert "A smaller run: 3 questions" in said
    assert "one expert in memory at a time, whatever `experts.losses.residence` says (all)" in said
    assert not Path("none.parquet").exists()


@pytest.mark.parametrize("domain", ["law", "[law, math]"])
def test_domains_that_are_not_there_are_named(scored, capsys, domain):
    with pytest.raises(SystemExit):
        main(["scores", *scored[1], "--domain", domain])
    assert "Expected `--domain` to name domains of" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("protocol", ["corrected", "published"])
def test_fit_and_test(options, protocol):
    for command in ("fit", "test"):
        main([command, *options[protocol], "--name", protocol])
    run = Path("runs") / protocol
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["reasoning"]["bare_prompts"] == (protocol == "published")
    fitted_on_test = [name for name in ("coding", "instruction") if name in ANSWERED and protocol == "published"]
    assert config["faults"]["fit_on_test"] == fitted_on_test
    results = json.loads((run / "results.json").read_text())
    assert results["measure"] == "score"
    sequences = {"coding": 9, "instruction": 10, "math": 15, "multilingual": 20}
    assert results["sequences"] == {name: sequences[name] for name in ANSWERED}
    reported = _reported(protocol)
    for expert in ANSWERED:
        for domain in ANSWERED:
            mean = reported[domain][expert]
            assert results["expert_quality"][expert][domain] == pytest.approx(mean, abs=1e-12)
    (average,) = [one for one in results["references"] if one["router"] == "average of the weights"]
    assert average["quality"]["math"] == pytest.approx(reported["math"]["weight_average"])


def test_compare_reads_the_scores_of_its_protocol(options):
    assert _reported("corrected")["math"]["multilingual"] < _reported("published")["math"]["multilingual"]
    here = Path.cwd()
    save_bert(here / "bert", train_bpe(iter(["how many coins", "def f(x):", "write about"]), vocab_size=300))
    for protocol, folder, router in (
        ("published", "comparison_published", "modem_large"), ("corrected", "comparison", "knn"),
    ):  # fmt: skip
        shipped_router(here, router, here / "bert")
        routers = ["--routers", json.dumps(["paper/ir3de", f"paper/{router}", "oracle", "loss_oracle"])]
        main(["compare", *options[protocol], *routers, "--seeds", "1"])
        found = json.loads((here / "runs/reasoning" / folder / "comparison.json").read_text())
        assert found["failures"] == {}
        rows = {one["name"]: one["row"] for one in found["standings"]}
        assert rows["oracle"]["normalized_performance"] == pytest.approx(100, abs=1e-9)
        assert rows["loss_oracle"]["regret"] == pytest.approx(0, abs=1e-12)
        for row, member in (("oracle", None), ("weight_average", "weight_average")):
            reported = {domain: of[member or domain] for domain, of in _reported(protocol).items()}
            assert rows[row]["quality"] == pytest.approx(reported, abs=1e-12)
    assert "Published and ours (reasoning)" in (here / "runs/reasoning/comparison/report.md").read_text()


def _expected(route):
    """Return every task's score by looking a router's decisions up in the table."""
    table = pq.read_table(TABLES["corrected"]).to_pandas()
    names = route(table["prompt"].tolist())
    table["routed"] = [row[f"score:{name}"] for name, (_, row) in zip(names, table.iterrows(), strict=True)]
    sums = table.assign(value=table["routed"] * table["weight"]).groupby("task")[["value", "weight"]].sum()
    return (sums["value"] / sums["weight"]).to_dict(), set(names)


@pytest.mark.parametrize("cached", [pytest.param(False, id="asked again"), pytest.param(True, id="answers of scores")])
def test_a_routed_bank_has_the_scores_of_the_table(small, scored, monkeypatch, cached):
    """Experts that answer what is routed to them give what the look-up gives, on all kinds of tasks."""
    import lm_eval.evaluator
    from lm_eval.tasks import TaskManager

    from ir3de.reasoning.code_execution import code_execution
    from ir3de.reasoning.routed_lm import RoutedLM

    folder, bank = small[:2]
    router = ByHash(ANSWERED)
    lm = RoutedLM(router, bank, device="cpu", batch_size=3, cache=str(folder / "cache") if cached else None)
    if cached:
        monkeypatch.setattr("ir3de.reasoning.expert_lm.HFLM.__init__", None)  # nobody is asked
    with code_execution(allowed=HAS_BWRAP):
        tasks = TaskManager(include_path=str(folder / "tasks"), include_defaults=False).load(
            [task for domain in ANSWERED for task in TASKS[domain]]
        )
        for task in tasks["tasks"].values():
            task.set_fewshot_seed(1234)
        found = lm_eval.evaluator.evaluate(lm, tasks, bootstrap_iters=0, confirm_run_unsafe_code=HAS_BWRAP)["results"]
    expected, names = _expected(lambda prompts: router.route(prompts).names)
    assert names == set(ANSWERED)  # right and wrong
    for domain in ANSWERED:
        for task in TASKS[domain]:
            assert found[task][METRICS[domain]] == pytest.approx(expected[task], abs=1e-12), task
    assert 0 < expected["mini_gsm8k"] < 0.6
    assert sum(lm.routed["mini_arc_bb"].values()) == 13


def test_lm_evals_command_line_knows_the_routed_bank(scored, capfd, monkeypatch):
    import lm_eval.tasks

    folder, options, _ = scored
    main(["fit", *options, *QUICK, "--name", "routed", "--model", "routers/ir3de_mean.yaml",
          "--model.router.embeddings", str(folder / "experts/coding")])  # fmt: skip
    router = Path("runs/routed/router")
    tasks = [task for domain in ("math", "coding") if domain in ANSWERED for task in TASKS[domain]]
    only = partial(lm_eval.tasks.TaskManager, include_defaults=False)  # 13,000 files take seconds to read
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", only)
    main(["lm-eval", "run", "--model", "ir3de", "--model_args", f"router={router},bank={folder}/experts",
          "--tasks", *tasks, "--include_path", str(folder / "tasks"), "--device", "cpu", "--output_path", "out.json",
          "--batch_size", "4", *(["--confirm_run_unsafe_code"] if HAS_BWRAP else [])])  # fmt: skip
    (out,) = Path().glob("out*.json")
    found = json.loads(out.read_text())
    expected, _ = _expected(lambda prompts: load_router(router).route(prompts).names)
    metric = {"mini_gsm8k": METRICS["math"], "mini_humaneval": METRICS["coding"]}
    for task in tasks:
        assert found["results"][task][metric[task]] == pytest.approx(expected[task], abs=1e-12)
    assert sum(found["config"]["routed"]["mini_gsm8k"].values()) == 15
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


@pytest.mark.parametrize(
    "config, folder",
    [
        ("data: {tokenizer: train}", "runs/unnamed/experts"),
        ("experts:\nname:\ndata:", "runs/unnamed/experts"),
        ("name: mine\nruns: elsewhere", "elsewhere/mine/experts"),
        ("name: mine\nexperts: {bank: here/given}", "here/given"),
    ],
)
def test_a_config_without_a_bank_means_the_experts_of_its_run(small, tmp_path, monkeypatch, config, folder):
    from ir3de.reasoning.routed_lm import RoutedLM

    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(config)
    with pytest.raises(FileNotFoundError, match=f"Expert `coding`: Expected `{folder}/coding` .* train-experts"):
        RoutedLM(ByHash(), "mine.yaml", device="cpu")
    Path(folder).parent.mkdir(parents=True, exist_ok=True)
    Path(folder).symlink_to(small[0] / "experts")
    assert set(RoutedLM(ByHash(), "mine.yaml", device="cpu").get_model_info()["experts"]) == set(DOMAINS)


class ByHash(Router):
    """Chooses by a hash of the text, and remembers what it was asked."""

    tokenizer = None

    def __init__(self, names=DOMAINS):
        super().__init__()
        self.expert_names = names
        self.asked = []

    def route(self, prompts):
        self.asked += list(prompts)
        expert_B = torch.tensor([zlib.crc32(text.encode()) % len(self.expert_names) for text in prompts])
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
