"""``estimate``: what a config's commands will take, in bytes and in time, before any of them is run."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from jsonargparse import Namespace
from rich.table import Table

from ir3de.console import console
from ir3de.data.bpe import train_bpe
from ir3de.data.splits import SPLITS
from ir3de.experts.bank import WEIGHT_AVERAGE
from ir3de.experts.memory import choose_residence, free_bytes
from ir3de.hub.facts import known_bytes, size_text
from ir3de.hub.measure import counting_rate, forward_rate, ridge_seconds, tokenizing_rate
from ir3de.hub.models import Sized, expert_sizes, model_size, table_size
from ir3de.hub.present import is_present
from ir3de.hub.requirements import Requirement, bank_of, requirements, router_configs
from ir3de.hub.workload import SplitSizes, domain_sizes, evaluated, prepared_bytes
from ir3de.pretrained.loading import load_tokenizer

_SAMPLE = 300_000  # characters to tokenize: this package's own source
Row = tuple[str, str, str]


def estimate(config: Namespace) -> None:
    """Estimate bytes, memory and time of a config's commands, from rates measured now on this machine.

    Nothing is fetched and nothing has to be there; every number says what it rests on.

    Args:
        config: The parsed config.
    """
    out = console()
    table = Table(title=f"What {config.name} takes on this machine ({_device(config)})")
    for column in ("what", "estimate", "rests on"):
        table.add_column(column, overflow="fold")
    domains = {name: domain_sizes(config, name) for name in config.data.domains}
    sizes = {name: one for name, one in domains.items() if one is not None}
    with out.status("Measuring this machine"):
        for rows in (_text(config, sizes), _bytes(config), _memory(config), _times(config, sizes)):
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
    for split in SPLITS:
        tokens = sum(one.tokens[split] for one in sizes.values())
        yield f"tokens for {split}", f"{tokens:,} in {len(sizes)} domains", basis
    read = [evaluated(config, one, "test") for one in sizes.values()]
    yield (
        "test tokens evaluated",
        f"{sum(t for t, _ in read):,} in {sum(n for _, n in read):,} sequences",
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
        yield title, f"{text} ({len(chosen)} of {len(wanted)})", f"published sizes, for all commands{note}"
    prepared = prepared_bytes(config.setting, len(config.data.domains))
    if prepared is not None:
        yield "prepared data", size_text(prepared, about=True), "the paper's sizes, two int32 a token, not compressed"
    yield "cache of models", str(constants.HF_HUB_CACHE), "HF_HOME and HF_HUB_CACHE"


def _memory(config: Namespace) -> Iterator[Row]:
    used = _table_of_router(config)
    if used is not None:
        vocabulary, hidden = used.architecture.vocabulary, used.architecture.hidden
        of = f"{vocabulary:,} by {hidden:,}, {used.basis}"
        yield "embedding table", size_text(vocabulary * hidden * 4), f"{of}, float32"
        yield "Gram matrix", size_text((hidden + 1) ** 2 * 8), f"{hidden + 1:,} squared, float64"
        counts = vocabulary * len(config.data.domains) * 8
        yield "token counts", size_text(counts), f"{len(config.data.domains)} domains, int64"
    experts = expert_sizes(config)
    width = torch.empty(0, dtype=_dtype(config)).element_size()
    weights = {name: one.architecture.parameters * width for name, one in experts.items()}
    if not weights:
        yield "experts", "unknown", "nothing tells their size before they are here"
        return
    basis = ", ".join(sorted({one.basis for one in experts.values()}))
    if len({one.architecture for one in experts.values()}) == 1 and len(experts) > 1:
        weights[WEIGHT_AVERAGE] = weights[next(iter(experts))]  # a baseline that `compare` has in memory like an expert
    yield "the largest expert", size_text(max(weights.values())), f"{basis}; experts.losses.dtype {_dtype(config)}"
    with_average = ", and the average of their weights" if WEIGHT_AVERAGE in weights else ""
    yield "all experts", size_text(sum(weights.values())), f"{len(experts)} of {len(bank_of(config))}{with_average}"
    free = free_bytes(_device(config))
    try:
        sentence = choose_residence(weights, free, config.experts.losses.residence)[1]
    except ValueError as error:
        sentence = str(error)
    yield "do they fit", sentence, "free memory read now; experts.losses.residence"


def _times(config: Namespace, sizes: Mapping[str, SplitSizes]) -> Iterator[Row]:
    used = _table_of_router(config)
    vocabulary = used.architecture.vocabulary if used is not None else config.data.tokenizer_vocab_size
    total = sum(sum(one.tokens.values()) for one in sizes.values())
    train = sum(one.tokens["train"] for one in sizes.values())
    rate, whose = _tokenizing(config)
    how = f"{rate:,.0f} tokens/s with {whose}, measured here; without the download"
    yield "prepare", _duration(total / rate if sizes else None), how
    counting = counting_rate(vocabulary)
    how = f"{counting:,.0f} tokens/s, measured here: a Parquet file, one process"
    yield "fit: counting", _duration(train / counting if sizes else None), how
    if used is not None:
        seconds = ridge_seconds(vocabulary, used.architecture.hidden, len(config.data.domains))
        yield "fit: Gram matrix and solve", _duration(seconds), "measured here on a part of the table, and scaled"
    yield from _forward_times(config, sizes)
    yield "compare: the rest", "as fit and losses", "once for each router from counts; losses are computed once for all"


def _forward_times(config: Namespace, sizes: Mapping[str, SplitSizes]) -> Iterator[Row]:
    """Yield the times of running experts and encoders: 2 · parameters · tokens, at the rate of two layers."""
    experts, encoders = [one.architecture for one in expert_sizes(config).values()], list(_encoders(config))
    widest = max((one.hidden for one in [*experts, *(sized.architecture for sized, _ in encoders)]), default=0)
    if experts and config.experts.losses.table is None:
        test = sum(evaluated(config, one, "test")[0] for one in sizes.values())
        rate = forward_rate(experts[0].hidden, _dtype(config), _device(config))
        seconds = sum(2 * one.products * test / rate for one in experts)
        yield "losses", _duration(seconds if sizes else None), _rate_text(rate, _dtype(config))
    if config.experts.losses.table is not None:
        yield "scores", "not estimated", "answers are as long as an expert makes them"
    if encoders and sizes:
        rate = forward_rate(widest, torch.float32, _device(config))
        number = {split: sum(one.sequences[split] for one in sizes.values()) for split in SPLITS}
        length = sum(sum(one.tokens.values()) for one in sizes.values()) / max(sum(number.values()), 1)
        held_out = sum(evaluated(config, of, split)[1] for of in sizes.values() for split in SPLITS[1:])
        seconds = 0.0
        for one, limit in encoders:
            training = number["train"] if limit is None else min(number["train"], limit * len(sizes))
            seconds += 2 * one.architecture.products * length * (training + held_out) / rate
        names = ", ".join(one.basis for one, _ in encoders)
        yield "compare: encoders", _duration(seconds), f"{names}; {_rate_text(rate, torch.float32)}"


def _rate_text(rate: float, dtype: torch.dtype) -> str:
    return (
        f"2 · parameters · tokens, without tables that are only looked up in; {rate / 1e9:,.0f} GFLOP/s in {dtype},"
        " measured here through two layers of a Llama"
    )


def _encoders(config: Namespace) -> Iterator[tuple[Sized, int | None]]:
    """Yield the encoder of each router of ``compare``, with its training sequences of a domain."""
    for name, router in router_configs(config, "compare").items():
        arguments = router.get("init_args") or {}
        features = arguments.get("features")
        source = ((features or {}).get("init_args") or {}).get("model") if isinstance(features, dict) else None
        sized = model_size(str(source), kind_is_expert=False) if source else None
        if sized is not None:
            yield Sized(sized.architecture, name), arguments.get("training_sequences")


def _table_of_router(config: Namespace) -> Sized | None:
    """Return the embedding table of the config's router, or of the first of ``compare`` that has one."""
    for router in (router_configs(config, "fit") | router_configs(config, "compare")).values():
        embeddings = (router.get("init_args") or {}).get("embeddings")
        if embeddings:
            return table_size(config, embeddings)
    return None


def _tokenizing(config: Namespace) -> tuple[float, str]:
    """Return the tokens a second of the data's tokenizer, or of a small one made here, and which it was."""
    package = Path(__file__).parents[1]
    sample = "\n".join(file.read_text() for file in sorted(package.glob("*/*.py")))[:_SAMPLE]
    source = config.data.tokenizer
    if source != "train" and is_present(Requirement("tokenizer", source, ())):
        return tokenizing_rate(load_tokenizer(source), sample), source
    small = train_bpe(iter([sample]), vocab_size=1024)
    return tokenizing_rate(small, sample), "a small tokenizer made here (the data's own is not here)"


def _dtype(config: Namespace) -> torch.dtype:
    found: torch.dtype = getattr(torch, config.experts.losses.dtype)
    return found


def _device(config: Namespace) -> torch.device:
    accelerator: Any = config.trainer.accelerator
    cuda = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if cuda else "cpu")


def _duration(seconds: float | None) -> str:
    """Return a time as people read it; ``None`` where it is not known how much there is to do."""
    if seconds is None:
        return "known once the text is read"
    for unit, scale in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * scale:
            return f"about {seconds / scale:.1f} {unit}"
    return f"about {seconds:.2g} s"
