"""Compiled tables decide as the routers they were made from, bit for bit, and refuse what those refuse."""

import numpy as np
import pytest
import torch

from ir3de.compiling.router import compile_router
from ir3de.routers import RidgeRouter, load_router
from ir3de.serving import CompiledRouter, Window
from tests.helpers import reference
from tests.helpers.counts import random_share, statistics
from tests.helpers.text import embeddings
from tests.serving.routers import KINDS, WIDE, WORDS, fitted, random_prompts, saved


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """A router, and what it was compiled to."""
    folder = saved(tmp_path_factory.mktemp("router"), request.param)
    compiled = CompiledRouter.load(compile_router(str(folder)))
    compiled.folder = folder / "compiled"
    return load_router(folder), compiled


def test_thousands_of_prompts_are_decided_alike_bit_for_bit(pair):
    router, compiled = pair
    prompts = random_prompts(3000)
    for first in range(0, len(prompts), 500):
        part = prompts[first : first + 500]
        expected_B, scores_BE = router.route(part).expert_B.tolist(), router.scores(part).numpy()
        for dtype in (np.int64, np.int32, np.uint32, np.uint16, np.uint64):
            assert [compiled.decide(ids.astype(dtype)) for ids in part] == expected_B
        assert np.array_equal(np.stack([compiled.table.scores(ids) for ids in part]), scores_BE)


def test_ragged_prompts_without_padding_are_decided_as_one_by_one(pair):
    router, compiled = pair
    prompts = random_prompts(300, seed=1)
    offsets = np.cumsum([0, *(len(ids) for ids in prompts)])
    decided_N = compiled.decide_many(np.concatenate(prompts), offsets)
    assert decided_N.tolist() == router.route(prompts).expert_B.tolist()
    assert compiled.decide_many(np.concatenate(prompts), offsets[3:9]).tolist() == decided_N[3:8].tolist()
    for bad in (np.array([0, 2, 2, 4]), np.array([0, 1, len(prompts[0]) + 1])):
        with pytest.raises(ValueError, match=r"at least one token|got -1"):
            compiled.decide_many(np.concatenate([prompts[0], [-1] * 9]), bad)
    assert compiled.decide_many(np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64)).tolist() == []


