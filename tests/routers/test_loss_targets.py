"""Ridge on the experts' losses against the plain formula, and what cannot be done with it."""

import numpy as np
import pytest
import torch

from ir3de.routers import RidgeRouter, load_router
from ir3de.statistics.loss_sums import LossAccumulator, LossShare, LossSums
from tests.helpers.counts import random_share
from tests.helpers.text import embeddings, pad

NAMES = ("code", "law", "maths")


def _sequences(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(20, (int(length),), generator=generator) for length in torch.randint(0, 12, (n,))]
    return rows, 2 + torch.rand(n, 3, generator=generator, dtype=torch.float64)


def _batches(rows, losses_NE, size):
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        lengths = torch.tensor([len(row) for row in part])
        yield {"ids": torch.cat(part), "lengths": lengths, "losses": losses_NE[first : first + size]}


def _router(**changes):
    return RidgeRouter(
        embeddings=embeddings(), **{"targets": "loss", "selector": "mean", "regularization": 0.5} | changes
    )


def _fitted(rows, losses_NE, *, size=7, processes=1, **changes):
    router = _router(**changes)
    parts = [LossAccumulator(NAMES, router.basis()) for _ in range(processes)]
    for place, batch in enumerate(_batches(rows, losses_NE, size)):
        parts[place % processes].add(batch)
    names = ("_counts_V", "_targets_EV")
    sums = iter([torch.from_numpy(sum(getattr(part, name) for part in parts)) for name in names])
    router.fit(parts[0].total(lambda _: next(sums), world_size=processes))
    return router


@pytest.mark.parametrize("size, processes", [(1, 1), (7, 1), (7, 2), (100, 1)])
def test_weights_are_those_of_the_streamed_formula(size, processes):
    rows, losses_NE = _sequences()
    router = _fitted(rows, losses_NE, size=size, processes=processes)
    table = torch.cat([embeddings().table_VD.double(), torch.ones(20, 1, dtype=torch.float64)], dim=1)
    a, b = 0.5 * torch.eye(7, dtype=torch.float64), torch.zeros(7, 3, dtype=torch.float64)
    for row, losses_E in zip(rows, losses_NE, strict=True):
        for token in row.tolist():
            a += torch.outer(table[token], table[token])
            b += torch.outer(table[token], losses_E.mean() - losses_E)
    expected = torch.linalg.solve(a, b)
    torch.testing.assert_close(router.weight_DE, expected, rtol=1e-9, atol=1e-11)
    ids_BT, mask_BT = pad([[3, 4, 4], [9]])
    torch.testing.assert_close(
        router(ids_BT, mask_BT), torch.stack([(table[[3, 4, 4]] @ expected).mean(0), table[9] @ expected])
    )


def test_a_saved_router_is_the_same_and_removing_an_expert_is_exact(tmp_path):
    rows, losses_NE = _sequences()
    router = _fitted(rows, losses_NE)
    router.save_pretrained(tmp_path / "router")
    loaded = load_router(tmp_path / "router")
    assert loaded.identity_hash() == router.identity_hash()
    loaded.remove_expert("law")
    fresh = _router()
    accumulator = LossAccumulator(("code", "maths"), fresh.basis())
    for batch in _batches(rows, losses_NE[:, [0, 2]], 7):
        accumulator.add(batch)
    fresh.fit(accumulator.total(lambda tensor: tensor, world_size=1))
    assert torch.equal(loaded.weight_DE, fresh.weight_DE)
    assert set(router.siblings()) == {"IR3DE-avg (mean, losses as targets)", "IR3DE-all (majority, losses as targets)"}


def test_what_it_does_without_is_said():
    rows, losses_NE = _sequences()
    router = _fitted(rows, losses_NE)
    with pytest.raises(ValueError, match="takes `new` only with its losses on the text"):
        router.add_expert("new", random_share(seed=5))
    other = LossShare(np.arange(20), np.zeros(20))
    with pytest.raises(ValueError, match="on the same text"):
        router.add_expert("new", other)
    for open_one in ({"selector": None}, {"regularization": None}, {"selector": "entropy_top_k"}):
        with pytest.raises(ValueError, match="which `targets: loss` does without"):
            _router(**open_one)
    with pytest.raises(ValueError, match="holds no whole sums"):
        LossSums.from_bytes(b"nothing", where="x")
