"""Routers on features in context: the features are the model's, the ridge is the ridge, and experts come and go."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from transformers import AutoModel

from ir3de.pretrained.hidden_states import HiddenStates
from ir3de.routers import ContextualRidgeRouter, load_router
from ir3de.statistics.grams import DomainGram, GramAccumulator, Grams
from tests.helpers import reference
from tests.helpers.models import save_model
from tests.helpers.text import pad

NAMES = ("code", "law", "maths")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("bert"), bert=True)


def sequences(seed=0, lengths=(1, 3, 9, 12, 2, 7, 5, 5, 8, 4, 6, 11)):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 19, (length,), generator=generator).tolist() for length in lengths]


def batch(rows, *, side="right", domains=None):
    ids_BT, mask_BT = pad(rows, side=side, filler=7)
    domain_B = torch.tensor([i % 3 for i in range(len(rows))] if domains is None else domains)
    return {"input_ids": ids_BT, "attention_mask": mask_BT, "domain": domain_B, "index": torch.arange(len(rows))}


def plain_features(folder, row, *, layer, pooling, bert):
    """Return one sequence's feature rows, alone and unpadded."""
    ids = [1, *row, 2] if bert else row
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        hidden_TD = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
    text_TD = hidden_TD[1:-1] if bert else hidden_TD
    return {"tokens": text_TD, "mean": text_TD.mean(0)[None], "first": hidden_TD[:1], "last": hidden_TD[-1:]}[pooling]


@pytest.mark.parametrize("kind", ["llama", "bert"])
@pytest.mark.parametrize("pooling", ["tokens", "mean", "first", "last"])
@pytest.mark.parametrize("layer, side", [(-1, "right"), (1, "left"), (0, "left")])
def test_features_are_the_models_own_whatever_the_padding(request, kind, pooling, layer, side):
    folder = request.getfixturevalue(kind)
    features_BTD, mask_BT = HiddenStates(folder, layer=layer, pooling=pooling).rows(
        *pad(sequences(), side=side, filler=7)
    )
    for row, features_TD, mask_T in zip(sequences(), features_BTD, mask_BT, strict=True):
        expected = plain_features(folder, row, layer=layer, pooling=pooling, bert=kind == "bert")
        torch.testing.assert_close(features_TD[mask_T], expected, rtol=1e-4, atol=1e-5)


def read(router, batches):
    """Return the statistics of batches."""
    added = GramAccumulator(
        router.features.rows,
        names=NAMES,
        basis=router.basis(),
        num_features=16,
        documents=lambda name: np.array([NAMES.index(name) + 1]),
    )
    for one in batches:
        added.add(one)
    return added.total(torch.clone, world_size=1)


