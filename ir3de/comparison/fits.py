"""Fits what is not fitted, reuses what is, and keeps what every fit took."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning import Trainer, seed_everything

from ir3de.comparison.entries import Entry
from ir3de.data.datamodule import DomainDataModule
from ir3de.files import replace_file
from ir3de.routers import RandomRouter, ReferenceRouter, SingleExpertRouter, load_router
from ir3de.routers.artifact import CONFIG
from ir3de.routers.router import Router
from ir3de.runs import global_rank

RECORD = "fit.json"
_VERSION = 2  # raise it when a fit of the same config gives another router


@dataclass(frozen=True)
class Fit:
    """A fitted router in ``folder``/router, and what it took.

    ``seconds`` is the fit itself, ``embedding_seconds`` what the vectors of its training and validation sequences took
    when they were computed; ``windowed`` counts the sequences that were longer than the encoder's window.
    """

    key: str
    seconds: float
    embedding_seconds: float
    training_sequences: dict[str, int]
    windowed: int


@dataclass(frozen=True)
class Fitter:
    """Fits one router after the other on one data module.

    Args:
        data: The domains.
        identity: What decides a fit beside the router's config: the splits' text, how it is read and trained on.
        make_trainer: Gives a trainer that writes into a folder.
        best_single: Gives the best single expert on so many validation sequences of each domain.
        seed: The first seed.
    """

    data: DomainDataModule
    identity: str
    make_trainer: Callable[[Path], Trainer]
    best_single: Callable[[int], str]
    seed: int

    def fit(self, entry: Entry, place: int, folder: Path) -> tuple[Fit, bool]:
        """Return the fit of an entry with its ``place``-th seed, and whether it was there already."""
        key = self._key(entry, place)
        known = read_fit(folder)
        seed_everything(self.seed + place, verbose=False)
        module = entry.module()
        router = module.router
        # A reference costs nothing, and the best single expert hangs on the experts too.
        keeps = not isinstance(router, ReferenceRouter)
        if keeps and known is not None and known.key == key and (folder / "router" / CONFIG).is_file():
            return known, True
        if global_rank() == 0:  # checkpoints and curves of another fit, or of one that was killed
            shutil.rmtree(folder, ignore_errors=True)
        self.data.read_as(router)
        self.data.counts_training = False
        began = time.perf_counter()
        if isinstance(router, SingleExpertRouter) and router.expert is None:
            router.expert = self.best_single(router.validation_sequences)
        if isinstance(router, RandomRouter):
            router.seed += place
        trainer = self.make_trainer(folder)
        trainer.fit(module, datamodule=self.data)
        embedded = [self.data.embedded_rows(s) for s in ("train", "validation")] if router.reads_vectors else []
        embedding_seconds = sum(rows.seconds for rows in embedded)
        computed_now = sum(rows.computed_seconds for rows in embedded)
        fit = Fit(
            key,
            time.perf_counter() - began - computed_now,
            embedding_seconds,
            self._training_sequences(router),
            sum(rows.windowed for rows in embedded),
        )
        replace_file(folder / RECORD, json.dumps(asdict(fit), indent=1).encode())
        return fit, False

    def _training_sequences(self, router: Router) -> dict[str, int]:
        domain_N = self.data.sequences("train").domains()
        return {name: int((domain_N == i).sum()) for i, name in enumerate(self.data.domain_names)}

    def _key(self, entry: Entry, place: int) -> str:
        content = json.dumps([_VERSION, entry.config, self.identity, self.seed + place], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def read_fit(folder: Path) -> Fit | None:
    """Return what a fit in ``folder`` took, if there is one."""
    path = folder / RECORD
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text())
    return Fit(**content)


def fitted_router(entry: Entry, folder: Path) -> Router:
    """Return the entry's saved router."""
    own = None if entry.config is None else type(entry.module().router)
    return load_router(entry.saved or folder / "router", own=own)
