"""How long a config's commands take on this machine: what there is to do, at rates that are measured now."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace

from ir3de.data.bpe import train_bpe
from ir3de.data.splits import SPLITS
from ir3de.hub.measure import counting_rate, forward_rate, ridge_seconds, tokenizing_rate
from ir3de.hub.models import Sized, model_size, router_table
from ir3de.hub.passes import Pass, answers, fit_passes, loss_passes
from ir3de.hub.present import is_present
from ir3de.hub.requirements import Requirement, router_configs
from ir3de.hub.workload import BENCHMARKS, SplitSizes, evaluated
from ir3de.pretrained.loading import load_tokenizer

_SAMPLE = 300_000  # characters to tokenize: this package's own source
Row = tuple[str, str, str]


def times(config: Namespace, sizes: Mapping[str, SplitSizes]) -> Iterator[Row]:
    """Yield what takes time, how long, and what that rests on; ``sizes`` are those of the domains that are known."""
    used = router_table(config)
    vocabulary = used.architecture.vocabulary if used is not None else config.data.tokenizer_vocab_size
    if not config.reasoning.tasks:  # whose prompts are a few
        total = sum(sum(one.tokens.values()) for one in sizes.values())
        rate, whose = _tokenizing(config)
        how = f"{rate:,.0f} tokens/s with {whose}, measured here; without the download"
        yield "prepare" if config.prepare.domains else "tokenizing", duration(total / rate if sizes else None), how
    train = sum(one.tokens["train"] for one in sizes.values())
    counting = counting_rate(vocabulary)
    how = f"{counting:,.0f} tokens/s, measured here: a Parquet file, one process"
    yield "fit: counting", duration(train / counting if sizes else None), how
    if used is not None:
        seconds = ridge_seconds(vocabulary, used.architecture.hidden, len(config.data.domains))
        yield "fit: Gram matrix and solve", duration(seconds), "measured here on a part of the table, and scaled"
    if config.reasoning.tasks:
        yield _scores(config)
    if config.experts.losses.table is None:
        yield from _losses(config, sizes)
    yield from _encoders(config, sizes)
    made = "losses" if config.experts.losses.table is None else "scores"
    yield "compare: the rest", "as fit", f"once for each router from counts; {made} are made once for all"


def _losses(config: Namespace, sizes: Mapping[str, SplitSizes]) -> Iterator[Row]:
    """Yield the times of experts that read sequences."""
    rates: dict[torch.dtype, float] = {}
    rows = {"losses": loss_passes(config, sizes)}
    for command in ("fit", "compare"):
        rows[f"{command}: experts in fits"] = list(fit_passes(config, sizes, command))
    for what, passes in rows.items():
        if passes and all(one.models for one in passes):
            yield what, duration(_seconds(config, passes, rates) if sizes else None), _passes_text(passes, rates)


def _seconds(config: Namespace, passes: Sequence[Pass], rates: dict[torch.dtype, float]) -> float:
    total = 0.0
    for one in passes:
        if one.dtype not in rates:
            rates[one.dtype] = forward_rate(one.models[0].hidden, one.dtype, device_of(config))
        total += sum(2 * model.products for model in one.models) * one.tokens / rates[one.dtype]
    return total


def _passes_text(passes: Sequence[Pass], rates: Mapping[torch.dtype, float]) -> str:
    what = "; ".join(f"{one.why}, {one.tokens:,} tokens each" for one in passes)
    used = {one.dtype: rates[one.dtype] for one in passes if one.dtype in rates}
    return f"{what}; {_rate_text(used)}" if used else what


def _scores(config: Namespace) -> Row:
    """Return the time of answering; answers of which only the longest is known give a bound."""
    asked = answers(config)
    if asked is None or not asked.models:
        unknown = "the experts' size" if asked else "how many questions its tasks have, and how long"
        return "scores", "not known before it is read", f"nothing tells {unknown}"
    dtype, device = dtype_of(config), device_of(config)
    reading = forward_rate(asked.models[0].hidden, dtype, device)
    writing = forward_rate(asked.models[0].hidden, dtype, device, shape=(config.reasoning.batch_size, 1))
    operations = sum(2 * model.products for model in asked.models)
    seconds = operations * (asked.read / reading + asked.written / writing)
    how = (
        f"{asked.questions:,} questions {asked.why}, {asked.read:,} tokens read and at most {asked.written:,} written"
        f" each ({BENCHMARKS}); {_rate_text({dtype: reading})}; {writing / 1e9:,.0f} where one token of each of"
        f" {config.reasoning.batch_size} answers is written at a time"
    )
    return "scores", duration(seconds, bound="at most about"), how


def _encoders(config: Namespace, sizes: Mapping[str, SplitSizes]) -> Iterator[Row]:
    encoders = list(_encoders_of(config))
    if not encoders or not sizes:
        return
    rate = forward_rate(max(sized.architecture.hidden for sized, _ in encoders), torch.float32, device_of(config))
    number = {split: sum(one.sequences[split] for one in sizes.values()) for split in SPLITS}
    length = sum(sum(one.tokens.values()) for one in sizes.values()) / max(sum(number.values()), 1)
    held_out = sum(evaluated(config, of, split)[1] for of in sizes.values() for split in SPLITS[1:])
    seconds = 0.0
    for one, limit in encoders:
        training = number["train"] if limit is None else min(number["train"], limit * len(sizes))
        seconds += 2 * one.architecture.products * length * (training + held_out) / rate
    names = ", ".join(one.basis for one, _ in encoders)
    yield "compare: encoders", duration(seconds), f"{names}; {_rate_text({torch.float32: rate})}"


def _encoders_of(config: Namespace) -> Iterator[tuple[Sized, int | None]]:
    """Yield the encoder of each router of ``compare``, with its training sequences of a domain."""
    for name, router in router_configs(config, "compare").items():
        arguments = router.get("init_args") or {}
        features = arguments.get("features")
        source = ((features or {}).get("init_args") or {}).get("model") if isinstance(features, dict) else None
        sized = model_size(str(source), kind_is_expert=False) if source else None
        if sized is not None:
            yield Sized(sized.architecture, name), arguments.get("training_sequences")


def _rate_text(rates: Mapping[torch.dtype, float]) -> str:
    measured = " and ".join(f"{rate / 1e9:,.0f} GFLOP/s in {dtype}" for dtype, rate in rates.items())
    return (
        f"2 · parameters · tokens, without tables that are only looked up in; {measured}, measured here through two"
        " layers of a Llama"
    )


def _tokenizing(config: Namespace) -> tuple[float, str]:
    """Return the tokens a second of the data's tokenizer, or of a small one made here, and which it was."""
    package = Path(__file__).parents[1]
    sample = "\n".join(file.read_text() for file in sorted(package.glob("*/*.py")))[:_SAMPLE]
    source = config.data.tokenizer
    if source != "train" and is_present(Requirement("tokenizer", source, ())):
        return tokenizing_rate(load_tokenizer(source), sample), source
    small = train_bpe(iter([sample]), vocab_size=1024)
    return tokenizing_rate(small, sample), "a small tokenizer made here (the data's own is not here)"


def dtype_of(config: Namespace) -> torch.dtype:
    """Return the precision of the experts."""
    found: torch.dtype = getattr(torch, config.experts.losses.dtype)
    return found


def device_of(config: Namespace) -> torch.device:
    """Return where the experts will be."""
    accelerator: Any = config.trainer.accelerator
    cuda = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if cuda else "cpu")


def duration(seconds: float | None, *, bound: str = "about") -> str:
    """Return a time as people read it; ``None`` where it is not known how much there is to do."""
    if seconds is None:
        return "known once the text is read"
    for unit, scale in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * scale:
            return f"{bound} {seconds / scale:.1f} {unit}"
    return f"{bound} {seconds:.2g} s"
