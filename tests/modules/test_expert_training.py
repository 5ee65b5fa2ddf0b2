"""The training step, schedule and freezing, apart from the driver."""

import math

import pytest
import torch
from lightning import Trainer
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from ir3de.functional.flops import training_flops_per_token
from ir3de.modules.expert_batches import DrawOrder, EndlessBatches, num_targets
from ir3de.modules.expert_training import ExpertTraining, warmup_cosine
from tests.experts.fakes import blocks, ragged_blocks, tiny_llama


def _module(**changes) -> ExpertTraining:
    settings = {"model": tiny_llama(), "learning_rate": 1e-2, "warmup_steps": 2, "total_steps": 6, **changes}
    return ExpertTraining(**settings)


def _fit(module: ExpertTraining, steps: int = 6, **settings) -> Trainer:
    split = blocks(0)
    order = DrawOrder([len(split)], seed=0, balance="domain")
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=-1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **settings,
    )  # fmt: skip
    batches = EndlessBatches([split], order=order, batch_size=4, accumulate=1, place=lambda: (0, 0, 1))
    trainer.fit(module, DataLoader(batches, batch_size=None))
    return trainer


def _whole_step(batch):
    return {**batch, "step_targets": num_targets(batch)}


def _stub(module, *, accumulate: int = 1, world_size: int = 1):
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.1)]
    facts = {"optimizers": optimizers, "accumulate_grad_batches": accumulate, "world_size": world_size}
    return type("Stub", (), facts)()


def test_schedule_is_a_line_and_a_cosine():
    factors = [warmup_cosine(step, warmup_steps=4, total_steps=12) for step in range(12)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    for step in range(4, 12):
        assert factors[step] == pytest.approx(0.55 + 0.45 * math.cos(math.pi * (step - 3) / 8))
    assert factors[-1] == pytest.approx(0.1)
    assert warmup_cosine(0, warmup_steps=0, total_steps=1) == pytest.approx(0.1)


def test_the_optimizer_follows_the_schedule():
    rates = []

    class Recording(ExpertTraining):
        def training_step(self, batch, batch_idx):
            rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
            return super().training_step(batch, batch_idx)

    _fit(Recording(model=tiny_llama(), learning_rate=1e-2, warmup_steps=2, total_steps=6))
    assert rates == pytest.approx([1e-2 * warmup_cosine(step, warmup_steps=2, total_steps=6) for step in range(6)])


def test_loss_is_the_mean_over_real_targets():
    batch = ragged_blocks().__getitems__(list(range(6)))
    module = _module()
    module.log = lambda *args, **kwargs: None
    module._trainer = _stub(module)
    loss = module.training_step(_whole_step(batch), 0)
    losses = []
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        real = ids[mask][None]
        logits = module.model(real).logits[0, :-1].double()
        losses += cross_entropy(logits, real[0, 1:], reduction="none").tolist()
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_accumulated_gradients_are_those_of_the_whole_step():
    split = ragged_blocks()
    parts, whole = [[0, 1, 2, 3], [4, 5, 6, 7, 8, 9]], split.__getitems__(list(range(10)))
    gradients = []
    for batches in ([whole], [split.__getitems__(rows) for rows in parts]):
        module = _module()
        logged = {}
        module.log = lambda name, value, logged=logged, **kwargs: logged.update({name: value})
        module._trainer = _stub(module, accumulate=len(batches))
        for place, batch in enumerate(batches):
            loss = module.training_step({**batch, "step_targets": num_targets(whole)}, place)
            (loss / len(batches)).backward()  # as Lightning does
        gradients.append((module.model.lm_head.weight.grad, float(logged["train/loss"])))
    torch.testing.assert_close(gradients[0][0], gradients[1][0], rtol=1e-5, atol=1e-7)
    assert gradients[0][1] == pytest.approx(gradients[1][1], rel=1e-6)


@pytest.mark.parametrize("frozen", [[], ["self_attn"]])
def test_flops_are_those_of_the_matrix_products(frozen):
    model = _module(frozen=frozen).model
    attention, mlp, head = 4 * 16 * 16, 3 * 16 * 32, 16 * 64
    weights = 6 * (mlp + head) + (4 if frozen else 6) * attention
    assert training_flops_per_token(model, layers=1, width=16, length=8) == weights + 12 * 16 * 8


def test_gradient_checkpointing_changes_no_gradient():
    batch = _whole_step(ragged_blocks().__getitems__(list(range(6))))
    gradients = []
    for checkpointing in (False, True):
        module = _module(gradient_checkpointing=checkpointing)
        module.log = lambda *args, **kwargs: None
        module._trainer = _stub(module)
        module.training_step(batch, 0).backward()
        gradients.append(module.model.model.embed_tokens.weight.grad)
    torch.testing.assert_close(*gradients)


def test_a_batch_without_targets_has_loss_zero():
    batch = ragged_blocks().__getitems__([0])
    module = _module()
    module.log = lambda *args, **kwargs: None
    module._trainer = _stub(module)
    loss = module.training_step(_whole_step(batch), 0)
    loss.backward()
    assert loss.item() == 0.0


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_lowers_the_loss_and_logs(precision):
    module = _module(total_steps=40)
    before = [parameter.clone() for parameter in module.parameters()]
    trainer = _fit(module, steps=40, precision=precision, gradient_clip_val=1.0)
    assert trainer.callback_metrics["train/loss"] < 3.0  # a stretch of 16 words is log 16 = 2.8 nats
    assert trainer.callback_metrics["train/tokens_per_second"] > 0
    assert trainer.callback_metrics["train/learning_rate"] == pytest.approx(1e-3)
    assert all(not torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


def test_decay_is_for_matrices():
    module = _module(weight_decay=0.3)
    module._trainer = type("Stub", (), {"precision": "32-true"})()
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert all(parameter.ndim == 2 for parameter in groups[0]["params"])
    assert all(parameter.ndim == 1 for parameter in groups[1]["params"])
    assert groups[0]["betas"] == (0.9, 0.95)


def test_frozen_parts_stay_and_others_move():
    module = _module(frozen=["self_attn"])
    before = {name: parameter.clone() for name, parameter in module.model.named_parameters()}
    _fit(module)
    for name, parameter in module.model.named_parameters():
        assert torch.equal(parameter, before[name]) == ("self_attn" in name), name


def test_frozen_names_must_fit():
    with pytest.raises(ValueError, match=r"`frozen: attn_proj` fits no parameter.*q_proj"):
        _module(frozen=["attn_proj"])
    with pytest.raises(ValueError, match="leaves nothing to train"):
        _module(frozen=["model", "lm_head"])


def test_sequences_longer_than_the_context_are_refused():
    with pytest.raises(ValueError, match="at most 32 tokens.*but got 40"):
        _module().training_step(_whole_step(blocks(0, length=40).__getitems__([0])), 0)
