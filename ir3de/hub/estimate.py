"""``estimate``: what a config's commands will take, in bytes and in time, before any of them is run."""

from collections.abc import Iterator, Mapping

import torch
from huggingface_hub import constants
from jsonargparse import Namespace
from rich.table import Table

from ir3de.console import console
from ir3de.data.splits import SPLITS
from ir3de.experts.bank import WEIGHT_AVERAGE
from ir3de.experts.memory import choose_residence, free_bytes
from ir3de.hub.facts import known_bytes, size_text
from ir3de.hub.fetched import fetched_by_commands
from ir3de.hub.models import expert_sizes, router_table
from ir3de.hub.passes import weight_average
from ir3de.hub.present import is_present
from ir3de.hub.requirements import bank_of, requirements
from ir3de.hub.times import Row, device_of, dtype_of, times
from ir3de.hub.workload import SplitSizes, domain_sizes, evaluated, planned_sizes, prepared_text


def estimate(config: Namespace) -> None:
    """Estimate bytes, memory and time of a config's commands, from rates measured now on this machine.

    Nothing is fetched and nothing has to be there; every number says what it rests on.

    Args:
        config: The parsed config.
    """
    out = console()
    table = Table(title=f"What {config.name} takes on this machine ({device_of(config)})")
    for column in ("what", "estimate", "rests on"):
        table.add_column(column, overflow="fold")
    domains = {name: domain_sizes(config, name) for name in config.data.domains}
    sizes = {name: one for name, one in domains.items() if one is not None}
    with out.status("Measuring this machine"):
        for rows in (_text(config, sizes), _bytes(config), _memory(config), times(config, sizes)):
            for row in rows:
                table.add_row(*row)
            table.add_section()
    out.print(table)


def _text(config: Namespace, sizes: Mapping[str, SplitSizes]) -> Iterator[Row]:
    if len(sizes) < len(config.data.domains):
        unknown = [name for name in config.data.domains if name not in sizes]
        yield "tokens", "known once the text is read", f"nothing tells the size of {', '.join(unknown)}"
    if not sizes:
        return
    basis = ", ".join(sorted({one.basis for one in sizes.values()}))
    most = "at most " if any(one.bound == "at most" for one in sizes.values()) else ""
    for split in SPLITS:
        tokens = sum(one.tokens[split] for one in sizes.values())
        yield f"tokens for {split}", f"{most}{tokens:,} in {len(sizes)} domains", basis
    read = [evaluated(config, one, "test") for one in sizes.values()]
    yield (
        "test tokens evaluated",
        f"{most}{sum(t for t, _ in read):,} in {sum(n for _, n in read):,} sequences",
        (f"{basis}; data.max_test_blocks {config.data.max_test_blocks}"),
    )


def _bytes(config: Namespace) -> Iterator[Row]:
    wanted = [one for one in requirements(config) if one.on_the_hub]
    for title, chosen in (
        ("to download", [one for one in wanted if not is_present(one)]),
        ("of the hub, here already", [one for one in wanted if is_present(one)]),
    ):
        known = [known_bytes(one.repository, tokenizer=one.kind == "tokenizer") for one in chosen]
        unknown = [one.source for one, size in zip(chosen, known, strict=True) if size is None]
        text = size_text(sum(size or 0 for size in known), about=True) if chosen else "nothing"
        note = f"; of unknown size: {', '.join(unknown)}" if unknown else ""
        yield title, f"{text} ({len(chosen)} of {len(wanted)})", f"published sizes, by `download`{note}"
    for one in fetched_by_commands(config):
        yield one.kind, one.size, f"{one.source}, for {', '.join(one.purposes)}; fetched by `{one.command}`"
    names = list(config.data.domains)
    planned = [planned_sizes(config, name) for name in names]
    bases = ", ".join(dict.fromkeys(one.basis for one in planned if one is not None))
    if bases:
        yield "prepared data", prepared_text(config, names), f"{bases}; not compressed"
    yield "cache of models", str(constants.HF_HUB_CACHE), "HF_HOME and HF_HUB_CACHE"


def _memory(config: Namespace) -> Iterator[Row]:
    used = router_table(config)
    if used is not None:
        vocabulary, hidden = used.architecture.vocabulary, used.architecture.hidden
        of = f"{vocabulary:,} by {hidden:,}, {used.basis}"
        yield "embedding table", size_text(vocabulary * hidden * 4), f"{of}, float32"
        yield "Gram matrix", size_text((hidden + 1) ** 2 * 8), f"{hidden + 1:,} squared, float64"
        counts = vocabulary * len(config.data.domains) * 8
        yield "token counts", size_text(counts), f"{len(config.data.domains)} domains, int64"
    experts = expert_sizes(config)
    width = torch.empty(0, dtype=dtype_of(config)).element_size()
    weights = {name: one.architecture.parameters * width for name, one in experts.items()}
    if not weights:
        yield "experts", "unknown", "nothing tells their size before they are here"
        return
    basis = ", ".join(sorted({one.basis for one in experts.values()}))
    for average in weight_average(experts, config):  # a baseline that is in memory like an expert
        weights[WEIGHT_AVERAGE] = average.parameters * width
    yield "the largest expert", size_text(max(weights.values())), f"{basis}; experts.losses.dtype {dtype_of(config)}"
    with_average = ", and the average of their weights" if WEIGHT_AVERAGE in weights else ""
    yield "all experts", size_text(sum(weights.values())), f"{len(experts)} of {len(bank_of(config))}{with_average}"
    free = free_bytes(device_of(config))
    try:
        sentence = choose_residence(weights, free, config.experts.losses.residence)[1]
    except ValueError as error:
        sentence = str(error)
    yield "do they fit", sentence, "free memory read now; experts.losses.residence"
