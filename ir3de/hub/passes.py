"""How often a config's commands run which experts over how many tokens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jsonargparse import Namespace

from ir3de.hub.facts import Architecture
from ir3de.hub.models import Sized, expert_sizes
from ir3de.hub.requirements import bank_of, read_by_experts, router_configs
from ir3de.hub.workload import SplitSizes, evaluated, known_tasks


@dataclass(frozen=True)
class Pass:
    """Tokens that each of some models reads once, in one precision."""

    models: Sequence[Architecture]
    tokens: int
    dtype: torch.dtype
    why: str


@dataclass(frozen=True)
class Answers:
    """What each of some models reads, and at most writes, when it answers every question."""

    models: Sequence[Architecture]
    questions: int
    read: int
    written: int
    why: str


def weight_average(experts: Mapping[str, Sized], config: Namespace) -> list[Architecture]:
    """Return the average of the experts' weights, as a model more, where they are known to be of one architecture."""
    kinds = {one.architecture for one in experts.values()}
    return list(kinds) if len(kinds) == 1 and len(experts) == len(bank_of(config)) > 1 else []


def loss_passes(config: Namespace, sizes: Mapping[str, SplitSizes]) -> list[Pass]:
    """Return the passes that the table of losses takes."""
    experts = expert_sizes(config)
    models, average = [one.architecture for one in experts.values()], weight_average(experts, config)
    tokens = sum(evaluated(config, one, "test")[0] for one in sizes.values())
    losses, own = config.experts.losses.dtype, config.faults.own_dtype
    with_average = " and the average of their weights" if average else ""
    passes = [Pass([*models, *average], tokens, getattr(torch, losses), f"{len(models)} experts{with_average}")]
    if own not in (None, losses):
        passes.append(Pass(models, tokens, getattr(torch, own), f"{len(models)} experts again in {own}"))
    return passes


def fit_passes(config: Namespace, sizes: Mapping[str, SplitSizes], command: str) -> Iterator[Pass]:
    """Yield the passes that fits of a command's routers take: each sample of sequences is run once."""
    models = [one.architecture for one in expert_sizes(config).values()]
    samples = {read_by_experts(router) for router in router_configs(config, command).values()} - {None}
    for split, limit in sorted(one for one in samples if one is not None):
        tokens = sum(_sampled(config, one, split, limit) for one in sizes.values())
        why = f"{len(models)} experts, {limit} {split} sequences of each domain"
        yield Pass(models, tokens, getattr(torch, config.experts.losses.dtype), why)


def _sampled(config: Namespace, sizes: SplitSizes, split: str, limit: int) -> int:
    whole = sizes.tokens[split], sizes.sequences[split]
    tokens, sequences = whole if split == "train" else evaluated(config, sizes, split)
    return tokens if limit >= sequences else round(tokens * limit / sequences)


def answers(config: Namespace) -> Answers | None:
    """Return what ``scores`` asks of every expert, or None where a task is not known here."""
    settings, questions, read, written = config.reasoning, 0, 0, 0
    for name in settings.tasks:
        tasks = known_tasks(config, name)
        if tasks is None:
            return None
        for task, number in tasks:
            shots = task.shots if task.shots == 0 else settings.num_fewshot.get(name, task.shots or 0)
            if settings.bare_prompts and not task.options:
                shots = 0
            prompt = shots * task.example + task.question
            questions += number
            if task.options:
                read += number * task.options * (prompt + task.answer)
            else:
                read += number * prompt
                written += number * (settings.max_new_tokens or task.answer)
    experts = expert_sizes(config)
    models = [one.architecture for one in experts.values()]
    average = weight_average(experts, config) if settings.average else []
    with_average = " and of the average of their weights" if average else ""
    return Answers([*models, *average], questions, read, written, f"of each of {len(models)} experts{with_average}")
