"""Losses under every expert, against transformers' own forward pass, one sequence at a time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from lightning import Trainer
from torch import Tensor
from torch.nn.functional import cross_entropy

from ir3de.experts.bank import ExpertBank
from ir3de.experts.loss_table import LossTable
from ir3de.modules.expert_losses import ExpertLosses
from ir3de.modules.loss_shards import read_embeddings, shards_of
from ir3de.modules.make_loss_table import make_loss_table
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
    start = ExpertLosses.on_predict_start

    def counted(module):
        calls.append(1)
        start(module)

    monkeypatch.setattr(ExpertLosses, "on_predict_start", counted)
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
    assert ExpertBank(experts).members == ("a", "b")


def test_logits_that_are_more_than_the_heads_are_used_as_they_are(tmp_path):
    model = tiny_llama()
    forward = model.forward

    def capped(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = 3 * torch.tanh(output.logits / 3)
        return output

    model.forward = capped
    split = ragged_blocks()
    bank = ExpertBank(save_bank(tmp_path))
    bank._loaded = dict.fromkeys(bank.names, model)
    table = make_loss_table(bank, split, make_trainer=make_trainer, cache_dir=tmp_path, average=False)
    torch.testing.assert_close(table.nll_NE[:, 0], _reference(model, split)[0], rtol=1e-5, atol=1e-5)


def test_batches_are_of_similar_length_the_longest_first():
    split = ragged_blocks(rows=20)
    shards = shards_of(split, batch_size=6, shard_tokens=60)
    batches = [rows for shard in shards for rows in shard]
    lengths = [len(split.rows[row]) for batch in batches for row in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert sorted(row for batch in batches for row in batch) == list(range(20))
    for shard in shards:
        assert len(shard) == 1 or sum(len(rows) * len(split.rows[rows[0]]) for rows in shard) <= 60


SCRIPT = """
import os, signal, sys
from pathlib import Path
from lightning import Trainer
from ir3de.experts.bank import ExpertBank
from ir3de.modules.loss_shards import LossShards
from ir3de.modules.make_loss_table import make_loss_table
from tests.experts.fakes import ragged_blocks

folder, devices, kill_after = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
write, written = LossShards.write, []

def write_and_die(self, part):
    write(self, part)
    written.append(part)
    if len(written) == kill_after:
        os.kill(os.getpid(), signal.SIGKILL)

LossShards.write = write_and_die

def make_trainer(**settings):
    strategy = "ddp" if devices > 1 else "auto"
    return Trainer(accelerator="cpu", devices=devices, strategy=strategy, enable_progress_bar=False, **settings)

bank = ExpertBank({name: folder / name for name in "abc"})
table = make_loss_table(
    bank, ragged_blocks(), make_trainer=make_trainer, cache_dir=folder / "cache", batch_size=2, shard_tokens=12
)
table.save(folder / f"rank{os.environ.get('LOCAL_RANK', 0)}.parquet")
(folder / f"written{os.environ.get('LOCAL_RANK', 0)}").write_text(str(len(written)))
"""


def _process(folder: Path, *, devices: int, kill_after: int = 0) -> subprocess.CompletedProcess:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, script, folder, str(devices), str(kill_after)]
    return subprocess.run(command, check=False, env=environment, timeout=120, capture_output=True, text=True)


def test_two_processes_make_the_table_of_one(tmp_path):
    bank, split = ExpertBank(save_bank(tmp_path)), ragged_blocks()
    one = make_loss_table(bank, split, make_trainer=make_trainer, cache_dir=tmp_path / "one", batch_size=2)
    run = _process(tmp_path, devices=2)
    assert run.returncode == 0, run.stderr
    for rank in (0, 1):
        two = LossTable.load(tmp_path / f"rank{rank}.parquet", key=one.key)
        torch.testing.assert_close(two.nll_NE, one.nll_NE, rtol=1e-6, atol=1e-6)
        assert torch.equal(two.tokens_N, one.tokens_N)
    assert all(int((tmp_path / f"written{rank}").read_text()) > 0 for rank in (0, 1)), "both computed shards"


def test_a_killed_table_goes_on_where_it_was_with_more_processes(tmp_path):
    bank, split = ExpertBank(save_bank(tmp_path)), ragged_blocks()
    one = make_loss_table(bank, split, make_trainer=make_trainer, cache_dir=tmp_path / "one", batch_size=2)
    assert _process(tmp_path, devices=1, kill_after=3).returncode == -signal.SIGKILL
    (parts,) = (tmp_path / "cache" / "losses" / "columns").glob("*.parts")
    assert len(list(parts.glob("*.parquet"))) == 3
    (parts / "damaged.parquet").write_bytes(b"PAR1")
    run = _process(tmp_path, devices=2)
    assert run.returncode == 0, run.stderr
    written = sum(int((tmp_path / f"written{rank}").read_text()) for rank in (0, 1))
    shards = len(shards_of(split, batch_size=2, shard_tokens=12))
    assert written == 4 * shards - 3, "what was written is not computed again"
    table = LossTable.load(tmp_path / "rank0.parquet", key=one.key)
    torch.testing.assert_close(table.nll_NE, one.nll_NE, rtol=1e-6, atol=1e-6)
    assert not parts.exists()


def test_a_loss_that_is_no_number_names_expert_and_sequence(tmp_path):
    experts, split = save_bank(tmp_path), ragged_blocks()
    broken = tiny_llama(1)
    with torch.no_grad():
        broken.model.embed_tokens.weight[int(split.rows[7][0])] = torch.nan
    broken.save_pretrained(tmp_path / "b")
    with pytest.raises(ValueError, match="loss of sequence [0-9]+ under expert `b` is not a number"):
        make_loss_table(ExpertBank(experts), split, make_trainer=make_trainer, cache_dir=tmp_path)


@pytest.mark.parametrize("layer", [0, -1])
def test_embeddings_come_from_the_same_pass(tmp_path, layer, forwards):
    bank, split = ExpertBank(save_bank(tmp_path, ["a", "b"])), ragged_blocks()
    settings = {"make_trainer": make_trainer, "cache_dir": tmp_path, "batch_size": 4, "average": False}
    plain = make_loss_table(bank, split, **settings)
    table = make_loss_table(bank, split, embeddings_layer=layer, **settings)
    assert len(forwards) == 4, "the column was known, but not its embeddings"
    make_loss_table(bank, split, embeddings_layer=layer, **settings)
    assert len(forwards) == 4
    torch.testing.assert_close(table.nll_NE, plain.nll_NE)
    for path in (tmp_path / "losses" / "embeddings").glob("*.parquet"):
        embedding_ND = read_embeddings(pq.read_table(path))
        expected = {}
        for name in bank.names:
            with torch.no_grad():
                states = [bank.load(name)(torch.from_numpy(row)[None], output_hidden_states=True) for row in split.rows]
            expected[name] = torch.stack([one.hidden_states[layer][0].mean(dim=0) for one in states])
        assert any(torch.allclose(embedding_ND, one, atol=1e-5) for one in expected.values())
    with pytest.raises(ValueError, match="`experts.losses.embeddings_layer` from -2 to 1"):
        make_loss_table(bank, split, embeddings_layer=7, **settings)
