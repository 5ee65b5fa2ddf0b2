"""Losses for tests of the verdict."""

import torch

from ir3de.experts.loss_table import LossTable

NAMES = ("code", "law", "maths")


def made_up_losses(n=30, seed=0):
    """Return a loss table of three experts, each mostly the best on its own domain, and an average of weights."""
    generator = torch.Generator().manual_seed(seed)
    tokens_N = torch.randint(5, 60, (n,), generator=generator)
    per_token = 2 + torch.rand(n, 4, generator=generator, dtype=torch.float64)
    domain_N = torch.arange(n) % 3
    per_token[torch.arange(n), domain_N] -= 0.5
    nll = per_token * tokens_N[:, None]
    return LossTable(nll[:, :3].contiguous(), tokens_N, domain_N, NAMES, "key", nll[:, 3].contiguous())
