"""What a choice or more data would have given: accuracy against k, λ, tokens per domain and class imbalance.

Every curve has the mean routing accuracy over domains on validation and on test sequences. What is drawn on test
sequences is drawn after all choices are frozen, and changes none of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ir3de.data.datamodule import DomainDataModule
from ir3de.data.readable import Split
from ir3de.data.sample import sample_rows
from ir3de.routers import ClosedFormRouter, RidgeRouter
from ir3de.routers.choose import accuracy_mean
from ir3de.routers.ridge import REGULARIZATIONS
from ir3de.routers.router import Router
from ir3de.statistics.feature_rows import DomainRows, FeatureRows
from ir3de.statistics.token_counts import DomainCounts, TokenCounts

KS = (1, 2, 5, 10, 25, 50, 100, 200, 400)
RATIOS = (1, 3, 10, 30, 100)
SIZES = (3, 10, 30, 100, 300, 1000, 3000, 10000)  # training sequences of a domain


@dataclass(frozen=True)
class Curve:
    """Accuracies in percent at each ``x``; ``test`` and ``validation`` are as long as it."""

    name: str
    x: list[float]
    validation: list[float]
    test: list[float]


@dataclass
class Curves:
    """Draws curves of fitted routers on one data module."""

    data: DomainDataModule

    def against_k(self, router: RidgeRouter) -> Curve:
        """Return the accuracy of ``entropy_top_k`` by its k."""
        twin = router.with_selector("entropy_top_k")
        points = []
        for k in KS:
            twin.k = k
            points.append((k, *self._accuracies(twin)))
        return _curve("entropy_top_k", points)

    def against_regularization(self, router: RidgeRouter) -> Curve:
        """Return the accuracy of the ridge by λ, with the selector that it has."""
        points = []
        for regularization in sorted(REGULARIZATIONS):
            twin = router.with_settings(router.settings() | router.chosen() | {"regularization": regularization})
            assert isinstance(router.statistics, TokenCounts), "the curve is for domains as targets"
            twin.fit(router.statistics)
            points.append((regularization, *self._accuracies(twin)))
        return _curve(router.display_name, points)

    def against_tokens(self, router: ClosedFormRouter[Any], name: str) -> Curve:
        """Return the accuracy by training tokens of a domain, mean over domains, with the settings that all chose."""
        self.data.read_as(router)
        most = int(np.bincount(self.data.sequences("train").domains()).max())
        points = []
        for size in [*(size for size in SIZES if size < most), most]:
            twin = router.frozen()
            held, tokens = self._held(router, [size] * self.data.num_domains)
            if min(share.tokens for share in held.shares.values()) < 1 or _too_small(twin, held):
                continue
            twin.fit(held)
            points.append((tokens / self.data.num_domains, *self._accuracies(twin)))
        return _curve(name, points)

    def against_imbalance(self, router: RidgeRouter, sequences: int) -> list[Curve]:
        """Return the accuracy with domains whose sequences fall from ``sequences`` to a part, for each ``balance``."""
        self.data.read_as(router)
        last = max(1, self.data.num_domains - 1)
        curves = []
        for balance in ("domain", "none"):
            points = []
            for ratio in RATIOS:
                sizes = [max(1, round(sequences * ratio ** (-i / last))) for i in range(self.data.num_domains)]
                twin = router.with_settings(router.settings() | router.chosen() | {"balance": balance})
                twin.fit(self._held(router, sizes)[0])
                points.append((ratio, *self._accuracies(twin)))
            curves.append(_curve(f"balance: {balance}", points))
        return curves

    def _accuracies(self, router: Router) -> tuple[float, float]:
        return self._accuracy(router, "validation"), self._accuracy(router, "test")

    def _accuracy(self, router: Router, split: Split) -> float:
        self.data.read_as(router)
        loader = self.data.val_dataloader() if split == "validation" else self.data.test_dataloader()
        decided, domains = [], []
        for batch in loader:
            decided.append(router.decide_batch(batch).expert_B)
            domains.append(batch["domain"])
        return accuracy_mean(torch.cat(decided), torch.cat(domains))

    def _held(self, router: ClosedFormRouter[Any], sizes: Sequence[int]) -> tuple[Any, int]:
        """Return the statistics of so many training sequences of each domain, and how many tokens those are."""
        rows = self.data.sequences("train")
        domain_N, tokens = rows.domains(), 0
        counted, vectors = {}, {}
        for number, (name, size) in enumerate(zip(self.data.domain_names, sizes, strict=True)):
            mine = np.flatnonzero(domain_N == number)
            chosen = sample_rows(np.zeros(len(mine), dtype=np.int64), size, seed=0)
            counts_V = np.zeros(router.tokenizer.vocab_size, dtype=np.int64)
            for first in range(0, len(chosen), 256):
                batch = rows[mine[chosen[first : first + 256]].tolist()]
                ids_M = batch["input_ids"][batch["attention_mask"]].numpy()
                tokens += len(ids_M)
                counts_V += np.bincount(ids_M, minlength=len(counts_V))
            if isinstance(router.statistics, FeatureRows):
                share = router.statistics.shares[name]
                vectors[name] = DomainRows(share.training_ND[chosen], share.validation_MD, share.sources)
            else:
                counted[name] = DomainCounts.from_dense(counts_V)
        if isinstance(router.statistics, FeatureRows):
            return FeatureRows(vectors, router.statistics.basis), tokens
        return TokenCounts.of(counted, **router.basis()), tokens


def _too_small(router: ClosedFormRouter[Any], held: Any) -> bool:
    k = router.settings().get("k")
    return isinstance(held, FeatureRows) and k is not None and k > len(held.training()[0])


def _curve(name: str, points: Sequence[tuple[float, float, float]]) -> Curve:
    x, validation, test = ([float(point[i]) for point in points] for i in range(3))
    return Curve(name, x, validation, test)
