"""The comparison in W&B: one group, and in it one run for each router."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ir3de.comparison.report import Report
from ir3de.comparison.scored import Scored
from ir3de.comparison.standings import table_columns, table_row
from ir3de.console import console
from ir3de.tracking import Tracking


def track(report: Report, scored: Sequence[Scored], folder: Path, tracking: Tracking) -> None:
    """Write a run for each router: its config and choices, curves, numbers, tables, figures and artifact."""
    import wandb  # noqa: PLC0415 - everything else works without it

    columns: list[str | int] = [*table_columns(report.domains, report.measure)]
    rows = [table_row(one, report.domains, report.measure) for one in report.standings]
    by_name = {one.entry.name: one for one in scored}
    for standing, row in zip(report.standings, rows, strict=True):
        of = by_name.get(standing.name)
        run = wandb.init(
            project=tracking.project,
            entity=tracking.entity,
            mode="offline" if tracking.mode == "offline" else "online",
            dir=str(folder),
            group=f"{report.name}/comparison",
            name=f"{report.name}/comparison/{standing.name}",
            job_type="compare",
            config={
                "router": standing.name,
                "display_name": standing.display_name,
                "settings": None if of is None else of.routers[0].settings(),
                "chosen": standing.chosen,
                "identity": standing.identity,
                "seeds": report.seeds[: standing.seeds],
                "data": report.data,
                "versions": report.versions,
                "config": report.config,
            },
            settings=wandb.Settings(silent=True),
        )
        if of is not None and of.entry.saved is None:
            for step, metrics in enumerate(_curve(of.homes[0].parent / "logs")):
                run.log(metrics, step=step)
        run.summary.update({f"test/{key}": value for key, value in row.items() if isinstance(value, int | float)})
        last: dict[str, Any] = {f: wandb.Image(str(folder / f), caption=c) for f, c in report.figures.items()}
        last["comparison"] = wandb.Table(columns=columns, data=[[one.get(str(c)) for c in columns] for one in rows])
        if standing.row.confusion is not None:
            counts = [[d, *counts] for d, counts in zip(report.domains, standing.row.confusion, strict=True)]
            last["confusion_matrix"] = wandb.Table(columns=["domain", *report.domains], data=counts)
        run.log(last)
        if of is not None and of.homes[0].is_dir():
            artifact = wandb.Artifact(
                f"router-{standing.name}", type="router", metadata={"identity": standing.identity}
            )
            for path in sorted(of.homes[0].iterdir()):
                if path.is_file():
                    artifact.add_file(str(path))
            run.log_artifact(artifact)
        run.finish()
    console().print(
        f"[green]written[/green] {folder / 'wandb'}: a W&B run for each of {len(rows)} rows", soft_wrap=True
    )


def _curve(logs: Path) -> list[dict[str, float]]:
    """Return what the fit logged, step by step."""
    path = logs / "metrics.csv"
    if not path.is_file():
        return []
    with path.open() as file:
        return [{key: float(value) for key, value in line.items() if value} for line in csv.DictReader(file)]
