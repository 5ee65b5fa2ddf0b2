"""A window gives the same decision in every call, or is refused where there is nothing that it could cut."""

import numpy as np
import pytest

from ir3de.compiling.router import compile_router
from ir3de.serving import CompiledRouter, Window
from tests.serving.routers import byte_pair_router, byte_pair_tokenizer, saved


def test_a_text_is_decided_as_it_is_routed_where_bytes_have_no_token(tmp_path, quick_check):
    tokenizer = byte_pair_tokenizer("split", alphabet=False)
    window = Window("spread", 8, "tokens")
    router = CompiledRouter.load(compile_router(str(byte_pair_router(tmp_path, tokenizer))), window=window)
    assert router.reader.name == "tiktoken"
    draw = np.random.default_rng(0)
    words = np.array(["The", " quick", " brown", " fox", " don't", " jump", " over", " lazy", " dogs", " def"])
    texts = []
    for _ in range(500):
        picked = draw.choice(words, size=30)
        picked[draw.integers(5, 25, size=3)] = "\u2603"  # a snowman: some of its bytes have no token
        texts.append("".join(picked))
    assert [router.decide_text(text) for text in texts] == [router.route(text).expert_index for text in texts]


@pytest.mark.parametrize("keep", ["first", "last"])
def test_ids_are_refused_where_the_window_is_in_characters(tmp_path, keep):
    compiled = compile_router(str(saved(tmp_path, "majority")))
    router = CompiledRouter.load(compiled, window=Window(keep, 30, "characters"))
    ids = np.arange(1, 11)
    for decide in (router.route, router.decide, lambda ids_T: router.decide_many(ids_T, [0, 5, 10])):
        with pytest.raises(ValueError, match="Expected text for a window of 30 characters, but got token ids"):
            decide(ids)
    assert router.decide_text("w1 w2") == CompiledRouter.load(compiled).decide(np.array([1, 2]))


def test_an_id_that_is_not_read_is_not_checked(tmp_path):
    router = CompiledRouter.load(compile_router(str(saved(tmp_path, "majority"))), window=Window("first", 2, "tokens"))
    ids = np.array([1, 2, 999_999])
    assert router.route(ids).expert_index == router.decide(ids) == router.decide_many(ids, [0, 3])[0]
    for decide in (router.route, router.decide, lambda ids_T: router.decide_many(ids_T, [0, 3])):
        with pytest.raises(ValueError, match="but got 999999"):
            decide(ids[::-1])
