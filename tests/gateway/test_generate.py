"""How a local model goes on with a prompt: token by token, and its text as it comes."""

import math
import random

import pytest
import torch
from tokenizers import Tokenizer, decoders, models

from ir3de.gateway.answers import ExpertFailed
from ir3de.gateway.generate import Sampling, generate, next_token
from ir3de.gateway.text_pieces import text_pieces
from tests.gateway.local_experts import tiny_llama
from tests.serving.routers import byte_pair_tokenizer


def test_top_p_keeps_the_likeliest_tokens_and_draws_by_probability():
    logits_V = torch.tensor([0.1, 0.5, 0.25, 0.15]).log()
    generator = torch.Generator().manual_seed(0)

    def drawn(**options):
        ids = [next_token(logits_V, Sampling(**options), generator) for _ in range(4000)]
        return torch.bincount(torch.tensor(ids), minlength=4) / 4000

    assert torch.allclose(drawn(), logits_V.exp(), atol=0.03)
    assert torch.allclose(drawn(top_p=0.7), torch.tensor([0, 2 / 3, 1 / 3, 0]), atol=0.03)
    assert drawn(top_p=0.0).tolist() == drawn(temperature=0).tolist() == [0, 1, 0, 0]
    assert torch.allclose(drawn(temperature=0.5), torch.softmax(logits_V * 2, 0), atol=0.03)


@pytest.mark.parametrize(
    "logits, likeliest",
    [
        ([0.0, 5.0, -3.0], {1}),
        ([1e4, 3e4, 3e4 - 64], {1}),
        ([-math.inf, 1.0, -math.inf], {1}),
        ([math.inf, 1.0, -math.inf], {0}),
        ([math.inf, 1.0, math.inf], {0, 2}),
        ([3.4e38, -3.4e38, -math.inf], {0}),
        ([-3e38, -3.4e38, -math.inf], {0}),
    ],
)
def test_every_temperature_and_every_infinite_logit_gives_a_token(logits, likeliest):
    generator = torch.Generator().manual_seed(0)
    for temperature in (0.0, 5e-324, 1e-46, 1e-40, 1.2e-38, 1e-30, 1e-6, 1.0, 2.0):
        for top_p in (0.0, 1e-40, 0.3, 0.9999999, 1.0):
            sampling = Sampling(temperature=temperature, top_p=top_p)
            drawn = {next_token(torch.tensor(logits), sampling, generator) for _ in range(5)}
            if temperature < 1e-5 or top_p <= 0.3 or max(logits) > 9:
                assert drawn <= likeliest
            assert all(logits[token] > -math.inf for token in drawn)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("logits", [[1.0, math.nan, 2.0], [math.nan] * 3, [-math.inf] * 3])
def test_logits_that_are_not_numbers_are_the_experts_failure(logits, temperature):
    with pytest.raises(ExpertFailed, match="garbage: logits that are not numbers"):
        next_token(torch.tensor(logits), Sampling(temperature=temperature), torch.Generator())


def test_generation_ends_at_the_end_of_text():
    model = tiny_llama()
    ids = list(generate(model, [1, 2], sampling=Sampling(temperature=0), max_tokens=20, end_ids=frozenset()))
    cut = list(generate(model, [1, 2], sampling=Sampling(temperature=0), max_tokens=20, end_ids=frozenset({ids[4]})))
    assert cut == ids[: ids.index(ids[4]) + 1]


TEXT = "déjà vu: 🙂👍🏽 速い <|end|>  stop here, or stop there.\n"


@pytest.mark.parametrize(
    "stops", [[], ["stop there"], [" here", "zz"], ["🙂"], ["déjà vu: 🙂👍🏽 速い   stop here, or xx"]]
)
def test_pieces_are_whole_characters_and_end_before_a_stop(stops):
    tokenizer = byte_pair_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    ids = tokenizer.encode(TEXT).ids
    whole = tokenizer.decode(ids)
    ends = [whole.index(stop) for stop in stops if stop in whole]
    pieces = list(text_pieces(ids, tokenizer, stops=stops))
    assert "".join(text for text, _ in pieces) == whole[: min(ends, default=len(whole))]
    assert [stopped for _, stopped in pieces].count(True) == bool(ends)
    assert "�" not in "".join(text for text, _ in pieces)


def test_a_piece_goes_on_with_the_prompt():
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "▁a": 2, "▁b": 3}, unk_token="a"))
    tokenizer.decoder = decoders.Metaspace()
    assert [text for text, _ in text_pieces([3, 1], tokenizer, stops=[], prompt=[2])] == [" b", "b"]
    assert [text for text, _ in text_pieces([3, 1], tokenizer, stops=[])] == ["b", "b"]


def byte_fallback_tokenizer():
    """Return a tokenizer as Llama 2's: what has no token of its own becomes bytes."""
    vocabulary = (
        {"<unk>": 0} | {f"<0x{byte:02X}>": 1 + byte for byte in range(256)} | {"▁": 257, "e": 258, "▁stop": 259}
    )
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    return tokenizer


def test_bytes_become_characters_and_broken_ones_raise_nothing():
    tokenizer = byte_fallback_tokenizer()
    ids = [257, *(1 + byte for byte in TEXT.encode()), 259]
    assert "".join(text for text, _ in text_pieces(ids, tokenizer, stops=[])) == f"{TEXT} stop"
    assert [text for text, _ in text_pieces([1 + ord("A"), 1 + 0xE9, 258], tokenizer, stops=[])] == ["A", "", "\ufffde"]
    draw = random.Random(0)
    for _ in range(200):
        ids = [draw.randrange(270) for _ in range(40)]
        pieces = list(text_pieces(ids, tokenizer, stops=["zz"], prompt=ids[:9]))
        assert len(pieces) >= len(ids)
