"""Counts agree with a plain Counter, and refuse what the vocabulary does not have."""

from collections import Counter

import numpy as np
import pytest
import torch

from ir3de.functional import counts as module
from ir3de.functional.counts import add_token_counts_
from tests.helpers.counts import sparse


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64])
@pytest.mark.parametrize("tokens", [0, 1, 999, 5000])
@pytest.mark.parametrize("at_once", [1, 7, 1 << 18])
def test_counts_agree_with_a_counter(dtype, tokens, at_once, monkeypatch):
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", max(at_once, tokens // 100, 1))
    ids_M = np.random.default_rng(0).integers(0, 6, size=tokens).astype(dtype)
    counts_V = np.ones(6, dtype=np.int64)
    add_token_counts_(counts_V, ids_M)
    expected = Counter(ids_M.tolist())
    assert counts_V.tolist() == [1 + expected[token] for token in range(6)]


@pytest.mark.parametrize("bad", [-1, 6, 2**40])
def test_an_id_out_of_range_is_refused_and_named(bad):
    with pytest.raises(ValueError, match=f"from 0 to 5, but got {bad}"):
        add_token_counts_(np.zeros(6, dtype=np.int64), np.array([1, bad, 2]))


def test_sparse_counts_give_back_every_block():
    counts_EV = torch.randint(0, 3, (4, 30), generator=torch.Generator().manual_seed(0))
    weights_E = torch.tensor([1.0, 0.5, 2.0, 3.0], dtype=torch.float64)
    ours = sparse(counts_EV)
    torch.testing.assert_close(ours.weighted_sum(weights_E), (counts_EV * weights_E[:, None]).sum(dim=0))
    for low, high in [(0, 30), (0, 1), (29, 30), (7, 19)]:
        assert torch.equal(ours.dense(range(1, 4), low, high), counts_EV[1:, low:high].T.double())
