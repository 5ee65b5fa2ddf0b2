"""Routers on vectors of sequences agree with scikit-learn's, and experts come and go exactly."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import normalize

from ir3de.routers import (
    HiddenStates,
    KNNRouter,
    LogisticRegressionRouter,
    MLPRouter,
    MoDEMRouter,
    TokenMeans,
    load_router,
)
from ir3de.routers.contract import check_router
from ir3de.statistics.feature_rows import DomainRows, FeatureRows
from tests.helpers.models import save_model

NAMES = ("code", "law", "maths")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("bert"), bert=True)


def rows(seed, n, *, shift=1.0, dimensions=16):
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(n, dimensions)) + shift * np.eye(dimensions)[seed % dimensions] * 3).astype("f4")


def statistics(features, sizes=(40, 25, 30)):
    shares = {
        name: DomainRows(rows(i, size), rows(i, 12, shift=0.8)[::-1].copy(), np.array([i + 1]))
        for i, (name, size) in enumerate(zip(NAMES, sizes, strict=True))
    }
    return FeatureRows(shares, {"features": features.fingerprint})


def query(n=60):
    return torch.from_numpy(np.concatenate([rows(i, n // 3, shift=0.3) for i in range(3)]))


def plain(held):
    x, y = held.training()
    return normalize(x.numpy().astype(np.float64)), y.numpy()


@pytest.mark.parametrize("k", [1, 3, 5, 20, 95])
@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_knn_is_scikit_learns(bert, k, index):
    router = KNNRouter(features=HiddenStates(bert), k=k, index=index)
    router.fit(statistics(router.features))
    reference = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(*plain(router.statistics))
    scores_BE = router.score_features(query())
    np.testing.assert_allclose(scores_BE.numpy(), reference.predict_proba(normalize(query().numpy())), atol=1e-9)
    assert scores_BE.argmax(1).tolist() == reference.predict(normalize(query().numpy())).tolist()


@pytest.mark.parametrize("c", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("balance", ["domain", "none"])
def test_logistic_regression_is_scikit_learns(bert, c, balance):
    router = LogisticRegressionRouter(features=HiddenStates(bert), c=c, balance=balance)
    router.fit(statistics(router.features))
    weight = "balanced" if balance == "domain" else None
    reference = LogisticRegression(C=c, class_weight=weight, max_iter=5000).fit(*plain(router.statistics))
    found = router.score_features(query()).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, reference.predict_proba(normalize(query().numpy())), atol=2e-4)


def test_logistic_regression_between_two_experts_has_a_score_for_both(bert):
    router = LogisticRegressionRouter(features=HiddenStates(bert), c=1.0)
    router.fit(statistics(router.features).without_expert("law"))
    reference = LogisticRegression(class_weight="balanced", max_iter=5000).fit(*plain(router.statistics))
    found = router.score_features(query()).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, reference.predict_proba(normalize(query().numpy())), atol=2e-4)


def test_the_mlp_computes_what_scikit_learns_does_with_the_same_weights(bert):
    router = MLPRouter(features=HiddenStates(bert), hidden=[8, 5])
    router.begin(NAMES, torch.tensor([40, 25, 30]))
    x, y = plain(statistics(router.features))
    reference = MLPClassifier((8, 5), max_iter=30, random_state=0)
    with pytest.warns(UserWarning, match="iterations"):
        reference.fit(x * 4, y)  # 4 is the square root of 16 features
    linears = [layer for layer in router.layers.modules() if isinstance(layer, torch.nn.Linear)]
    with torch.no_grad():
        for layer, weight, bias in zip(linears, reference.coefs_, reference.intercepts_, strict=True):
            layer.weight.copy_(torch.from_numpy(weight.T))
            layer.bias.copy_(torch.from_numpy(bias))
    found = router.eval().score_features(query()).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(found, reference.predict_proba(normalize(query().numpy()) * 4), atol=1e-5)


@pytest.mark.parametrize("make", [KNNRouter, LogisticRegressionRouter])
def test_what_is_open_is_chosen_on_validation_vectors(bert, make):
    router = make(features=HiddenStates(bert))
    router.fit(statistics(router.features))
    held_ND, domain_N = router.statistics.validation()
    of = {}
    for one in router.scored:
        twin = make(features=router.features, **one.choice)
        twin.fit(statistics(router.features))
        right = twin.score_features(held_ND).argmax(1) == domain_N
        of[str(one.choice)] = 100 * np.mean([float(right[domain_N == d].double().mean()) for d in range(3)])
        assert one.routing_accuracy_mean == pytest.approx(of[str(one.choice)])
    assert of[str(router.chosen())] == max(of.values())
    assert router.unchecked == []


@pytest.mark.parametrize("make", [KNNRouter, LogisticRegressionRouter])
def test_removing_an_expert_leaves_the_router_that_never_saw_it(bert, make):
    router = make(features=HiddenStates(bert))
    every = statistics(router.features)
    router.fit(every.without_expert("law"))
    before = {name: tensor.clone() for name, tensor in router.tensors().items()}
    router.add_expert("law", every.shares["law"])
    assert router.expert_names == NAMES
    router.remove_expert("law")
    assert all(torch.equal(before[name], tensor) for name, tensor in router.tensors().items())


def fitted(name, bert):
    """Return a fitted router of each kind."""
    features = TokenMeans(bert) if name == "mlp_tokens" else HiddenStates(bert, pooling="first")
    kinds = {"knn": KNNRouter, "logistic": LogisticRegressionRouter, "modem": MoDEMRouter}
    if name == "fine_tuned":
        router = MoDEMRouter(features=features, train_encoder=True)
    else:
        router = kinds.get(name, MLPRouter)(features=features)
    if router.closed_form:
        router.fit(statistics(features))
    else:
        torch.manual_seed(0)
        router.begin(NAMES, torch.tensor([3, 2, 1]))
    return router


@pytest.mark.parametrize("name", ["knn", "logistic", "mlp", "mlp_tokens", "modem", "fine_tuned"])
def test_every_router_on_vectors_holds_to_the_contract(bert, name, tmp_path):
    router = fitted(name, bert)
    check_router(router, [[3], [4, 5, 6], list(range(3, 18)), [9] * 30])
    router.save_pretrained(tmp_path / "router")
    assert type(load_router(tmp_path / "router")) is type(router)


def test_routers_that_were_trained_otherwise_have_other_identities(bert):
    once, twice = (fitted("mlp", bert) for _ in range(2))
    assert once.identity_hash() == twice.identity_hash()
    torch.nn.init.zeros_(twice.layers[-1].bias)
    assert once.identity_hash() != twice.identity_hash()


def test_the_contract_finds_what_does_not_hold(bert):
    class Padded(MLPRouter):
        def forward(self, input_ids, attention_mask):
            return super().forward(input_ids, torch.ones_like(attention_mask))

    router = Padded(features=TokenMeans(bert))
    router.begin(NAMES, torch.ones(3))
    with pytest.raises(AssertionError, match="must not depend on the padding"):
        check_router(router, [[3], [4, 5, 6]])


@pytest.mark.parametrize("make, message", [
    (lambda f: KNNRouter(features=f, k=0), "`k` to be at least 1"),
    (lambda f: KNNRouter(features=f, training_sequences=0), "`training_sequences` to be at least 1"),
    (lambda f: LogisticRegressionRouter(features=f, c=0.0), "`c` to be positive"),
    (lambda f: MLPRouter(features=f, hidden=[0]), "`hidden` to be at least 1"),
    (lambda f: MLPRouter(features=f, dropout=1.0), "`dropout` to be at least 0 and less than 1"),
    (lambda f: MoDEMRouter(features=HiddenStates(f.model, pooling="tokens")), "it has many rows"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(bert, make, message):
    with pytest.raises(ValueError, match=message):
        make(HiddenStates(bert))


def test_more_neighbours_than_the_bank_has_are_refused(bert):
    router = KNNRouter(features=HiddenStates(bert), k=96)
    with pytest.raises(ValueError, match="at most the training sequences in the bank, 95, but got 96"):
        router.fit(statistics(router.features))


def test_a_router_of_another_encoder_is_refused(bert, tmp_path):
    fitted("knn", bert).save_pretrained(tmp_path / "router")
    other = save_model(tmp_path / "other", bert=True, words=21)
    config = tmp_path / "router" / "config.json"
    config.write_text(config.read_text().replace(bert, other))
    with pytest.raises(ValueError, match="was made for another tokenizer and features than is there now"):
        load_router(tmp_path / "router")


@pytest.mark.parametrize("keep", [0, 9, 200, -1])
def test_truncated_vectors_are_refused(bert, keep):
    held = statistics(HiddenStates(bert))
    assert FeatureRows.from_bytes(held.to_bytes(), where="x").to_bytes() == held.to_bytes()
    with pytest.raises(ValueError, match="`x` holds no whole vectors"):
        FeatureRows.from_bytes(held.to_bytes()[:keep], where="x")
