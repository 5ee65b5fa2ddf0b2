"""Draws every figure of the comparison that there is something for."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ir3de.comparison.curves import Curves
from ir3de.comparison.figures import (
    save_confusions,
    save_curves,
    save_frontier,
    save_reliability,
    save_tradeoff,
)
from ir3de.comparison.scored import Scored
from ir3de.comparison.standings import Standing
from ir3de.console import console
from ir3de.data.datamodule import DomainDataModule
from ir3de.routers import FeatureRouter, RidgeRouter, TokenTableRouter

IMBALANCE_SEQUENCES = 1000


def draw(
    standings: Sequence[Standing],
    scored: Sequence[Scored],
    data: DomainDataModule,
    folder: Path,
    failures: dict[str, str],
) -> dict[str, str]:
    """Write the figures into ``folder`` and return their captions by file name; one that fails is in ``failures``."""
    found: dict[str, str] = {}

    def one(file: str, caption: str, save: Callable[[Path], bool]) -> None:
        console(stderr=True).print(f"[dim]Drawing {file}[/dim]")
        (folder / file).unlink(missing_ok=True)
        try:
            if save(folder / file):
                found[file] = caption
        except Exception as error:  # a figure's failure must not lose the report
            failures[file] = " ".join(str(error).split())

    routers = [standing for standing in standings if standing.kind == "router"]
    fitted = {one.entry.name: one.routers[0] for one in scored if one.entry.saved is None}  # on these very data
    curves = Curves(data)
    tables = {name: router for name, router in fitted.items() if isinstance(router, TokenTableRouter | FeatureRouter)}
    ridges = [router for router in fitted.values() if isinstance(router, RidgeRouter) and router.targets == "domain"]

    one(
        "accuracy_against_time.png",
        "Accuracy against the time of a decision from text, one prompt at a time on this machine.",
        lambda path: save_tradeoff(routers, path),
    )
    for what, label in (
        ("price", "price of a million tokens, mean over test tokens"),
        ("latency", "latency (s), mean"),
    ):
        one(
            f"quality_against_{what}.png",
            f"Quality against {what}: what is on the frontier is beaten by no other in both.",
            lambda path, what=what, label=label: save_frontier(standings, path, what=what, label=label),  # type: ignore[misc]
        )
    one(
        "confusion_matrices.png",
        "Confusion matrices, in percent of each true domain's test sequences (of several seeds, all together).",
        lambda path: (
            save_confusions([s for s in standings if s.name not in ("oracle",)], data.domain_names, path) or True
        ),
    )
    if ridges:
        ridge = ridges[0]
        one(
            "accuracy_against_k.png",
            "Accuracy of entropy_top_k against k. The choice is made on the validation curve.",
            lambda path: save_curves(
                [curves.against_k(ridge)], path, label="k: tokens of lowest entropy that vote (log scale)",
                title="Accuracy against k of entropy_top_k",
            ),
        )  # fmt: skip
        one(
            "accuracy_against_regularization.png",
            "Accuracy of the ridge against λ, with its selector.",
            lambda path: save_curves(
                [curves.against_regularization(ridge)], path, label="λ of the ridge, absolute (log scale)",
                title="Accuracy against λ",
            ),
        )  # fmt: skip
        one(
            "accuracy_against_imbalance.png",
            "Accuracy with unequal domains: training sequences fall geometrically from the first domain to the last.",
            lambda path: save_curves(
                curves.against_imbalance(ridge, IMBALANCE_SEQUENCES), path, both_splits=False,
                label="sequences of the largest domain over those of the smallest (log scale)",
                title=f"Accuracy against class imbalance (largest domain: {IMBALANCE_SEQUENCES:,} sequences)",
            ),
        )  # fmt: skip
    one(
        "learning_curves.png",
        "Accuracy against training tokens of a domain, with the settings that were chosen on all of them. Routers"
        " with an encoder end where their training set does.",
        lambda path: save_curves(
            [curves.against_tokens(router, name) for name, router in tables.items()], path, both_splits=False,
            label="training tokens of a domain, mean over domains (log scale)", title="Accuracy against training text",
        ),
    )  # fmt: skip
    one(
        "reliability.png",
        "Reliability: how often a router is right where it is so and so sure. Bins of fewer than 5"
        " sequences have no point. The error is the expected calibration error.",
        lambda path: save_reliability(routers, path),
    )
    return found
