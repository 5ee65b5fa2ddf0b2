"""A saved router comes back the same, solves again to the same bytes, and refuses damage."""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from ir3de.routers import Embeddings, NaiveBayesRouter, RidgeRouter, load_router
from tests.helpers.counts import counts
from tests.helpers.text import embeddings, word_tokenizer


def _ridge(**settings):
    router = RidgeRouter(embeddings=embeddings(), **settings)
    router.fit(counts())
    return router


def _file(folder, name):
    stem, dot, suffix = name.partition(".")
    return next(folder.glob(f"{stem}*{dot}{suffix}" if suffix == "safetensors" else name))


def _bytes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "settings", [{}, {"normalize": True, "balance": "none"}, {"selector": "entropy_top_k", "k": 2}]
)
def test_a_saved_ridge_router_comes_back(tmp_path, settings):
    router = _ridge(**settings)
    router.save_pretrained(tmp_path / "router")
    loaded = RidgeRouter.from_pretrained(tmp_path / "router")
    assert loaded.settings() == router.settings()
    assert loaded.route(["w1 w2 w3", "w4"]).names == router.route(["w1 w2 w3", "w4"]).names
    assert torch.equal(loaded.scores_VE, router.scores_VE)
    loaded.fit(loaded.statistics)  # solves again, from the artifact alone
    loaded.save_pretrained(tmp_path / "again")
    assert _bytes(tmp_path / "router") == _bytes(tmp_path / "again")


def test_a_saved_naive_bayes_router_comes_back(tmp_path):
    router = NaiveBayesRouter(tokenizer=word_tokenizer(), smoothing=0.3)
    router.fit(counts())
    router.save_pretrained(tmp_path / "router")
    loaded = load_router(tmp_path / "router")
    assert loaded.chosen() == {"smoothing": 0.3}
    assert torch.equal(loaded.scores_VE, router.scores_VE)


def test_saving_over_a_router_replaces_it_whole(tmp_path):
    _ridge().save_pretrained(tmp_path / "router")
    _ridge(selector="mean").save_pretrained(tmp_path / "router")
    assert load_router(tmp_path / "router").selector == "mean"
    assert len(list((tmp_path / "router").glob("router-*.safetensors"))) == 1
    _ridge(selector="mean").save_pretrained(tmp_path / "alone")
    assert _bytes(tmp_path / "router") == _bytes(tmp_path / "alone")


def test_a_pointer_to_the_embedding_table_is_verified(tmp_path):
    source = tmp_path / "model"
    source.mkdir()
    tokenizer, table_VD = word_tokenizer(), embeddings().table_VD
    tokenizer.save(source)
    save_file({"model.embed_tokens.weight": table_VD}, source / "model.safetensors")
    router = RidgeRouter(embeddings=str(source), selector="mean", embedding_table="pointer")
    router.fit(counts())
    router.save_pretrained(tmp_path / "router")
    assert not list((tmp_path / "router").glob("embeddings*"))
    assert torch.equal(load_router(tmp_path / "router").embeddings.table_VD, table_VD)
    save_file({"model.embed_tokens.weight": table_VD + 1}, source / "model.safetensors")
    with pytest.raises(ValueError, match="not the one that the router"):
        load_router(tmp_path / "router")
    shutil.rmtree(source)
    with pytest.raises(FileNotFoundError, match="nothing is there"):
        load_router(tmp_path / "router")


@pytest.mark.parametrize(
    "name", ["router.safetensors", "statistics.safetensors", "embeddings.safetensors", "tokenizer.json"]
)
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damage_is_named(tmp_path, name, damage):
    _ridge().save_pretrained(tmp_path / "router")
    path = _file(tmp_path / "router", name)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        path.unlink()
    with pytest.raises(ValueError, match=f"{path.name}` is {damage}"):
        load_router(tmp_path / "router")


def test_a_truncated_config_is_named(tmp_path):
    _ridge().save_pretrained(tmp_path / "router")
    path = tmp_path / "router" / "config.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(ValueError, match=r"config.json` is truncated"):
        load_router(tmp_path / "router")


def test_another_tokenizer_is_refused(tmp_path):
    _ridge().save_pretrained(tmp_path / "router")
    word_tokenizer(prefix="x").save(tmp_path / "router")
    config = json.loads((tmp_path / "router" / "config.json").read_text())
    for name in config["files"]:  # somebody put another tokenizer in, and made the hashes fit
        config["files"][name] = hashlib.sha256(_file(tmp_path / "router", name).read_bytes()).hexdigest()
    (tmp_path / "router" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="was made for another tokenizer than is there now"):
        load_router(tmp_path / "router")


def test_a_router_of_another_class_or_no_router_is_refused(tmp_path):
    _ridge().save_pretrained(tmp_path / "router")
    with pytest.raises(ValueError, match="Expected a NaiveBayesRouter"):
        NaiveBayesRouter.from_pretrained(tmp_path / "router")
    with pytest.raises(FileNotFoundError, match="Expected a saved router"):
        load_router(tmp_path)


def test_an_unfitted_router_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="fitted router to save"):
        RidgeRouter(embeddings=embeddings()).save_pretrained(tmp_path / "router")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_embedding_table_with_nan_is_refused_and_its_row_named(bad):
    table_VD = embeddings().table_VD.clone()
    table_VD[7, 2] = bad
    with pytest.raises(ValueError, match="row of token id 7"):
        Embeddings("x", word_tokenizer(), table_VD)


def test_a_tokenizer_that_does_not_fit_the_table_is_refused():
    with pytest.raises(ValueError, match="20 entries, but its embedding table has 19 rows"):
        Embeddings("x", word_tokenizer(20), embeddings().table_VD[:19])
