"""The card of a saved router: what it is, how it was fitted, and its numbers."""

import json
from pathlib import Path
from typing import Any

from ir3de.evaluation.report import units
from ir3de.evaluation.verdict import Verdict
from ir3de.files import replace_file


def write_card(folder: Path, *, verdict: Verdict | None) -> None:
    """Write ``README.md`` into a saved router's folder, with the numbers of ``verdict`` where there is one."""
    config = json.loads((folder / "config.json").read_text())
    shown = {name: json.dumps(value) for name, value in config["settings"].items()}
    for name, value in config["chosen"].items():
        how = " (chosen on validation data)" if config["settings"][name] is None else ""
        shown[name] = "not used" if value is None else f"{json.dumps(value)}{how}"
    lines = [
        "---",
        "library_name: ir3de",
        "tags: [routing, ir3de]",
        "---",
        f"# {config['router']} over {len(config['experts'])} experts",
        "",
        "Picks one expert for each prompt; none of the experts is needed for it.",
        "",
        "```python",
        f"from ir3de.routers import {config['router']}",
        "",
        f'router = {config["router"]}.from_pretrained("{folder.name}")',
        'router.route(["your prompt"]).names',
        "```",
        "",
        *_experts(config),
        "",
        "| setting | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in shown.items()),
        *(
            f"| {what} | {digest[:16]}… |"
            for what, digest in config["reads"].items()
            if what in ("tokenizer", "features")
        ),
    ]
    if "embeddings" in config["reads"]:
        source, shape = config["embeddings_source"], config["embeddings_shape"]
        lines.append(f"| embedding table | {source}, {shape}, {config['reads']['embeddings'][:16]}… |")
    lines += ["", *(_numbers(verdict) if verdict else ["Not tested yet: run `python main.py test`."]), ""]
    if config.get("unchecked"):
        lines += [f"Chosen without validation data of: {', '.join(config['unchecked'])}.", ""]
    replace_file(folder / "README.md", "\n".join(lines).encode())


def _experts(config: dict[str, Any]) -> list[str]:
    known = config["experts"]
    if not all(known.values()):
        return [f"- {name}" for name in known]
    what = "sequences" if "rows" in next(iter(known.values())) else "tokens"
    lines = [f"| {name} | {facts['tokens']:,} |" for name, facts in known.items()]
    return [f"| expert | training {what} |", "| --- | ---: |", *lines]


def _numbers(verdict: Verdict) -> list[str]:
    titles = {name: title.replace("\n", " ") for name, title in units(verdict).items()}
    lines = [
        f"On {sum(verdict.sequences.values()):,} held-out sequences:",
        "",
        "| router | " + " | ".join(titles.values()) + " |",
        "| --- |" + " ---: |" * len(titles),
    ]
    for row in [*verdict.routers, *verdict.references]:
        values = [getattr(row, name) for name in titles]
        lines.append(f"| {row.router} | " + " | ".join("" if v is None else f"{v:.4g}" for v in values) + " |")
    return lines
