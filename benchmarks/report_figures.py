"""The figures of `make bench`: decisions against the rivals, and serving."""

import math
from pathlib import Path

from aims import FIRST_ONLY, LENGTHS, OURS, WINDOWED
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report import ROUTERS, TOKENIZERS, has_p99, measured_sets
from turns import Numbers

from ir3de.evaluation.figures import save_figure

# Color, line and marker; ours are full or dotted, where lines lie close together.
STYLES = {
    "majority": ("#1f6feb", "-", "o"), "entropy_top_k": ("#79b8ff", "-", "s"), "mean": ("#0a7ea4", (0, (1, 1)), "D"),
    "naive_bayes": ("#8ecf8a", (0, (1, 1)), "v"), "smoothed_bayes": ("#1a7f37", (0, (4, 2)), "^"),
    WINDOWED: ("#00306e", "-.", "P"), FIRST_ONLY: ("#00306e", ":", "X"),
    "kolmo": ("#d1242f", "--", "h"), "kolmo_one_size": ("#ff8f87", "--", "H"), "aurelio": ("#8250df", "--", "d"),
    "aurelio_free": ("#cf5c9c", "--", "<"), "aurelio_free_few": ("#e9a3c9", "--", ">"),
    "minilm_knn": ("#bf8700", "--", "*"), "deberta_small": ("#6e4b1f", "--", "p"),
    "deberta_large": ("#57606a", "--", "8"),
}  # fmt: skip
NEAR = (*OURS, WINDOWED, FIRST_ONLY, "kolmo", "kolmo_one_size")
NAMES = {key: name.replace("*", "") for key, name in ROUTERS if key not in TOKENIZERS}


def save_decisions(result: Numbers, path: Path) -> None:
    """Draw the time of a decision against the length of the text, and accuracy against that time, as PNG.

    The second plot shows the routers without encoders as ratios to the ridge by majority, to tell close lines apart.
    """
    sets = measured_sets(result)
    figure = Figure(figsize=(11.5 + 4.4 * len(sets), 6.6), layout="constrained")
    first, near, *others = figure.subplots(1, 2 + len(sets), width_ratios=[1.2, 1.2] + [1.0] * len(sets))
    text = result["decisions"]["text"]
    for key, name in NAMES.items():
        color, line, marker = STYLES[key]
        style = {"linestyle": line, "marker": marker, "markersize": 5, "color": color, "label": name, "linewidth": 1.4}
        lengths = [length for length in LENGTHS if key in text[length]]
        characters, times = [int(length) for length in lengths], [text[length][key]["p50"] for length in lengths]
        first.plot(characters, times, **style)
        if key in NEAR:
            base = [text[length]["majority"]["p50"] for length in lengths]
            near.plot(characters, [a / b for a, b in zip(times, base, strict=True)], **style)
    _logarithmic(first, "characters of the prompt", "µs from text to a decision, median")
    first.set_title("One prompt, one core", fontsize=10)
    near.set_xscale("log")
    near.set_ylim(bottom=0)
    near.grid(alpha=0.3, which="both")
    near.set_xlabel("characters of the prompt")
    near.set_ylabel("times the ridge's by majority")
    near.set_title("The same without encoders, as ratios", fontsize=10)
    for axes, (title, routers) in zip(others, sets.items(), strict=True):
        for key in NAMES:
            if key not in routers:
                continue
            color, _, marker = STYLES[key]
            accuracy = routers[key]["accuracy"]
            (low, high), mean = accuracy["interval"], accuracy["mean"]
            error = [[mean - low], [high - mean]]
            axes.errorbar(text["400"][key]["p50"], mean, yerr=error, fmt=marker, color=color, capsize=3, elinewidth=1)
        axes.set_xscale("log")
        axes.grid(alpha=0.3, which="both")
        axes.set_xlabel("µs from text to a decision, 400 characters")
        axes.set_ylabel("accuracy, mean over domains (%)")
        axes.set_title(f"Accuracy: {title}", fontsize=10)
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    save_figure(figure, path)


def save_serving(result: Numbers, path: Path) -> None:
    """Draw decision time and memory against the number of experts, and what the gateway adds, as PNG."""
    figure = Figure(figsize=(14, 4.6), layout="constrained")
    times, memory, gateway = figure.subplots(1, 3)
    rows = {int(key): row for key, row in result["experts"].items()}
    for i, selector in enumerate(("majority", "entropy_top_k", "mean")):
        for axes, unit in ((times, "µs"), (memory, "MiB")):
            values = [row[f"compiled {selector} {unit}"] for row in rows.values()]
            axes.plot(list(rows), values, marker="osD"[i], color=STYLES[selector][0], label=selector)
    _logarithmic(times, "experts", "µs a decision, 256 token ids, median")
    _logarithmic(memory, "experts", "MiB that the compiled table takes")
    times.legend(fontsize=8, frameon=False)
    thinking = list(result["gateway"])[-1]
    by_clients = result["gateway"][thinking]
    ways = ("named", "auto", "auto, reloads")
    width = 0.8 / len(ways)
    for i, way in enumerate(ways):
        for q, alpha in ((50, 1.0), (99, 0.35)):
            pairs = [(one[way], one["upstream alone"]) for one in by_clients.values()]
            # Too few answers have no 99th percentile.
            added = [a[f"p{q}_ms"] - b[f"p{q}_ms"] if q == 50 or has_p99(a, b) else math.nan for a, b in pairs]
            places = [place + (i - 1) * width for place in range(len(added))]
            color = ("#57606a", "#1f6feb", "#8250df")[i]
            gateway.bar(places, added, width, alpha=alpha, color=color, label=f"{way}, p{q}")
    gateway.set_xticks(range(len(by_clients)), list(by_clients))
    gateway.set_xlabel("clients at a time")
    gateway.set_ylabel(f"ms that the gateway adds (an upstream that takes {thinking})")
    gateway.set_yscale("symlog", linthresh=1)
    gateway.grid(alpha=0.3, axis="y")
    gateway.legend(fontsize=7, framealpha=0.9)
    save_figure(figure, path)


def _logarithmic(axes: Axes, x: str, y: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
