"""A local model goes on with a prompt, one token at a time, so that it can stop at any of them."""

import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ir3de.gateway.answers import ExpertFailed

_FLOAT32 = torch.finfo(torch.float32)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen: ``temperature`` 0 takes the likeliest; ``top_p`` keeps the likeliest ones."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None


def generate(
    model: PreTrainedModel, ids: Sequence[int], *, sampling: Sampling, max_tokens: int, end_ids: frozenset[int]
) -> Iterator[int]:
    """Yield up to ``max_tokens`` new token ids; one of ``end_ids`` is the last.

    Equal seeds give equal tokens, whatever else runs.

    Raises:
        ExpertFailed: if the model writes no numbers.
    """
    generator = torch.Generator(device=model.device)
    generator.seed() if sampling.seed is None else generator.manual_seed(sampling.seed)
    forward: Any = model
    options: dict[str, Any] = {"use_cache": True}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = 1  # of the prompt's positions only the last is needed
    input_ids, cache = torch.tensor([list(ids)], device=model.device), None
    for _ in range(max_tokens):
        with torch.inference_mode():  # not around the yield: it would leak into whoever takes the token
            output = forward(input_ids=input_ids, past_key_values=cache, **options)
            cache = output.past_key_values
            token = next_token(output.logits[0, -1].float(), sampling, generator)
        yield token
        if token in end_ids:
            return
        input_ids = torch.tensor([[token]], device=model.device)


def next_token(logits_V: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """Return a token drawn from ``logits_V`` ``(V,)``, float32; some may be infinite, as float16 makes them.

    Raises:
        ExpertFailed: if one is not a number, or none is above -inf.
    """
    logits_V = logits_V.clamp(max=_FLOAT32.max)  # two that are inf are alike, and inf - inf is not a number
    highest = float(logits_V.max())  # which is not a number, if one of them is not
    if not highest > -math.inf:
        raise ExpertFailed("garbage", "logits that are not numbers")
    if sampling.temperature < _FLOAT32.tiny:  # next to nothing is as good as nothing
        return int(logits_V.argmax())
    p_V = torch.softmax((logits_V - highest) / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        ordered_V, place_V = p_V.sort(descending=True, stable=True)
        before_V = ordered_V.cumsum(dim=-1) - ordered_V
        kept_V = torch.where(before_V < sampling.top_p, ordered_V, 0)
        kept_V[0] = ordered_V[0]  # however little is to be kept
        p_V = torch.zeros_like(p_V).scatter_(0, place_V, kept_V)
    return int(torch.multinomial(p_V, 1, generator=generator))
