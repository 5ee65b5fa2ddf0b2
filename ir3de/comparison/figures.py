"""The figures of the comparison, each as PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ir3de.comparison.curves import Curve
from ir3de.comparison.standings import Standing
from ir3de.evaluation.figures import save_figure

COLORS = ["#1f6feb", "#d1242f", "#1a7f37", "#8250df", "#bf8700", "#0a7ea4", "#cf5c9c", "#57606a", "#6e4b1f", "#444c56"]
MARKERS = "osD^vP*X<>"
FEWEST = 5


def save_tradeoff(standings: Sequence[Standing], path: Path) -> bool:
    """Draw accuracy against the time of a decision from text; return whether there was anything to draw."""
    timed = [one for one in standings if one.costs is not None and one.costs.from_text is not None]
    if not timed:
        return False
    figure, axes = _axes(9, 5.2)
    for i, one in enumerate(timed):
        assert one.costs is not None, "kept above"
        assert one.costs.from_text is not None, "kept above"
        accuracy = one.row.routing_accuracy_mean or 0.0
        low, high = one.row.intervals.get("routing_accuracy_mean", (accuracy, accuracy))
        axes.errorbar(
            one.costs.from_text.p50, accuracy, yerr=[[max(0, accuracy - low)], [max(0, high - accuracy)]],
            fmt=MARKERS[i % len(MARKERS)], color=COLORS[i % len(COLORS)], capsize=3, markersize=7, label=one.name,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("time of a decision from text, median (µs, log scale)")
    axes.set_ylabel("routing accuracy, mean over domains (%)")
    axes.set_title("Accuracy against the time of a decision (bars: 95% intervals over documents)", fontsize=11)
    _legend(axes)
    save_figure(figure, path)
    return True


def save_frontier(standings: Sequence[Standing], path: Path, *, what: str, label: str) -> bool:
    """Draw quality against price or latency with the frontier: the routers that no other beats in both."""
    points = [(getattr(one, what), one.row.normalized_performance, one) for one in standings]
    points = [point for point in points if point[0] is not None]
    if not points:
        return False
    figure, axes = _axes(9, 5.2)
    for i, (cost, quality, one) in enumerate(points):
        axes.plot(cost, quality, MARKERS[i % len(MARKERS)], color=COLORS[i % len(COLORS)], markersize=7, label=one.name)
    best, frontier = -np.inf, []
    for cost, quality, _ in sorted(points, key=lambda point: (point[0], -point[1])):
        if quality > best:
            best = quality
            frontier.append((cost, quality))
    axes.step(*zip(*frontier, strict=True), where="post", color="#57606a", linewidth=1, zorder=0, label="frontier")
    axes.set_xlabel(label)
    axes.set_ylabel("normalized performance (%)")
    axes.set_title(f"Quality against {what}", fontsize=11)
    _legend(axes)
    save_figure(figure, path)
    return True


def save_confusions(standings: Sequence[Standing], domains: Sequence[str], path: Path) -> bool:
    """Draw all confusion matrices side by side: shares of each true domain in percent."""
    shown = [one for one in standings if one.row.confusion is not None]
    if not shown:
        return False
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    side = max(2.6, 0.5 * len(domains) + 0.6)
    figure = Figure(figsize=(side * columns + 1.2, (side + 0.5) * lines + 0.8), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, one in zip(list(grid.flat)[: len(shown)], shown, strict=True):
        counts_EE = np.asarray(one.row.confusion)
        share_EE = 100 * counts_EE / np.maximum(counts_EE.sum(axis=1, keepdims=True), 1)
        axes.imshow(share_EE, cmap="Blues", vmin=0, vmax=100)
        for i, line in enumerate(share_EE):
            for j, value in enumerate(line):
                color = "white" if value > 55 else "black"
                axes.text(j, i, f"{value:.0f}", ha="center", va="center", color=color, fontsize=8)
        axes.set_title(f"{one.name}: {one.row.routing_accuracy_mean:.1f}%", fontsize=10)
        axes.set_xticks(range(len(domains)), domains, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
        axes.set_yticks(range(len(domains)), domains, fontsize=8)
    for axes in list(grid.flat)[len(shown) :]:
        axes.axis("off")
    figure.suptitle("Where each true domain's test sequences went (rows: domain, columns: expert; %)", fontsize=12)
    save_figure(figure, path)
    return True


def save_curves(
    curves: Sequence[Curve], path: Path, *, label: str, title: str, both_splits: bool = True, logarithmic: bool = True
) -> bool:
    """Draw accuracies: test solid, validation dashed where both are asked for."""
    if not any(curve.x for curve in curves):
        return False
    figure, axes = _axes(8, 4.8)
    for i, curve in enumerate(curves):
        color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
        axes.plot(curve.x, curve.test, marker=marker, color=color, markersize=5, label=f"{curve.name}, test")
        if both_splits:
            axes.plot(curve.x, curve.validation, "--", color=color, linewidth=1, label=f"{curve.name}, validation")
    if logarithmic:
        axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("routing accuracy, mean over domains (%)")
    axes.set_title(title, fontsize=11)
    _legend(axes)
    save_figure(figure, path)
    return True


def save_reliability(standings: Sequence[Standing], path: Path) -> bool:
    """Draw, for every router, how often it is right where it is so and so sure."""
    shown = [one for one in standings if one.reliability is not None]
    if not shown:
        return False
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(3 * columns + 0.6, 3.1 * lines + 0.6), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes, one in zip(list(grid.flat)[: len(shown)], shown, strict=True):
        assert one.reliability is not None, "kept above"
        counts = np.asarray(one.reliability.count)
        shown_K = counts >= FEWEST  # of a handful of sequences the accuracy says nothing
        axes.plot([0, 1], [0, 1], color="#8c959f", linewidth=1)
        axes.bar(
            np.linspace(0.05, 0.95, len(counts)), counts / max(1, counts.sum()), width=0.09, color="#ddf4ff",
            edgecolor="#9ec9e8", label="share of sequences",
        )  # fmt: skip
        axes.plot(
            np.asarray(one.reliability.confidence)[shown_K], np.asarray(one.reliability.accuracy)[shown_K], "o-",
            color=COLORS[0], markersize=4,
        )  # fmt: skip
        axes.set_title(f"{one.name}: error {one.reliability.error:.1f}%", fontsize=9)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
    for axes in list(grid.flat)[len(shown) :]:
        axes.axis("off")
    figure.supxlabel("confidence (softmax of the scores; temperature chosen on validation data)", fontsize=10)
    figure.supylabel("accuracy (points), share of sequences (bars)", fontsize=10)
    save_figure(figure, path)
    return True


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    return figure, axes


def _legend(axes: Axes) -> None:
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
