"""The ridge from counts against the streamed published formula, and against identities."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from ir3de.functional import ridge
from ir3de.functional.ridge import (
    RidgePath,
    domain_weights,
    gram_from_counts,
    normalize_columns,
    solve_ridge,
    with_bias,
)
from tests.helpers.counts import sparse
from tests.helpers.reference import published_normalization, streamed_ridge


def _problem(num_domains=3, vocab=40, dim=7, *, seed=0, unequal=True):
    generator = torch.Generator().manual_seed(seed)
    table_VD = torch.randn(vocab, dim, generator=generator)
    sequences = []
    for domain in range(num_domains):
        for _ in range(2 + 3 * domain * unequal):
            length = int(torch.randint(1, 30, (), generator=generator))
            sequences.append((torch.randint(vocab, (length,), generator=generator).tolist(), domain))
    counts_EV = torch.zeros(num_domains, vocab, dtype=torch.int64)
    for ids, domain in sequences:
        for token in ids:
            counts_EV[domain, token] += 1
    return table_VD, sequences, counts_EV


def _solve(table_VD, counts_EV, balance, regularization=1e-2):
    weights_E = domain_weights(counts_EV.sum(dim=1), balance)
    return solve_ridge(*gram_from_counts(table_VD, sparse(counts_EV), weights_E), regularization)


@pytest.mark.parametrize("num_domains", [1, 2, 5])
@pytest.mark.parametrize("balance", ["domain", "none"])
@pytest.mark.parametrize("regularization", [1e-4, 1e-2, 10.0])
def test_w_from_counts_equals_w_from_the_stream(num_domains, balance, regularization):
    table_VD, sequences, counts_EV = _problem(num_domains)
    weights_E = domain_weights(counts_EV.sum(dim=1), balance)
    ours = _solve(table_VD, counts_EV, balance, regularization)
    streamed = streamed_ridge(
        table_VD, sequences, num_experts=num_domains, regularization=regularization, weights=weights_E.tolist()
    )
    assert (ours - streamed).norm() / streamed.norm() < 1e-10


def test_normalized_unbalanced_equals_the_published_arithmetic_in_float32():
    table_VD, sequences, counts_EV = _problem()
    published = published_normalization(
        streamed_ridge(table_VD, sequences, num_experts=3, regularization=1e-2, dtype=torch.float32)
    )
    ours = normalize_columns(_solve(table_VD, counts_EV, "none"))
    assert (ours - published.double()).norm() / ours.norm() < 1e-4  # what float32 sums leave


@pytest.mark.parametrize("regularization", [1e-6, 1e-2, 1.0, 1e4])
@pytest.mark.parametrize("scale", ["absolute", "mean_diagonal"])
def test_the_path_agrees_with_a_solve_for_each_regularization(regularization, scale):
    table_VD, _, counts_EV = _problem(5)
    system = gram_from_counts(table_VD, sparse(counts_EV), domain_weights(counts_EV.sum(dim=1), "domain"))
    ours, expected = RidgePath(*system).solve(regularization, scale), solve_ridge(*system, regularization, scale)
    torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("chunk", [1, 7, 8192])
@pytest.mark.parametrize("experts", [1, 2, 512])
def test_chunks_do_not_change_the_sums(chunk, experts, monkeypatch):
    table_VD, _, counts_EV = _problem()
    monkeypatch.setattr(ridge, "EXPERTS_PER_BLOCK", experts)
    weights_E = domain_weights(counts_EV.sum(dim=1), "domain")
    monkeypatch.setattr(ridge, "ROWS_PER_CHUNK", chunk)
    xx_DD, xy_DE = gram_from_counts(table_VD, sparse(counts_EV), weights_E)
    x_VD = with_bias(table_VD)
    weighted_EV = counts_EV.double() * weights_E[:, None]
    torch.testing.assert_close(xx_DD, x_VD.T @ torch.diag(weighted_EV.sum(dim=0)) @ x_VD, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(xy_DE, x_VD.T @ weighted_EV.T, rtol=1e-12, atol=1e-12)


def test_agrees_with_scikit_learn():
    table_VD, sequences, counts_EV = _problem()
    tokens = [(t, d) for ids, d in sequences for t in ids]
    x = with_bias(table_VD[[t for t, _ in tokens]]).numpy()
    y = np.eye(3)[[d for _, d in tokens]]
    expected = Ridge(alpha=0.5, fit_intercept=False, solver="cholesky").fit(x, y).coef_.T
    np.testing.assert_allclose(_solve(table_VD, counts_EV, "none", 0.5).numpy(), expected, rtol=1e-9, atol=1e-12)


def test_balanced_domains_weigh_the_same_in_total():
    tokens_E = torch.tensor([10, 1_000, 37])
    weights_E = domain_weights(tokens_E, "domain")
    torch.testing.assert_close(weights_E * tokens_E, torch.full((3,), 1047 / 3, dtype=torch.float64))


def test_balance_makes_copies_of_a_domain_invisible():
    table_VD, _, counts_EV = _problem()
    copied = counts_EV * torch.tensor([1, 5, 1])[:, None]
    weights = [domain_weights(c.sum(dim=1), "domain") for c in (counts_EV, copied)]
    # the total differs, so compare with λ in the same proportion
    w1 = solve_ridge(*gram_from_counts(table_VD, sparse(counts_EV), weights[0]), 1e-2, "mean_diagonal")
    w2 = solve_ridge(*gram_from_counts(table_VD, sparse(copied), weights[1]), 1e-2, "mean_diagonal")
    torch.testing.assert_close(w1, w2, rtol=1e-9, atol=1e-12)


def test_a_domain_without_tokens_is_refused():
    with pytest.raises(ValueError, match="tokens in every domain"):
        domain_weights(torch.tensor([3, 0]), "domain")


@pytest.mark.parametrize("regularization", [0.0, 1e-30])
def test_a_singular_matrix_without_regularization_is_refused(regularization):
    table_VD, _, counts_EV = _problem(vocab=5, dim=12)  # 5 entries cannot span 13 directions
    with pytest.raises(ValueError, match="singular"):
        _solve(table_VD, counts_EV, "domain", regularization)


def test_no_regularization_is_least_squares_where_the_matrix_has_full_rank():
    table_VD, sequences, counts_EV = _problem()
    ours = _solve(table_VD, counts_EV, "none", 0.0)
    tokens = [(t, d) for ids, d in sequences for t in ids]
    x = with_bias(table_VD[[t for t, _ in tokens]])
    expected = torch.linalg.lstsq(x, torch.eye(3, dtype=torch.float64)[[d for _, d in tokens]]).solution
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


def test_negative_regularization_is_refused():
    with pytest.raises(ValueError, match="at least 0, but got -1"):
        solve_ridge(torch.eye(2, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64), -1.0)
