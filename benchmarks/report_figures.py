"""The figures of `make bench`: decisions against the rivals, and serving."""

from pathlib import Path

from aims import LENGTHS, Numbers
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report import ROUTERS, TOKENIZERS, measured_sets

from ir3de.evaluation.figures import save_figure

OURS = ("majority", "mean", "smoothed_bayes", "entropy_top_k")
COLORS = {
    "majority": "#1f6feb", "entropy_top_k": "#79b8ff", "mean": "#0a7ea4", "smoothed_bayes": "#1a7f37",
    "kolmo": "#d1242f", "aurelio": "#8250df", "aurelio_free": "#cf5c9c", "aurelio_free_few": "#e9a3c9",
    "minilm_knn": "#bf8700", "deberta_small": "#6e4b1f", "deberta_large": "#57606a",
}  # fmt: skip
MARKERS = "hHosD^vP*X<>p"
NAMES = {key: name.replace("*", "") for key, name in ROUTERS}


def save_decisions(result: Numbers, path: Path) -> None:
    """Draw the time of a decision against the length of the text, and accuracy against that time, as PNG."""
    sets = measured_sets(result)
    figure = Figure(figsize=(6.2 + 4.4 * len(sets), 6.0), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(sets), width_ratios=[1.25] + [1.0] * len(sets))
    text = result["decisions"]["text"]
    for i, (key, name) in enumerate(NAMES.items()):
        if key in TOKENIZERS:
            continue
        times = [text[length][key]["p50"] for length in LENGTHS]
        style = "-" if key in OURS else "--"
        first.plot([int(x) for x in LENGTHS], times, style, marker=MARKERS[i], color=COLORS[key], label=name)
    _logarithmic(first, "characters of the prompt", "µs from text to a decision, median")
    first.set_title("One prompt, one core", fontsize=10)
    for axes, (title, routers) in zip(others, sets.items(), strict=True):
        for i, key in enumerate(NAMES):
            if key not in routers:
                continue
            accuracy = routers[key]["accuracy"]
            (low, high), mean = accuracy["interval"], accuracy["mean"]
            time = text["400"][key]["p50"]
            error = [[mean - low], [high - mean]]
            axes.errorbar(time, mean, yerr=error, fmt=MARKERS[i], color=COLORS[key], capsize=3)
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
            axes.plot(list(rows), values, marker="osD"[i], color=COLORS[selector], label=selector)
    _logarithmic(times, "experts", "µs a decision, 256 token ids, median")
    _logarithmic(memory, "experts", "MiB that the compiled table takes")
    times.legend(fontsize=8, frameon=False)
    thinking = list(result["gateway"])[-1]
    by_clients = result["gateway"][thinking]
    ways = ("named", "auto", "auto, reloads")
    width = 0.8 / len(ways)
    for i, way in enumerate(ways):
        for q, alpha in ((50, 1.0), (99, 0.35)):
            added = [one[way][f"p{q}_ms"] - one["upstream alone"][f"p{q}_ms"] for one in by_clients.values()]
            places = [place + (i - 1) * width for place in range(len(added))]
            color = ("#57606a", "#1f6feb", "#8250df")[i]
            gateway.bar(places, added, width, alpha=alpha, color=color, label=f"{way}, p{q}")
    gateway.set_xticks(range(len(by_clients)), list(by_clients))
    gateway.set_xlabel("clients at a time")
    gateway.set_ylabel(f"ms that the gateway adds (an upstream that takes {thinking})")
    gateway.set_yscale("symlog", linthresh=1)
    gateway.grid(alpha=0.3, axis="y")
    gateway.legend(fontsize=8, frameon=False)
    save_figure(figure, path)


def _logarithmic(axes: Axes, x: str, y: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
