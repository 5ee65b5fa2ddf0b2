"""The paper's schedule against torch's own, put together as the published code does, and through a training."""

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from ir3de.modules.router_module import RouterModule
from ir3de.modules.schedule import WarmupCosine
from ir3de.routers import MLPRouter, TokenMeans
from tests.callbacks.test_trained import MadeUpDomains, Seen, fit
from tests.helpers.models import save_model


def _rates(scheduler, optimizer, steps):
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("steps", [20, 47, 100])
def test_rates_are_those_of_the_published_code(steps):
    weight = torch.nn.Parameter(torch.zeros(1))
    mine, theirs = (torch.optim.SGD([weight], lr=0.1) for _ in range(2))
    warming = int(0.1 * steps)
    parts = [LinearLR(theirs, 0.1, 1.0, warming), CosineAnnealingLR(theirs, steps - warming, 0.0)]
    reference = _rates(SequentialLR(theirs, parts, [warming]), theirs, steps)
    assert _rates(WarmupCosine(mine, 0.1, steps), mine, steps) == pytest.approx(reference, abs=1e-9)


def test_the_trainer_says_how_many_steps_there_are(tmp_path, monkeypatch):
    rates = []

    class Rates(Seen):
        def on_train_batch_start(self, trainer, module, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    scheduler = lambda router: None if router.closed_form else WarmupCosine  # noqa: E731
    original = RouterModule.__init__
    monkeypatch.setattr(
        RouterModule,
        "__init__",
        lambda self, *, router, **settings: original(
            self, router=router, **settings | {"lr_scheduler": scheduler(router)}
        ),
    )
    data = MadeUpDomains()
    router = MLPRouter(features=TokenMeans(save_model(tmp_path / "llama")), hidden=[4])
    fit(tmp_path, router, epochs=5, lr=0.1, callbacks=[Rates()], data=data)
    steps = 5 * len(data.train_dataloader())
    assert len(rates) == steps
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(0.1)
    assert rates[-1] < 0.01


@pytest.mark.parametrize("warmup", [-0.1, 1.0])
def test_a_warm_up_is_a_part_of_the_training(warmup):
    with pytest.raises(ValueError, match=f"at least 0 and less than 1, but got {warmup}"):
        WarmupCosine(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), warmup)
