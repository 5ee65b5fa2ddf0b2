"""The two pictures of a verdict: where sequences went, and how good each expert is on each domain."""

from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from ir3de.evaluation.verdict import Verdict
from ir3de.files import replace_file

DPI = 150


def save_confusion_matrix(verdict: Verdict, path: Path) -> None:
    """Draw the confusion matrix of the run's router (the first row) as PNG: shares in percent, and counts."""
    row = verdict.routers[0]
    counts_EE = np.asarray(row.confusion)
    share_EE = 100 * counts_EE / np.maximum(counts_EE.sum(axis=1, keepdims=True), 1)
    texts = [[f"{s:.1f}%\n{c}" for s, c in zip(*line, strict=True)] for line in zip(share_EE, counts_EE, strict=True)]
    figure = _heat_map(
        share_EE,
        texts,
        verdict.domains,
        Normalize(0, 100),
        labels=("expert chosen by the router", "true domain", "share of the domain's test sequences (%)"),
        title=f"{row.router}: mean routing accuracy {row.routing_accuracy_mean:.1f}%",
    )
    save_figure(figure, path)


def save_expert_quality(verdict: Verdict, path: Path) -> None:
    """Draw every expert on every domain as PNG: perplexity on a logarithmic scale of colours, or score."""
    values_EE = np.array([[verdict.expert_quality[e][d] for e in verdict.domains] for d in verdict.domains])
    is_loss = verdict.measure == "perplexity"
    label = "perplexity per token (log scale; lower is better)" if is_loss else "mean score (higher is better)"
    texts = [[_short(value, is_loss) for value in line] for line in values_EE]
    figure = _heat_map(
        values_EE,
        texts,
        verdict.domains,
        (LogNorm if is_loss else Normalize)(values_EE.min(), values_EE.max()),
        labels=("expert", "domain of the test sequences", label),
        title=f"{verdict.measure.capitalize()} of every expert on every domain",
        best=values_EE.argmin(axis=1) if is_loss else values_EE.argmax(axis=1),
    )
    save_figure(figure, path)


def _short(value: float, is_loss: bool) -> str:
    if not is_loss:
        return f"{value:.3g}"
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _heat_map(
    values_EE: np.ndarray,
    texts: list[list[str]],
    names: tuple[str, ...],
    scale: Normalize,
    *,
    labels: tuple[str, str, str],
    title: str,
    best: np.ndarray | None = None,
) -> Figure:
    side = max(4.8, 1.05 * len(names))
    figure = Figure(figsize=(side + 2.2, side + 0.6), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(values_EE, cmap="Blues", norm=scale)
    bar = figure.colorbar(image, ax=axes, label=labels[2], shrink=0.85)
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.ax.yaxis.set_minor_formatter("{x:g}")
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.set_title(title + ("" if best is None else "\n(bold: the best expert of the domain)"), fontsize=11)
    for i, line in enumerate(texts):
        for j, text in enumerate(line):
            dark = scale(values_EE[i, j]) > 0.55
            weight = "bold" if best is not None and best[i] == j else "normal"
            axes.text(j, i, text, ha="center", va="center", color="white" if dark else "black", fontweight=weight)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG in one step."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    replace_file(path, buffer.getvalue())
