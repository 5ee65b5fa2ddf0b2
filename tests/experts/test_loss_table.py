"""The loss table as a value and as a file."""

import math

import pytest
import torch

from ir3de.experts.loss_table import LossTable, loss_table_key


def _table(*, average: bool = True) -> LossTable:
    generator = torch.Generator().manual_seed(0)
    nll = torch.rand(6, 3, dtype=torch.float64, generator=generator) * 20
    tokens, domain = torch.tensor([3, 4, 1, 5, 2, 0]), torch.tensor([0, 1, 2, 0, 1, 2])
    return LossTable(nll, tokens, domain, ("a", "b", "ü"), "key", nll[:, 0] + 1 if average else None)


@pytest.mark.parametrize("average", [True, False])
def test_a_saved_table_is_the_same_table(tmp_path, average):
    table = _table(average=average)
    table.save(tmp_path / "t.parquet")
    loaded = LossTable.load(tmp_path / "t.parquet", key="key")
    assert loaded.expert_names == table.expert_names
    assert loaded.key == "key"
    for name in ("nll_NE", "tokens_N", "domain_N"):
        assert torch.equal(getattr(loaded, name), getattr(table, name))
        assert getattr(loaded, name).dtype == getattr(table, name).dtype
    if average:
        assert torch.equal(loaded.average_nll_N, table.average_nll_N)
    else:
        assert loaded.average_nll_N is None


def test_perplexity_is_exp_of_nll_over_tokens():
    table = _table()
    names = ("law", "maths", "code", "empty")
    columns = {"a": table.nll_NE[:, 0], "ü": table.nll_NE[:, 2], "weight_average": table.average_nll_N}
    found = table.perplexity(names)
    for member, nll_N in columns.items():
        for domain, name in enumerate(names[:3]):
            mine = table.domain_N == domain
            expected = math.exp(float(nll_N[mine].sum()) / int(table.tokens_N[mine].sum()))
            assert found[member][name] == pytest.approx(expected)
        assert math.isnan(found[member]["empty"])


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "empty"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "t.parquet"
    _table().save(path)
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[content.index(_table().nll_NE[:, 1].contiguous().numpy().tobytes()[:8])] ^= 1
    elif damage == "foreign":
        content = bytearray(b"no parquet at all")
    else:
        content = bytearray()
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"t.parquet` is no readable loss table.*Delete it"):
        LossTable.load(path)


def test_a_stale_table_is_refused(tmp_path):
    _table().save(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="other data or experts"):
        LossTable.load(tmp_path / "t.parquet", key="another")
    with pytest.raises(FileNotFoundError, match="no such file"):
        LossTable.load(tmp_path / "none.parquet")


def test_the_key_covers_all_that_decides_a_table():
    base = {"data_fingerprint": "d", "expert_fingerprints": {"a": "1", "b": "2"}, "precision": "float32"}
    changes = [
        {},
        {"data_fingerprint": "e"},
        {"expert_fingerprints": {"a": "1", "b": "3"}},
        {"expert_fingerprints": {"b": "2", "a": "1"}},
        {"precision": "bfloat16"},
        {"average": True},
    ]
    assert len({loss_table_key(**{**base, **change}) for change in changes}) == len(changes)
    assert loss_table_key(**base) == loss_table_key(**base)
