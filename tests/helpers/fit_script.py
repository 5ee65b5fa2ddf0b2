"""A fit, prediction and test on made-up domains as a program of its own, on any number of processes.

    python -m tests.helpers.fit_script '{"data": ..., "out": ..., "devices": 2, "workers": 0, "batch": 4}'

With ``slow`` each shard takes so many seconds, so that there is time to kill the run; with ``die`` a rank kills itself
in the middle of the epoch, with ``fail`` it raises an error, and with ``linger`` it is slow to end. With ``model`` the
router's features are that model's.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from lightning import Callback, Trainer

from callbacks import FitRouter, ReportVerdict, SaveRouter, WritePredictions
from ir3de.data import shards
from ir3de.experts.loss_table import LossTable
from ir3de.modules.router_module import RouterModule
from ir3de.routers import ContextualRidgeRouter, RidgeRouter
from ir3de.strategy import register_strategy
from tests.helpers.domains import MadeUpDomains
from tests.helpers.text import embeddings


class Accident(Callback):
    """Lets a rank die or fail after its first shard, or end seconds after the others."""

    def __init__(self, die, fail, linger):
        self.die, self.fail, self.linger = die, fail, linger

    def on_fit_end(self, trainer, _):
        if trainer.global_rank == self.linger:
            time.sleep(3)

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_rank == self.die:
            os.kill(os.getpid(), signal.SIGKILL)
        if trainer.global_rank == self.fail:
            raise ValueError("the text of `law` is broken")


def losses(data):
    """Return made-up losses of the test split, in which each domain's own expert is the best."""
    rows, domains = data.splits["test"]
    domain_N, tokens_N = torch.tensor(domains), torch.tensor([len(row) for row in rows])
    nll_NE = (4 - torch.eye(3, dtype=torch.float64)[domain_N]) * tokens_N[:, None]
    return LossTable(nll_NE, tokens_N, domain_N, data.domain_names, "key", nll_NE.mean(dim=1))


def main(given):
    """Fit, predict and test."""
    register_strategy()
    torch.set_num_threads(1)
    if given.get("slow"):
        count = shards.count

        def slowly(*arguments):
            time.sleep(given["slow"])
            return count(*arguments)

        shards.count = slowly
    data = MadeUpDomains(
        folder=given["data"], batch_size=given["batch"], num_workers=given["workers"], names=given["names"]
    )
    model = given.get("model")
    module = RouterModule(router=ContextualRidgeRouter(model=model) if model else RidgeRouter(embeddings=embeddings()))
    callbacks = [Accident(given.get("die"), given.get("fail"), given.get("linger")), FitRouter(), SaveRouter()]
    trainer = Trainer(
        default_root_dir=given["out"],
        accelerator="cpu",
        devices=given["devices"],
        strategy=given.get("strategy", "auto"),
        max_epochs=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, WritePredictions(), ReportVerdict()],
    )
    trainer.fit(module, datamodule=data)
    module.table = losses(data)
    trainer.predict(module, datamodule=data, return_predictions=False)
    trainer.test(module, datamodule=data, verbose=False)
    Path(given["out"], f"rank_{trainer.global_rank}").write_text(type(trainer.strategy).__name__)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
