"""Metrics against plain sums, per batch, aggregated, and reduced over two processes."""

import math
import tempfile

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ir3de.metrics import DomainQuality, NormalizedPerformance, Regret, RoutingConfusion

NUM_DOMAINS = 3


def _data(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens_N = torch.randint(1, 50, (n,), generator=generator)
    nll_NE = tokens_N[:, None] * (1 + 3 * torch.rand(n, NUM_DOMAINS, generator=generator, dtype=torch.float64))
    domain_N = torch.randint(NUM_DOMAINS, (n,), generator=generator)
    expert_N = torch.randint(NUM_DOMAINS, (n,), generator=generator)
    return nll_NE, tokens_N, domain_N, expert_N


def _expected(nll_NE, tokens_N, domain_N, expert_N):
    routed, own, right, total = ([0.0] * NUM_DOMAINS for _ in range(4))
    tokens, excess = [0] * NUM_DOMAINS, 0.0
    for nll, n, d, e in zip(nll_NE.tolist(), tokens_N.tolist(), domain_N.tolist(), expert_N.tolist(), strict=True):
        routed[d] += nll[e]
        own[d] += nll[d]
        tokens[d] += n
        excess += nll[e] - min(nll)
        right[d] += d == e
        total[d] += 1
    perplexity = [math.exp(r / t) for r, t in zip(routed, tokens, strict=True)]
    best = [math.exp(o / t) for o, t in zip(own, tokens, strict=True)]
    return {
        "perplexity": perplexity,
        "performance": sum(100 * b / p for b, p in zip(best, perplexity, strict=True)) / NUM_DOMAINS,
        "regret": excess / sum(tokens),
        "accuracy": 100 * sum(right) / sum(total),
        "accuracy_mean": sum(100 * r / t for r, t in zip(right, total, strict=True)) / NUM_DOMAINS,
    }


def _measure(data, batches):
    nll_NE, tokens_N, domain_N, expert_N = data
    metrics = (
        DomainQuality(num_domains=NUM_DOMAINS),
        NormalizedPerformance(num_domains=NUM_DOMAINS),
        Regret(),
        RoutingConfusion(num_domains=NUM_DOMAINS),
    )
    perplexity, performance, regret, confusion = metrics
    for rows in batches:
        nll_B, own_B = (nll_NE[rows].gather(1, i[rows][:, None]).squeeze(1) for i in (expert_N, domain_N))
        perplexity.update(nll_B, tokens_N[rows], domain_N[rows])
        performance.update(nll_B, own_B, tokens_N[rows], domain_N[rows])
        regret.update(nll_B, nll_NE[rows].min(dim=1).values, tokens_N[rows])
        confusion.update(expert_N[rows], domain_N[rows])
    accuracy = confusion.accuracy()
    return {
        "perplexity": perplexity.compute().tolist(),
        "performance": float(performance.compute()),
        "regret": float(regret.compute()),
        "accuracy": float(accuracy["routing_accuracy"]),
        "accuracy_mean": float(accuracy["routing_accuracy_mean"]),
    }


def _check(measured, expected):
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, rel=1e-12), name


@pytest.mark.parametrize("size", [1, 7, 40])
def test_metrics_agree_with_plain_sums_whatever_the_batches(size):
    data = _data()
    batches = [slice(i, i + size) for i in range(0, 40, size)]
    _check(_measure(data, batches), _expected(*data))


def _rank(rank, world_size, store):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    data = _data()
    mine = [slice(0, 13), slice(13, 20)] if rank == 0 else [slice(20, 40)]
    _check(_measure(data, mine), _expected(*data))
    dist.destroy_process_group()


def test_two_ranks_measure_what_one_does():
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, args=(2, f"{folder}/store"), nprocs=2)  # a failed check in a rank raises here


def test_a_domain_without_sequences_is_left_out_of_means():
    performance = NormalizedPerformance(num_domains=3)
    performance.update(torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor([1]), torch.tensor([1]))
    assert float(performance.compute()) == pytest.approx(100 * math.exp(-1))
    confusion = RoutingConfusion(num_domains=3)
    confusion.update(torch.tensor([1, 0]), torch.tensor([1, 1]))
    assert float(confusion.accuracy()["routing_accuracy_mean"]) == 50


def test_reset_forgets():
    performance = NormalizedPerformance(num_domains=1)
    for value in (5.0, 1.0):
        performance.reset()
        performance.update(torch.tensor([value]), torch.tensor([1.0]), torch.tensor([1]), torch.tensor([0]))
    assert float(performance.compute()) == pytest.approx(100)