@pytest.mark.parametrize("kind", [np.int32, np.uint8, np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("window", [None, Window("first", 4, "tokens")])
def test_any_integers_are_offsets(pair, kind, window):
    _, compiled = pair
    compiled = CompiledRouter.load(compiled.folder, window=window)
    prompts = random_prompts(6, seed=2, longest=20)
    offsets = np.cumsum([0, *(len(ids) for ids in prompts)])
    expected = [compiled.decide(ids) for ids in prompts]
    assert compiled.decide_many(np.concatenate(prompts), offsets.astype(kind)).tolist() == expected
    assert compiled.decide_many(np.concatenate(prompts).tolist(), offsets.tolist()).tolist() == expected


@pytest.mark.parametrize("window", [None, Window("first", 4, "tokens")])
@pytest.mark.parametrize("ids, offsets, message", [
    pytest.param([1, 2, 3, 4, 5], [0, 2, 9], "at most 5, the number of ids, but got", id="an end beyond"),
    pytest.param([1, 2, 3, 4, 5], [7, 9], "at most 5", id="a start beyond"),
    pytest.param([1, 2, 3, 4, 5], [-3, 5], "from 0 or more", id="negative"),
    pytest.param([1, 2, 3, 4, 5], [0, 3, 2, 5], "that ascend", id="back"),
    pytest.param([1, 2, 3, 4, 5], np.array([0, 2**63 + 1, 5], dtype=np.uint64), "that ascend", id="beyond 63 bits"),
    pytest.param([1, 2, 3, 4, 5], [], "at least one integer", id="no offsets"),
    pytest.param([1, 2, 3, 4, 5], [0.0, 5.0], "at least one integer, but got float64", id="floats"),
    pytest.param([1, 2, 3, 4, 5], [[0, 5]], r"of shape \(1, 2\)", id="two rows of offsets"),
    pytest.param([1, 2, 3, 4, 5], 5, "at least one integer", id="a number"),
    pytest.param([[1, 2, 3], [4, 5, 6]], [0, 2], "one row of token ids", id="two rows of ids"),
    pytest.param([1.0, 2.0, 3.0], [0, 1, 3], "one row of token ids", id="floats for ids"),
])  # fmt: skip
def test_offsets_that_are_none_are_refused(pair, ids, offsets, message, window):
    _, compiled = pair
    with pytest.raises(ValueError, match=message):
        CompiledRouter.load(compiled.folder, window=window).decide_many(np.array(ids), np.array(offsets))


def test_lists_and_routes_say_the_same_as_decisions(pair):
    router, compiled = pair
    prompts = random_prompts(200, seed=2)
    for ids, route in zip(prompts, compiled.stream(iter(prompts)), strict=True):
        assert compiled.decide(ids.tolist()) == compiled.decide(ids) == route.expert_index
        assert route.expert == router.expert_names[route.expert_index]
        assert (route.tokens, route.window) == (len(ids), None)
        assert 0 < route.confidence < 1


@pytest.mark.parametrize("ids", [[0], [5] * 40, list(range(WORDS)), [WORDS - 1] * 2, [3, 3, 4, 4]], ids=str)
def test_edges_are_decided_as_token_by_token(pair, ids):
    router, compiled = pair
    table = torch.tensor([list(router.scores([[v]])[0]) for v in range(WORDS)])
    if router.selector == "mean":
        assert compiled.decide(ids) == reference.route(ids, table.tolist(), "mean")[0]
    assert compiled.decide(ids) == int(router.route([ids]).expert_B)


BAD = [
    pytest.param([], "at least one token", id="empty"),
    pytest.param([-1], "got -1", id="minus one"),
    pytest.param([3, -WORDS], f"got -{WORDS}", id="a whole vocabulary below"),
    pytest.param([WORDS], f"got {WORDS}", id="one too many"),
    pytest.param(np.array([1, -5], dtype=np.int32), "got -5", id="int32"),
    pytest.param(np.array([1, -5], dtype=np.int8), "got -5", id="int8"),
    pytest.param(np.array([2, 2**32 - 1], dtype=np.uint32), "got 4294967295", id="uint32"),
    pytest.param(np.array([2, 2**63 + 2], dtype=np.uint64), "got 92233720", id="uint64"),
    pytest.param([1, 2**62], "got 46116860", id="int64"),
    pytest.param([1, -(2**63)], "got -92233720", id="lowest int64"),
    pytest.param([2**63 - 1], "got 92233720", id="highest int64"),
    pytest.param([1.0, 2.0], "one row of token ids", id="floats"),
    pytest.param([[1, 2], [3, 4]], "one row of token ids|deep", id="two rows"),
]


@pytest.mark.parametrize("ids, message", BAD)
def test_what_is_no_prompt_is_refused_in_every_call(pair, ids, message):
    _, compiled = pair
    for call in (compiled.decide, compiled.table.scores, compiled.table.contributions, compiled.route):
        with pytest.raises(ValueError, match=message):
            call(ids)


def test_contributions_add_up_to_the_scores_exactly(pair):
    _, compiled = pair
    for ids in random_prompts(300, seed=3):
        given_TE, divisor = compiled.table.contributions(ids)
        total_E = np.zeros(3)
        for given_E in given_TE:
            total_E += given_E
        assert np.array_equal(total_E / divisor, compiled.table.scores(ids))


@pytest.mark.parametrize("selector, k", [("majority", None), ("entropy_top_k", 5), ("mean", None)])
@pytest.mark.parametrize("dim", [6, 150], ids=["more experts than features", "fewer"])
def test_many_experts_are_decided_alike(tmp_path, selector, k, dim):
    table = embeddings(WORDS, dim)
    router = RidgeRouter(embeddings=table, selector=selector, k=k)
    shares = {f"e{i:03}": random_share(i, num_words=WORDS, validation=0) for i in range(WIDE)}
    router.fit(statistics(shares, num_words=WORDS))
    router.save_pretrained(tmp_path)
    compiled = CompiledRouter.load(compile_router(str(tmp_path)))
    prompts = random_prompts(400, seed=4)
    scores_BE = router.scores(prompts).numpy()
    if selector == "mean" and dim < WIDE:  # the product is another library's
        np.testing.assert_allclose([compiled.table.scores(ids) for ids in prompts], scores_BE, rtol=1e-9, atol=1e-12)
        given_TE, divisor = compiled.table.contributions(prompts[0])
        np.testing.assert_allclose(given_TE.sum(axis=0) / divisor, scores_BE[0], rtol=1e-9, atol=1e-12)
        with pytest.raises(ValueError, match="got -1"):
            compiled.decide([3, -1])
    else:
        assert np.array_equal([compiled.table.scores(ids) for ids in prompts], scores_BE)
        assert [compiled.decide(ids) for ids in prompts] == router.route(prompts).expert_B.tolist()


def test_a_prompt_that_is_longer_than_a_tally_has_the_same_scores(tmp_path):
    compiled = CompiledRouter.load(compile_router(str(saved(tmp_path, "mean"))))
    ids = np.random.default_rng(0).integers(0, WORDS, 40_000)
    assert np.array_equal(compiled.table.scores(ids), fitted("mean").scores([ids]).numpy()[0])
