"""Counts smoothed by the ridge, against the formula written out; and the contract of every token table."""

import math

import pytest
import torch

from ir3de.routers import NaiveBayesRouter, RandomRouter, RidgeRouter, SingleExpertRouter, SmoothedBayesRouter
from ir3de.routers.contract import check_router
from tests.helpers.counts import NAMES, counts, random_share, statistics
from tests.helpers.text import embeddings, word_tokenizer


@pytest.mark.parametrize("ridge_share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("strength", [1.0, 300.0])
def test_scores_are_the_formula(ridge_share, strength):
    router = SmoothedBayesRouter(embeddings=embeddings(), strength=strength, ridge_share=ridge_share)
    router.fit(counts())
    ridge = RidgeRouter(embeddings=embeddings(), selector="mean")
    ridge.fit(counts())
    c, n = counts().counts_EV.tolist(), counts().tokens_E.tolist()
    prior = [[0.0] * 3 for _ in range(20)]
    for v in range(20):
        base = sum((c[k][v] + 0.01) / (n[k] + 0.01 * 20) for k in range(3))
        positive = [max(float(ridge.scores_VE[v, k]), 1e-4) for k in range(3)]
        for k in range(3):
            prior[v][k] = base * (1 - ridge_share + ridge_share * 3 * positive[k] / sum(positive))
    for k in range(3):
        total = sum(prior[v][k] for v in range(20))
        for v in range(20):
            expected = math.log((c[k][v] + strength * prior[v][k] / total) / (n[k] + strength))
            assert float(router.scores_VE[v, k]) == pytest.approx(expected, rel=1e-9)


def test_the_strength_is_chosen_on_validation_data():
    router = SmoothedBayesRouter(embeddings=embeddings())
    router.fit(statistics({name: random_share(i) for i, name in enumerate(NAMES)}))
    assert len(router.scored) == 4
    best = max(one.routing_accuracy_mean for one in router.scored)
    assert next(one.choice for one in router.scored if one.routing_accuracy_mean == best) == router.chosen()


def test_removing_an_expert_leaves_the_bytes_of_the_router_that_never_saw_it():
    shares = {name: random_share(i) for i, name in enumerate(NAMES)}
    router = SmoothedBayesRouter(embeddings=embeddings())
    router.fit(statistics({name: shares[name] for name in NAMES[:2]}))
    before = router.files()
    router.add_expert("maths", shares["maths"])
    router.remove_expert("maths")
    assert router.files() == before


@pytest.mark.parametrize("router", [
    RidgeRouter(embeddings=embeddings()),
    RidgeRouter(embeddings=embeddings(), selector="majority"),
    RidgeRouter(embeddings=embeddings(), selector="entropy_top_k", k=3),
    NaiveBayesRouter(tokenizer=word_tokenizer()),
    SmoothedBayesRouter(embeddings=embeddings()),
], ids=lambda router: router.display_name or type(router).__name__)  # fmt: skip
def test_every_token_table_holds_to_the_contract(router):
    router.fit(statistics({name: random_share(i) for i, name in enumerate(NAMES)}))
    check_router(router, [[3], [4, 5, 6], list(range(3, 18)), [9] * 30])


@pytest.mark.parametrize("router", [RandomRouter(seed=3), SingleExpertRouter(expert="law")])
def test_references_hold_to_the_contract(router):
    router.begin(NAMES, torch.ones(3))
    check_router(router, [[3], [4, 5, 6], list(range(3, 18)), [9] * 30])


@pytest.mark.parametrize("settings, message", [
    ({"strength": 0.0}, "`strength` to be positive"),
    ({"ridge_share": 1.5}, "`ridge_share` to be from 0 to 1"),
    ({"regularization": -1.0}, "`regularization` to be at least 0"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SmoothedBayesRouter(embeddings=embeddings(), **settings)
