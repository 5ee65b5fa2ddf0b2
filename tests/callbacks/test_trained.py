"""Gradient-trained routers through Lightning: on vectors or on ids, the best epoch kept, resumed, on two processes."""

import pytest
import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from callbacks import FitRouter, SaveRouter
from ir3de.data.faults import Faults
from ir3de.modules.router_module import RouterModule
from ir3de.routers import HiddenStates, KNNRouter, MLPRouter, MoDEMRouter, RidgeRouter, TokenMeans, load_router
from tests.helpers.domains import MadeUpDomains
from tests.helpers.models import save_model
from tests.helpers.text import embeddings

METRIC = "validation/routing_accuracy_mean"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("llama"))  # its tokenizer is that of MadeUpDomains


class Seen(Callback):
    """Keeps each epoch's validation accuracy and weights."""

    def __init__(self):
        self.accuracy, self.weights = [], []

    def on_train_epoch_end(self, trainer, module):
        self.accuracy.append(float(trainer.callback_metrics[METRIC]))
        self.weights.append({name: value.clone() for name, value in module.router.state_dict().items()})


def fit(folder, router, *, epochs=6, lr=0.05, checkpoint=None, ckpt_path=None, callbacks=(), data=None,
        gradient_clip_val=None, **settings):  # fmt: skip
    seed_everything(1, verbose=False)
    module = RouterModule(
        router=router,
        optimizer=None if router.closed_form else lambda p: torch.optim.Adam(p, lr=lr),
        lr_scheduler=None if router.closed_form else lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 50),
        gradient_clip_val=gradient_clip_val,
    )
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", max_epochs=epochs, logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[FitRouter(), SaveRouter(), *callbacks,
                   checkpoint or ModelCheckpoint(folder / "checkpoints", monitor=METRIC, mode="max", save_last=True)],
        **settings,
    )  # fmt: skip
    data = data or MadeUpDomains()
    data.read_as(router)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return module, trainer


@pytest.mark.parametrize("kind", ["mlp", "mlp_tokens", "modem", "fine_tuned"])
def test_the_best_epoch_is_what_is_saved(model, tmp_path, kind):
    hidden, last = HiddenStates(model), HiddenStates(model, pooling="last")
    router = {
        "mlp": lambda: MLPRouter(features=hidden, dropout=0.0),
        "mlp_tokens": lambda: MLPRouter(features=TokenMeans(model), training_sequences=8),
        "modem": lambda: MoDEMRouter(features=last),
        "fine_tuned": lambda: MoDEMRouter(features=last, train_encoder=True),
    }[kind]()
    seen = Seen()
    fit(tmp_path, router, callbacks=[seen], lr=0.5 if kind != "fine_tuned" else 0.01)
    best = seen.accuracy.index(max(seen.accuracy))
    saved = load_router(tmp_path / "router")
    for name, value in saved.state_dict().items():
        assert torch.equal(value, seen.weights[best][name]), name
    assert not all(torch.equal(seen.weights[0][name], seen.weights[-1][name]) for name in seen.weights[0])


def test_published_faults_of_modem(model, tmp_path):
    """The last epoch is saved, not the best; the pooler is the one that was drawn."""
    data = MadeUpDomains()
    data.read_with(Faults(keep_last_epoch=True, freeze_pooler=True))
    router, seen = MoDEMRouter(features=HiddenStates(model, pooling="last")), Seen()
    fit(tmp_path, router, callbacks=[seen], lr=0.5, data=data)
    assert seen.accuracy[-1] < max(seen.accuracy), "otherwise the best epoch is the last one"
    saved = load_router(tmp_path / "router").state_dict()
    for name, value in saved.items():
        assert torch.equal(value, seen.weights[-1][name]), name
        drawn = name.startswith("head.0.")
        assert torch.equal(seen.weights[0][name], value) == drawn, name
    assert any(name.startswith("head.0.") for name in saved)


def test_the_gradient_is_clipped_by_the_routers_own_bound(model, tmp_path):
    norms = {}

    class Norms(Callback):
        def on_train_batch_end(self, trainer, module, *_):  # as the optimizer has used them
            gradients = torch.cat([p.grad.flatten() for p in module.router.parameters() if p.requires_grad])
            norms.setdefault(module.gradient_clip_val, []).append(float(gradients.norm()))

    for bound in (None, 0.01):
        router = MLPRouter(features=TokenMeans(model))
        fit(tmp_path / str(bound), router, callbacks=[Norms()], epochs=1, gradient_clip_val=bound)
    assert max(norms[None]) > 0.02
    assert max(norms[0.01]) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"gradient_clip_val": 0.0}, "above 0, or null, but got 0.0"),
        ({"gradient_clip_val": 1.0}, "no gradient to clip"),
    ],
)
def test_a_bound_that_bounds_nothing_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RouterModule(router=RidgeRouter(embeddings=embeddings()), **settings)


