"""The callbacks fit, choose, save and report inside Lightning's own loops."""

import csv
import hashlib

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks import FitRouter, ReportVerdict, SaveRouter, WritePredictions
from ir3de.experts.loss_table import LossTable
from ir3de.modules.router_module import RouterModule
from ir3de.routers import NaiveBayesRouter, RidgeRouter, load_router
from tests.helpers.domains import MadeUpDomains
from tests.helpers.text import embeddings, word_tokenizer


def _trainer(folder, callbacks=None, **settings):
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=settings.pop("max_epochs", 1),
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks or []),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[FitRouter(), SaveRouter()] if callbacks is None else callbacks,
        **settings,
    )


def _fit(folder, *, router=None, data=None, **settings):
    module = RouterModule(router=router or RidgeRouter(embeddings=embeddings()))
    trainer = _trainer(folder, **settings)
    trainer.fit(module, datamodule=data or MadeUpDomains())
    return module, trainer


@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_router_is_fitted_from_every_token_once(tmp_path, batch_size, num_workers):
    data = MadeUpDomains(batch_size=batch_size, num_workers=num_workers)
    module, _ = _fit(tmp_path, data=data)
    assert torch.equal(module.router.statistics.counts_EV, data.counts())
    assert module.router.expert_names == data.domain_names


def test_the_same_fit_twice_saves_the_same_bytes(tmp_path):
    digests = []
    for name, batch_size in (("a", 4), ("b", 30)):
        _fit(tmp_path / name, data=MadeUpDomains(batch_size=batch_size))
        files = sorted(path for path in (tmp_path / name / "router").iterdir() if path.is_file())
        digests.append([(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files])
    assert digests[0] == digests[1]
    assert len(digests[0]) == 7, "three tensors' files, the tokenizer's two, config and card"


def test_sanity_checking_before_the_fit_does_no_harm(tmp_path):
    _, trainer = _fit(tmp_path, num_sanity_val_steps=2)
    assert "validation/routing_accuracy_mean" in trainer.callback_metrics


def test_validation_measures_the_chosen_router(tmp_path):
    module, trainer = _fit(tmp_path)
    with (tmp_path / "validation_choices.csv").open() as file:
        rows = list(csv.DictReader(file))
    best = max(float(row["routing_accuracy_mean"]) for row in rows)
    assert float(trainer.callback_metrics["validation/routing_accuracy_mean"]) == pytest.approx(best, abs=1e-3)
    chosen = {key: "" if value is None else str(value) for key, value in module.router.chosen().items()}
    winners = [row for row in rows if float(row["routing_accuracy_mean"]) == best]
    assert {key: winners[0][key] for key in chosen} == chosen
    assert load_router(tmp_path / "router").chosen() == module.router.chosen()


def test_a_checkpoint_restores_router_and_callback(tmp_path):
    checkpoint = ModelCheckpoint(dirpath=tmp_path / "checkpoints", save_last=True)
    module, _ = _fit(tmp_path, callbacks=[FitRouter(), checkpoint])
    path = tmp_path / "checkpoints" / "last.ckpt"
    twin = RouterModule(router=RidgeRouter(embeddings=embeddings()))
    _trainer(tmp_path, callbacks=[]).validate(twin, datamodule=MadeUpDomains(), ckpt_path=path, verbose=False)
    assert torch.equal(twin.router.scores_VE, module.router.scores_VE)
    assert twin.router.chosen() == module.router.chosen()
    assert torch.equal(twin.router.statistics.counts_EV, MadeUpDomains().counts())


def test_a_closed_form_router_is_fitted_in_one_epoch_whatever_the_bound(tmp_path):
    module, trainer = _fit(tmp_path, max_epochs=30, min_epochs=2)
    assert trainer.current_epoch == 1
    assert torch.equal(module.router.statistics.counts_EV, MadeUpDomains().counts())


def test_a_missing_fit_callback_is_named(tmp_path):
    with pytest.raises(ValueError, match="List callbacks.FitRouter"):
        _fit(tmp_path, callbacks=[SaveRouter()], limit_val_batches=0)


def test_a_router_and_its_optimizer_must_agree():
    with pytest.raises(ValueError, match="takes no `model.optimizer`"):
        RouterModule(router=RidgeRouter(embeddings=embeddings()), optimizer=torch.optim.SGD)


def _losses(data):
    rows, domains = data.splits["test"]
    domain_N = torch.tensor(domains)
    generator = torch.Generator().manual_seed(0)
    tokens_N = torch.tensor([len(row) for row in rows])
    nll_NE = (3 + torch.rand(len(rows), 3, generator=generator, dtype=torch.float64)) * tokens_N[:, None]
    return LossTable(nll_NE, tokens_N, domain_N, data.domain_names, "key", nll_NE.mean(dim=1))


@pytest.mark.parametrize("router", [RidgeRouter(embeddings=embeddings()), NaiveBayesRouter(tokenizer=word_tokenizer())])
def test_the_verdict_has_every_selector_naive_bayes_and_the_references(tmp_path, router):
    data = MadeUpDomains()
    module, _ = _fit(tmp_path, router=router, data=data)
    module.table = _losses(data)
    trainer = _trainer(tmp_path, callbacks=[ReportVerdict()])
    trainer.test(module, datamodule=data, verbose=False)
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    routers = [row["router"] for row in rows if row["kind"] == "router"]
    assert routers[0] == router.display_name
    if isinstance(router, RidgeRouter):
        assert {name.split(" (")[0] for name in routers} == {"IR3DE", "IR3DE-avg", "IR3DE-all", "naive Bayes"}
        assert len(routers) == 4
    decisions = torch.cat([router.decide(b["input_ids"], b["attention_mask"]).expert_B for b in data.test_dataloader()])
    right = (decisions == module.table.domain_N).double().mean()
    assert float(rows[0]["routing_accuracy"]) == pytest.approx(100 * float(right))
    assert float(trainer.callback_metrics["test/routing_accuracy"]) == pytest.approx(100 * float(right), rel=1e-5)
    card = (tmp_path / "router" / "README.md").read_text()
    assert "oracle" in card
    assert (tmp_path / "confusion_matrix.png").is_file()


def test_a_verdict_on_part_of_the_sequences_is_refused(tmp_path):
    data = MadeUpDomains()
    module, _ = _fit(tmp_path, data=data)
    module.table = _losses(data)
    with pytest.raises(ValueError, match="were not routed"):
        _trainer(tmp_path, callbacks=[ReportVerdict()], limit_test_batches=1).test(module, datamodule=data)


def test_predictions_are_written(tmp_path):
    data = MadeUpDomains()
    module, _ = _fit(tmp_path, data=data)
    _trainer(tmp_path, callbacks=[WritePredictions()]).predict(module, datamodule=data, return_predictions=False)
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(24))
    first = next(iter(data.test_dataloader()))
    decision = module.router.decide(first["input_ids"], first["attention_mask"])
    assert [row["expert"] for row in rows[:4]] == decision.names
    assert [float(row["score"]) for row in rows[:4]] == pytest.approx(decision.score_B.tolist(), rel=1e-5)
