"""Routers fitted from counts route as plain implementations do, and as their settings say."""

import pytest
import torch

from ir3de.routers import NaiveBayesRouter, RidgeRouter
from ir3de.statistics.token_counts import TokenCounts
from tests.helpers import reference
from tests.helpers.counts import NAMES, counts, random_share, share, statistics
from tests.helpers.text import embeddings, pad, word_tokenizer


def prompts(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(19, (length,), generator=generator).tolist() for length in (1, 2, 9, 40)]


@pytest.mark.parametrize("selector, k", [("majority", None), ("mean", None), ("entropy_top_k", 3)])
@pytest.mark.parametrize("balance", ["domain", "none"])
def test_ridge_routes_as_the_streamed_formula_does(selector, k, balance):
    router = RidgeRouter(embeddings=embeddings(), selector=selector, k=k, balance=balance)
    router.fit(counts())
    sequences = [
        ([token] * n, domain) for domain, row in enumerate(counts().counts_EV.tolist()) for token, n in enumerate(row)
    ]
    tokens = counts().tokens_E.tolist()
    weights = [sum(tokens) / (3 * n) for n in tokens] if balance == "domain" else None
    weight_DE = reference.streamed_ridge(
        embeddings().table_VD, sequences, num_experts=3, regularization=1e-2, weights=weights
    )
    torch.testing.assert_close(router.weight_DE, weight_DE, rtol=1e-9, atol=1e-11)
    table = torch.cat([embeddings().table_VD.double(), torch.ones(20, 1)], dim=1) @ weight_DE
    decision = router.decide(*pad(prompts(), side="left"))
    expected = [reference.route(prompt, table.tolist(), selector, k)[0] for prompt in prompts()]
    assert decision.expert_B.tolist() == expected
    assert decision.names == [NAMES[i] for i in expected]


def test_text_and_ids_route_alike():
    router = RidgeRouter(embeddings=embeddings(), selector="mean")
    router.fit(counts())
    text = [" ".join(f"w{i}" for i in prompt) for prompt in prompts()]
    by_text, by_ids = router.route(text), router.route(prompts())
    assert by_text.names == by_ids.names
    assert torch.equal(by_text.score_B, by_ids.score_B)
    assert torch.equal(router.scores(text).amax(dim=1), by_text.score_B)


def test_threads_do_not_change_the_solution():
    weights = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        router = RidgeRouter(embeddings=embeddings(400, 300), selector="mean")
        router.fit(counts(num_words=400))
        weights.append(router.weight_DE)
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert torch.equal(*weights)


@pytest.mark.parametrize("router", [RidgeRouter(embeddings=embeddings()), NaiveBayesRouter(tokenizer=word_tokenizer())])
def test_an_unfitted_router_says_so(router):
    with pytest.raises(ValueError, match="Expected a fitted router"):
        router.route(["w1"])


@pytest.mark.parametrize("bad, message", [
    ([], "list of prompts"),
    ("w1 w2", "list of prompts"),
    (["w1", ""], r"rows \[1\] are empty"),
    ([[1], [], [2]], r"rows \[1\] are empty"),
    ([[1, 20]], "from 0 to 19, but got 20"),
    ([[-1]], "from 0 to 19, but got -1"),
])  # fmt: skip
def test_bad_prompts_are_refused(bad, message):
    router = RidgeRouter(embeddings=embeddings(), selector="mean")
    router.fit(counts())
    with pytest.raises(ValueError, match=message):
        router.route(bad)


def test_counts_of_another_tokenizer_are_refused():
    router = RidgeRouter(embeddings=embeddings(), selector="mean")
    with pytest.raises(ValueError, match="Expected statistics that were made alike, but got tokenizer"):
        router.fit(TokenCounts.of(counts().shares, vocab_size=20, tokenizer="another"))


def test_a_domain_without_training_tokens_is_named():
    router = RidgeRouter(embeddings=embeddings(), selector="mean")
    with pytest.raises(ValueError, match="`code` has none"):
        router.fit(statistics(counts().shares | {"code": share([0] * 20)}))


@pytest.mark.parametrize("arguments, message", [
    ({"regularization": -1.0}, "at least 0"),
    ({"k": 0}, "at least 1"),
    ({"k": 5, "selector": "mean"}, "for the selector entropy_top_k"),
])  # fmt: skip
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RidgeRouter(embeddings="never read", **arguments)


