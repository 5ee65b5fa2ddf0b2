"""Vectors of a data set are made once, in parts, by any number of processes, and are the model's own."""

import pytest
import torch

from ir3de.data import embedded_rows
from ir3de.data.embedded_rows import EmbeddedRows
from ir3de.data.sample import SampledBlocks, sample_rows
from ir3de.pretrained.hidden_states import HiddenStates
from tests.helpers.domains import MadeUpDomains
from tests.helpers.models import save_model


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return HiddenStates(save_model(tmp_path_factory.mktemp("bert"), bert=True), pooling="mean")


@pytest.fixture(scope="module")
def data():
    return MadeUpDomains()


def embedded(data, features, folder, *, limit=None, rank=0, world_size=1):
    rows = data.router_rows("train")
    sampled = SampledBlocks(rows, sample_rows(rows.domains(), limit, seed=0))
    made = EmbeddedRows(sampled, features, cache=folder, title="train")
    made.compute(rank=rank, world_size=world_size, device=torch.device("cpu"), barrier=lambda: None)
    return made


@pytest.mark.parametrize("per_part, limit", [(256, None), (7, None), (7, 4), (1, 2)])
def test_vectors_are_the_models_in_the_order_of_the_rows(data, features, tmp_path, monkeypatch, per_part, limit):
    monkeypatch.setattr(embedded_rows, "ROWS_PER_PART", per_part)
    made = embedded(data, features, tmp_path, limit=limit)
    rows = data.router_rows("train")
    for place, row in enumerate(sample_rows(rows.domains(), limit, seed=0).tolist()):
        batch = rows[row]
        expected = features(batch["input_ids"], batch["attention_mask"])[0]
        torch.testing.assert_close(made.vectors_ND[place], expected, rtol=1e-4, atol=1e-5)
        assert made.domains()[place] == int(batch["domain"])


def test_what_was_computed_is_read_and_the_rest_computed(data, features, tmp_path, monkeypatch):
    monkeypatch.setattr(embedded_rows, "ROWS_PER_PART", 7)
    first = embedded(data, features, tmp_path)
    parts = sorted(tmp_path.glob("*/*.safetensors"))
    assert len(parts) == 5
    parts[2].unlink()
    calls = []
    monkeypatch.setattr(EmbeddedRows, "_embed", _counting(calls))
    again = embedded(data, features, tmp_path)
    assert calls == [14]
    assert torch.equal(again.vectors_ND, first.vectors_ND)
    other = embedded(data, HiddenStates(features.model, pooling="first"), tmp_path)  # all poolings come of one pass
    assert calls == [14]
    assert not torch.equal(other.vectors_ND, first.vectors_ND)


def _counting(calls):
    embed = EmbeddedRows._embed

    def counted(self, first, device):
        calls.append(first)
        return embed(self, first, device)

    return counted


def test_every_process_computes_its_share(data, features, tmp_path, monkeypatch):
    monkeypatch.setattr(embedded_rows, "ROWS_PER_PART", 7)
    calls = []
    monkeypatch.setattr(EmbeddedRows, "_embed", _counting(calls))
    nothing = {"mean": torch.zeros(7, 16), "seconds": 0, "windowed": 0}
    monkeypatch.setattr(EmbeddedRows, "_read", lambda self, first: nothing)
    embedded(data, features, tmp_path, rank=1, world_size=2)
    assert calls == [7, 21]


def test_rows_that_are_not_there_are_zeros(data, features, tmp_path):
    made = embedded(data, features, tmp_path)
    batch = made[[3, -1]]
    assert torch.equal(batch["features"][0], made.vectors_ND[3])
    assert not batch["features"][1].any()
    assert batch["index"].tolist() == [3, -1]
    assert batch["attention_mask"].shape == (2, 0)


def test_a_damaged_part_is_named(data, features, tmp_path):
    embedded(data, features, tmp_path)
    (part,) = tmp_path.glob("*/*.safetensors")
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(ValueError, match="holds no whole vectors .* Delete it"):
        embedded(data, features, tmp_path)


def test_a_smaller_sample_is_a_part_of_a_larger_one(data):
    domain_N = data.router_rows("train").domains()
    small, large = (set(sample_rows(domain_N, limit, seed=3).tolist()) for limit in (3, 8))
    assert small < large
    assert len(small) == 9


def test_long_sequences_are_counted(data, features, tmp_path):
    short = HiddenStates(save_model(tmp_path / "short", bert=True, positions=8), pooling="mean")
    made = embedded(data, short, tmp_path / "cache")
    longer = sum(len(row) > 6 for row in data.splits["train"][0])  # two positions are for the special tokens
    assert made.windowed == longer > 0
    assert made.seconds > 0