@pytest.mark.parametrize("balance", ["domain", "none"])
@pytest.mark.parametrize("pooling", ["tokens", "mean"])
def test_the_ridge_is_scikit_learns(llama, balance, pooling):
    router = ContextualRidgeRouter(model=llama, pooling=pooling, balance=balance, regularization=0.3)
    rows = sequences()
    router.fit(read(router, [batch(rows[:5]), batch(rows[5:], domains=[i % 3 for i in range(5, len(rows))])]))
    parts = [plain_features(llama, row, layer=-1, pooling=pooling, bert=False) for row in rows]
    domains = np.repeat([i % 3 for i in range(len(rows))], [len(part) for part in parts])
    x = torch.cat([torch.cat(parts), torch.ones(len(domains), 1)], dim=1).double().numpy()
    sizes = np.bincount(domains)
    weights = len(domains) / (3 * sizes)[domains] if balance == "domain" else np.ones(len(domains))
    expected = Ridge(alpha=0.3, fit_intercept=False).fit(x, np.eye(3)[domains], sample_weight=weights).coef_.T
    np.testing.assert_allclose(router.weight_DE.numpy(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("selector, k", [("mean", 10), ("majority", 10), ("entropy_top_k", 2), ("entropy_top_k", 99)])
def test_tokens_are_selected_as_the_plain_selectors_do(llama, selector, k):
    router = ContextualRidgeRouter(model=llama, pooling="tokens", selector=selector, k=k)
    router.fit(read(router, [batch(sequences())]))
    prompts = sequences(5)
    decision = router.decide(*pad(prompts, side="left", filler=3))
    scores_BE = router.scores(prompts)
    for i, prompt in enumerate(prompts):
        x_TD = plain_features(llama, prompt, layer=-1, pooling="tokens", bert=False).double()
        table = (x_TD @ router.weight_DE[:-1] + router.weight_DE[-1]).tolist()
        expert, scores = reference.route(list(range(len(prompt))), table, selector, k)
        assert int(decision.expert_B[i]) == expert
        torch.testing.assert_close(scores_BE[i], torch.tensor(scores, dtype=torch.float64), rtol=1e-4, atol=1e-6)


def test_experts_come_and_go_and_the_router_is_saved(llama, tmp_path):
    router = ContextualRidgeRouter(model=llama)
    router.fit(read(router, [batch(sequences())]))
    router.save_pretrained(tmp_path / "before")
    before = (tmp_path / "before" / "config.json").read_bytes()
    law = router.statistics.shares["law"]
    router.remove_expert("law")
    assert router.expert_names == ("code", "maths")
    router.add_expert("law", law)
    router.save_pretrained(tmp_path / "after")
    assert (tmp_path / "after" / "config.json").read_bytes() == before
    loaded = load_router(tmp_path / "after")
    assert loaded.route(sequences(5)).names == router.route(sequences(5)).names
    with pytest.raises(ValueError, match="have been read already"):
        router.merge(loaded)
    other = ContextualRidgeRouter(model=llama)
    other.fit(Grams({"code": DomainGram(law.xx_DD, np.array([99]))}, other.basis()))
    router.merge(other)
    np.testing.assert_array_equal(
        router.statistics.shares["code"].xx_DD, loaded.statistics.shares["code"].xx_DD + law.xx_DD
    )


def test_another_layer_is_another_router(llama, tmp_path):
    one, two = ContextualRidgeRouter(model=llama), ContextualRidgeRouter(model=llama, layer=1)
    one.fit(read(one, [batch(sequences())]))
    with pytest.raises(ValueError, match="made alike, but got features"):
        two.fit(one.statistics)


def test_rows_that_are_not_there_add_nothing(llama):
    router = ContextualRidgeRouter(model=llama)
    whole = batch([*sequences(), [5]])
    whole["attention_mask"][-1] = False
    empty = batch([[5]])
    empty["attention_mask"][:] = False
    ours, expected = read(router, [whole, empty]), read(router, [batch(sequences())])
    for name in NAMES:
        np.testing.assert_allclose(ours.shares[name].xx_DD, expected.shares[name].xx_DD, rtol=1e-6)


@pytest.mark.parametrize("arguments, message", [
    ({"layer": 3}, "`layer` from -3 to 2"),
    ({"model": "./nowhere"}, "nothing is there"),
])  # fmt: skip
def test_what_the_model_does_not_have_is_refused(llama, arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        ContextualRidgeRouter(**{"model": llama} | arguments).basis()


@pytest.mark.parametrize("length, windows", [(64, [64]), (65, [33, 32]), (200, [50, 50, 50, 50])])
def test_a_sequence_longer_than_the_positions_is_read_in_windows_and_averaged(llama, length, windows):
    features = HiddenStates(llama, pooling="mean")
    row = torch.randint(3, 19, (length,), generator=torch.Generator().manual_seed(1)).tolist()
    pooled = features.pooled(*pad([row, [4, 5]], side="left", filler=7))
    pieces = np.split(np.array(row), np.cumsum(windows)[:-1])
    parts = {
        pooling: torch.cat([plain_features(llama, p.tolist(), layer=-1, pooling=pooling, bert=False).mean(0)[None]
                            for p in pieces])
        for pooling in ("mean", "first", "last")
    }  # fmt: skip
    weights = torch.tensor(windows, dtype=torch.float32)[:, None] / length
    torch.testing.assert_close(pooled["mean"][0], (parts["mean"] * weights).sum(0), rtol=1e-4, atol=1e-5)
    for pooling in ("first", "last"):
        torch.testing.assert_close(pooled[pooling][0], parts[pooling].mean(0), rtol=1e-4, atol=1e-5)


def test_votes_need_tokens(llama):
    with pytest.raises(ValueError, match="has one row a sequence"):
        ContextualRidgeRouter(model=llama, selector="majority")


@pytest.mark.parametrize("keep", [0, 9, 200, -1])
def test_truncated_gram_matrices_are_refused(keep):
    grams = Grams({"a": DomainGram(np.eye(3)), "b": DomainGram(2 * np.eye(3))}, {"features": "x"})
    assert Grams.from_bytes(grams.to_bytes(), where="x").to_bytes() == grams.to_bytes()
    with pytest.raises(ValueError, match="`x` holds no whole Gram matrices"):
        Grams.from_bytes(grams.to_bytes()[:keep], where="x")