def test_open_settings_are_choices_and_closed_ones_are_not():
    assert RidgeRouter(embeddings=embeddings(), selector="mean").choices() == []
    assert RidgeRouter(embeddings=embeddings(), selector="entropy_top_k", k=4).choices() == []
    assert {choice["k"] for choice in RidgeRouter(embeddings=embeddings(), selector="entropy_top_k").choices()} >= {
        1,
        10,
    }
    assert {choice["selector"] for choice in RidgeRouter(embeddings=embeddings()).choices()} == {
        "majority", "mean", "entropy_top_k"
    }  # fmt: skip
    assert NaiveBayesRouter(tokenizer=word_tokenizer(), smoothing=0.5).choices() == []


def test_siblings_are_the_three_selectors_and_naive_bayes_of_the_same_fit():
    router = RidgeRouter(embeddings=embeddings(), selector="mean")
    router.fit(counts())
    siblings = router.siblings()
    assert [type(s).__name__ for s in siblings.values()] == ["RidgeRouter"] * 3 + ["NaiveBayesRouter"]
    bayes = NaiveBayesRouter(tokenizer=word_tokenizer(), smoothing=0.1)
    bayes.fit(counts())
    assert torch.equal(siblings["naive Bayes"].scores_VE, bayes.scores_VE)
    assert all(torch.equal(s.scores_VE, router.scores_VE) for s in list(siblings.values())[:3])


def test_a_checkpoint_restores_the_router():
    router = RidgeRouter(embeddings=embeddings())
    router.fit(statistics({name: random_share(i) for i, name in enumerate(NAMES)}))
    twin = RidgeRouter(embeddings=embeddings())
    twin.load_state_dict(router.state_dict())
    assert twin.chosen() == router.chosen()
    assert twin.scored_pairs() == router.scored_pairs()
    assert torch.equal(twin.scores_VE, router.scores_VE)


def test_what_is_open_is_chosen_by_accuracy_on_the_held_out_sequences():
    router = RidgeRouter(embeddings=embeddings(), regularization=None, balance=None)
    known = statistics({name: random_share(i, validation=30) for i, name in enumerate(NAMES)})
    router.fit(known)
    assert len(router.scored) == 2 * 11 * 10
    assert {(one.choice["balance"], one.choice["regularization"]) for one in router.scored} == {
        (balance, regularization)
        for balance in ("domain", "none")
        for regularization in [10.0**i for i in range(-4, 7)]
    }
    for one in router.scored[::37]:  # each again, alone: solved by Cholesky, sequence by sequence
        alone = RidgeRouter(embeddings=embeddings(), **one.choice)
        alone.fit(known)
        right = [
            sum(alone.route([row.tolist()]).names == [name] for row in share.validation.sequences()) / 30
            for name, share in known.shares.items()
        ]
        assert one.routing_accuracy_mean == pytest.approx(100 * sum(right) / 3)
    best = max(one.routing_accuracy_mean for one in router.scored)
    first = next(one.choice for one in router.scored if one.routing_accuracy_mean == best)
    assert router.chosen() == first
    fixed = RidgeRouter(embeddings=embeddings(), **first)
    fixed.fit(known)
    assert torch.equal(fixed.weight_DE, router.weight_DE), "the router that is kept is solved as any other"


def test_experts_without_held_out_sequences_are_named():
    router = RidgeRouter(embeddings=embeddings())
    known = statistics({"a": random_share(0), "b": random_share(1), "c": random_share(2, validation=0)})
    router.fit(known)
    assert router.unchecked == ["c"]
    router.remove_expert("c")
    assert router.unchecked == []
    blind = RidgeRouter(embeddings=embeddings())
    blind.fit(statistics({"a": random_share(0, validation=0), "c": random_share(2, validation=0)}))
    assert (blind.scored, blind.unchecked, blind.chosen()["k"]) == ([], ["a", "c"], 10)


@pytest.mark.parametrize("selector, k", [("majority", None), ("mean", None), ("entropy_top_k", 3)])
def test_more_experts_than_features_route_as_few_do(selector, k):
    known = statistics({f"e{i}": random_share(i, validation=0) for i in range(9)})
    router = RidgeRouter(embeddings=embeddings(dim=4), selector=selector, k=k)
    router.fit(known)
    assert not router.keeps_scores
    table = torch.cat([embeddings(dim=4).table_VD.double(), torch.ones(20, 1)], dim=1) @ router.weight_DE
    decision = router.decide(*pad(prompts(), side="left"))
    expected = [reference.route(prompt, table.tolist(), selector, k) for prompt in prompts()]
    assert decision.expert_B.tolist() == [expert for expert, _ in expected]
    scores = torch.tensor([scores for _, scores in expected], dtype=torch.float64)
    torch.testing.assert_close(router.scores(prompts()), scores)