def test_a_fine_tuned_encoder_is_trained_and_a_frozen_one_is_not(model, tmp_path):
    states = {}
    for trained in (False, True):
        router = MoDEMRouter(features=HiddenStates(model, pooling="last"), train_encoder=trained)
        before = {name: value.clone() for name, value in router.features.encoder.state_dict().items()}
        fit(tmp_path / str(trained), router, epochs=1, lr=0.01)
        after = router.features.encoder.state_dict()
        states[trained] = all(torch.equal(before[name], after[name]) for name in before)
    assert states == {False: True, True: False}


def test_a_training_that_was_stopped_goes_on_where_it_was(model, tmp_path):
    router = lambda: MLPRouter(features=HiddenStates(model), hidden=[8], dropout=0.0)  # noqa: E731
    fit(tmp_path / "part", router(), checkpoint=_every_epoch(tmp_path / "p"), epochs=2)
    last = Seen()
    reference = Seen()
    fit(tmp_path / "ref", router(), callbacks=[reference], epochs=4)
    fit(tmp_path / "rest", router(), checkpoint=_every_epoch(tmp_path / "r"), epochs=4, callbacks=[last],
        ckpt_path=tmp_path / "p" / "last.ckpt")  # fmt: skip
    assert len(last.weights) < len(reference.weights), "it did not begin anew"
    for name, value in reference.weights[-1].items():
        torch.testing.assert_close(last.weights[-1][name], value)


def _every_epoch(folder):
    return ModelCheckpoint(folder, monitor=METRIC, mode="max", save_last=True)


def test_a_fit_without_a_monitored_checkpoint_is_refused_before_it_begins(model, tmp_path):
    with pytest.raises(ValueError, match="no ModelCheckpoint with `monitor`"):
        fit(tmp_path, MLPRouter(features=HiddenStates(model)), checkpoint=ModelCheckpoint(tmp_path, save_last=True))


def test_domains_weigh_the_same_in_the_loss(model):
    router = MLPRouter(features=HiddenStates(model), balance="domain")
    router.begin(("a", "b"), torch.tensor([30, 10]))
    assert router.class_weights_E.tolist() == pytest.approx([40 / 60, 40 / 20])
    plain = MLPRouter(features=HiddenStates(model), balance="none")
    plain.begin(("a", "b"), torch.tensor([30, 10]))
    assert plain.class_weights_E.tolist() == [1, 1]


def test_an_index_is_built_by_the_callback(model, tmp_path):
    router = KNNRouter(features=HiddenStates(model), training_sequences=5)
    module, trainer = fit(tmp_path, router)
    assert len(router.bank_ND) == 15
    assert router.domain_N.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert len(router.scored) == 4, "k of 1, 3, 5 and 10 fit into a bank of 15"
    chosen = max(one.routing_accuracy_mean for one in router.scored)
    assert float(trainer.callback_metrics[METRIC]) == pytest.approx(chosen, abs=1e-3)
    twin = load_router(tmp_path / "router")
    prompts = [[3, 4], [5, 6, 7]]
    assert twin.route(prompts).names == module.router.route(prompts).names


def test_a_scheduler_without_an_optimizer_is_refused():
    with pytest.raises(ValueError, match="`model.lr_scheduler` needs `model.optimizer`"):
        RouterModule(router=RidgeRouter(embeddings=embeddings()), lr_scheduler=lambda o: o)


def test_two_processes_train_as_one_does(model, tmp_path):
    """Gradients are of the sum over all rows of a step, whatever each process has of them."""
    import subprocess
    import sys

    script = (
        "import sys, torch; from pathlib import Path; from tests.callbacks.test_trained import *;"
        "torch.set_num_threads(1); from ir3de.strategy import register_strategy; register_strategy();"
        "n, batch, model, out, data = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:];"
        "fit(Path(out), MLPRouter(features=HiddenStates(model), hidden=[8], dropout=0.0), epochs=2, devices=n,"
        " strategy='ddp' if n > 1 else 'auto', data=MadeUpDomains(folder=data, batch_size=batch, shuffle=False))"
    )
    weights = []
    for n in (1, 2):
        out = tmp_path / str(n)
        arguments = [str(n), str(10 // n), model, str(out), str(tmp_path)]
        path = tmp_path / "run.py"
        path.write_text(script)
        done = subprocess.run([sys.executable, str(path), *arguments], capture_output=True, text=True, timeout=240,
                              env=_environment(), check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        weights.append(torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5)


def _environment():
    import os
    from pathlib import Path

    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
