"""Counts of several processes are added: the fit on two ranks is the fit on one."""

import torch
from lightning import Trainer
from lightning.pytorch.strategies import DDPStrategy

from callbacks import FitRouter, SaveRouter
from ir3de.modules.router_module import RouterModule
from ir3de.routers import RidgeRouter, load_router
from tests.helpers.domains import MadeUpDomains
from tests.helpers.text import embeddings


class Unwrapped(DDPStrategy):
    """DDP without the wrapper, which refuses a module that has nothing to train."""

    def configure_ddp(self):
        pass


class EveryOtherBatch(MadeUpDomains):
    """Gives each rank the batches of its turn; both have equally many."""

    def train_dataloader(self):
        loader = super().train_dataloader()
        batches = list(loader.dataset)[self.trainer.global_rank :: self.trainer.world_size]
        return torch.utils.data.DataLoader(batches, batch_size=None)


def test_two_ranks_fit_what_one_does(tmp_path):
    data = EveryOtherBatch(batch_size=3)
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        devices=2,
        strategy=Unwrapped(process_group_backend="gloo", start_method="spawn"),
        use_distributed_sampler=False,
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[FitRouter(), SaveRouter()],
    )
    trainer.fit(RouterModule(router=RidgeRouter(embeddings=embeddings())), datamodule=data)
    assert torch.equal(load_router(tmp_path / "router").statistics.counts_EV, data.counts())
