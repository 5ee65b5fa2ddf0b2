"""Losses under every expert, against transformers' own forward pass, one sequence at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from torch import Tensor
from torch.nn.functional import cross_entropy

from ir3de.experts.bank import ExpertBank
from ir3de.experts.loss_table import LossTable
from ir3de.modules import expert_losses
from ir3de.modules.expert_losses import make_loss_table, rows_by_length, sequence_losses
from tests.experts.fakes import FakeBlocks, ragged_blocks, save_bank, tiny_llama


def make_trainer(**settings) -> Trainer:
    return Trainer(accelerator="cpu", devices=1, enable_progress_bar=False, enable_model_summary=False, **settings)


def _reference(model: torch.nn.Module, split: FakeBlocks) -> tuple[Tensor, Tensor]:
    nll, tokens = [], []
    for row in split.rows:
        ids = torch.from_numpy(row)[None]
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].double()
        nll.append(cross_entropy(logits, ids[0, 1:], reduction="sum"))
        tokens.append(len(row) - 1)
    return torch.stack(nll), torch.tensor(tokens)


@pytest.fixture
def forwards(monkeypatch) -> list[int]:
    """How many models were run."""
    calls: list[int] = []

    def counted(*args, **kwargs):
        calls.append(1)
        return sequence_losses(*args, **kwargs)

    monkeypatch.setattr(expert_losses, "sequence_losses", counted)
    return calls


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_every_loss_is_the_models_own(tmp_path, batch_size):
    split, bank = ragged_blocks(), ExpertBank(save_bank(tmp_path))
    table = make_loss_table(bank, split, make_trainer=make_trainer, cache_dir=tmp_path, batch_size=batch_size)
    for column, name in enumerate(bank.names):
        nll, tokens = _reference(bank.load(name), split)
        torch.testing.assert_close(table.nll_NE[:, column], nll, rtol=1e-5, atol=1e-5)
        assert torch.equal(table.tokens_N, tokens)
    average, _ = _reference(bank.average(), split)
    torch.testing.assert_close(table.average_nll_N, average, rtol=1e-5, atol=1e-5)
    assert table.domain_N.tolist() == split.domains
    assert table.expert_names == bank.names
    assert table.column_names == ("a", "b", "c", "weight_average")


def test_a_known_table_is_read(tmp_path, forwards):
    split, bank = ragged_blocks(), ExpertBank(save_bank(tmp_path))
    first = make_loss_table(bank, split, make_trainer=make_trainer, cache_dir=tmp_path)
    assert len(forwards) == 4
    second = make_loss_table(bank, split, make_trainer=make_trainer, cache_dir=tmp_path)
    assert len(forwards) == 4
    assert torch.equal(first.nll_NE, second.nll_NE)
    assert LossTable.load(tmp_path / "losses" / f"{first.key}.parquet").key == first.key


def test_a_new_expert_costs_its_own_column(tmp_path, forwards):
    experts, split = save_bank(tmp_path), ragged_blocks()
    two = ExpertBank({name: experts[name] for name in "ab"})
    make_loss_table(two, split, make_trainer=make_trainer, cache_dir=tmp_path, average=False)
    three = make_loss_table(
        ExpertBank({name: experts[name] for name in "cba"}),
        split, make_trainer=make_trainer, cache_dir=tmp_path, average=False,
    )  # fmt: skip
    assert len(forwards) == 3
    assert three.expert_names == ("c", "b", "a")
    nll, _ = _reference(tiny_llama(0), split)
    torch.testing.assert_close(three.nll_NE[:, 2], nll, rtol=1e-5, atol=1e-5)


def test_new_weights_or_data_are_never_read_from_the_old_table(tmp_path, forwards):
    experts, split = save_bank(tmp_path), ragged_blocks()
    make_loss_table(ExpertBank(experts), split, make_trainer=make_trainer, cache_dir=tmp_path)
    tiny_llama(9).save_pretrained(tmp_path / "b")
    table = make_loss_table(ExpertBank(experts), split, make_trainer=make_trainer, cache_dir=tmp_path)
    nll, _ = _reference(tiny_llama(9), split)
    torch.testing.assert_close(table.nll_NE[:, 1], nll, rtol=1e-5, atol=1e-5)
    assert len(forwards) == 6  # four, then the new expert and the new average
    other = ragged_blocks(seed=5)
    table = make_loss_table(ExpertBank(experts), other, make_trainer=make_trainer, cache_dir=tmp_path)
    torch.testing.assert_close(table.nll_NE[:, 1], _reference(tiny_llama(9), other)[0], rtol=1e-5, atol=1e-5)


def test_a_damaged_cache_says_so(tmp_path):
    bank, split = ExpertBank(save_bank(tmp_path)), ragged_blocks()
    key = make_loss_table(bank, split, make_trainer=make_trainer, cache_dir=tmp_path).key
    (tmp_path / "losses" / f"{key}.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="Delete it; it will be computed again"):
        make_loss_table(bank, split, make_trainer=make_trainer, cache_dir=tmp_path)


def test_experts_that_differ_have_no_average(tmp_path):
    experts = save_bank(tmp_path, ["a", "b"])
    tiny_llama(1, hidden=32).save_pretrained(tmp_path / "b")
    table = make_loss_table(ExpertBank(experts), ragged_blocks(), make_trainer=make_trainer, cache_dir=tmp_path)
    assert table.average_nll_N is None
    with pytest.raises(ValueError, match="one architecture"):
        make_loss_table(
            ExpertBank(experts), ragged_blocks(), make_trainer=make_trainer, cache_dir=tmp_path, average=True
        )


def test_a_head_that_is_more_than_a_matrix_is_used_as_it_is():
    model = tiny_llama()
    model.lm_head.register_forward_hook(lambda module, args, output: 3 * torch.tanh(output / 3))
    split = ragged_blocks()
    nll, _ = sequence_losses(model, split, trainer=make_trainer(logger=False), batch_size=4)
    torch.testing.assert_close(nll, _reference(model, split)[0], rtol=1e-5, atol=1e-5)


def test_batches_are_of_similar_length_the_longest_first():
    split = ragged_blocks(rows=20)
    batches = rows_by_length(split, num_rows=20, batch_size=6)
    lengths = [len(split.rows[row]) for batch in batches for row in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert sorted(row for batch in batches for row in batch) == list(range(20))


def test_two_processes_make_the_table_of_one(tmp_path):
    bank, split = ExpertBank(save_bank(tmp_path)), ragged_blocks()
    one = make_loss_table(bank, split, make_trainer=make_trainer, cache_dir=tmp_path / "one", batch_size=2)
    script = tmp_path / "two.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from lightning import Trainer\n"
        "from ir3de.experts.bank import ExpertBank\n"
        "from ir3de.modules.expert_losses import make_loss_table\n"
        "from tests.experts.fakes import ragged_blocks\n"
        "folder = Path(sys.argv[1])\n"
        "def make_trainer(**settings):\n"
        "    return Trainer(accelerator='cpu', devices=2, strategy='ddp', enable_progress_bar=False, **settings)\n"
        "bank = ExpertBank({name: folder / name for name in 'abc'})\n"
        "table = make_loss_table(bank, ragged_blocks(), make_trainer=make_trainer, cache_dir=folder / 'two',"
        " batch_size=2)\n"
        "import os; table.save(folder / f'rank{os.environ.get(\"LOCAL_RANK\", 0)}.parquet')\n"
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, script, tmp_path], check=True, env=environment, timeout=120, capture_output=True)
    for rank in (0, 1):
        two = LossTable.load(tmp_path / f"rank{rank}.parquet", key=one.key)
        torch.testing.assert_close(two.nll_NE, one.nll_NE, rtol=1e-6, atol=1e-6)
        assert torch.equal(two.tokens_N, one.tokens_N)
