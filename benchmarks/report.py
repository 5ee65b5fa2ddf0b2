"""The tables of `make bench`: the rivals side by side, the aims, every stage, experts, and the gateway."""

from dataclasses import dataclass

from aims import IDS, LENGTHS, Numbers, number, targets
from rich.console import Console
from rich.table import Table as RichTable

TOKENIZERS = ("tokenizers", "tiktoken")
# Key in the parts' numbers, and name in the tables.
ROUTERS = (
    ("tokenizers", "*the tokenizer alone (`tokenizers`)*"),
    ("tiktoken", "*tiktoken alone, the same ids*"),
    ("majority", "**IR3DE**, ridge by majority"),
    ("entropy_top_k", "IR3DE, ridge by entropy top-50"),
    ("mean", "IR3DE, ridge by mean"),
    ("smoothed_bayes", "**IR3DE**, counts smoothed by the ridge"),
    ("kolmo", "kolmo: zstd dictionaries"),
    ("aurelio", "aurelio semantic-router on MiniLM"),
    ("aurelio_free", "aurelio, an encoder that takes no time"),
    ("aurelio_free_few", "the same, 10 texts a domain in the place of 200"),
    ("minilm_knn", "MiniLM (reads 256 tokens) and kNN"),
    ("deberta_small", "encoder of DeBERTa-v3-small's size (reads 512)"),
    ("deberta_large", "encoder of DeBERTa-v3-large's size (reads 512)"),
)
FEWEST_CALLS = 100  # that have a 99th percentile


@dataclass(frozen=True)
class Table:
    """A table with a title; the first column is text."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def rivals(result: Numbers) -> Table:
    """Return the rivals side by side."""
    text, sets = result["decisions"]["text"], measured_sets(result)
    times = [f"µs, {int(length):,} characters" for length in LENGTHS]
    columns = ["router", *times, *(f"accuracy %, {title}" for title in sets), "add a domain, s", "remove it, s"]
    rows = []
    for key, name in ROUTERS:
        cells = [shown_times(text[length][key]) for length in LENGTHS]
        for routers in sets.values():
            found = routers.get(key)
            cells.append("" if found is None else shown_accuracy(found["accuracy"]))
        changes = next(iter(sets.values())).get(key, {})
        adding = number(changes["add_seconds"]) if "add_seconds" in changes else ""
        if "compile_seconds" in changes:
            adding += f" + {number(changes['compile_seconds'])} to compile"
        cells += [adding, number(changes["remove_seconds"]) if "remove_seconds" in changes else ""]
        rows.append([name, *cells])
    return Table("From text to a decision, median / 99th percentile; accuracy with 95% interval", columns, rows)


def measured_sets(result: Numbers) -> dict[str, Numbers]:
    """Return the routers' figures by the set of texts that they were measured on."""
    return {title: one["routers"] for title, one in result["accuracy"].items()}


def shown_times(row: Numbers) -> str:
    """Return the median and, of enough calls, the 99th percentile."""
    return f"{number(row['p50'])} / {number(row['p99']) if row['calls'] >= FEWEST_CALLS else '-'}"


def shown_accuracy(accuracy: Numbers) -> str:
    """Return an accuracy with its interval."""
    low, high = accuracy["interval"]
    return f"{accuracy['mean']:.1f} ({low:.1f} to {high:.1f})"


def ids(result: Numbers) -> Table:
    """Return decisions from token ids."""
    found = result["decisions"]["ids"]
    rows = [[tokens, *(number(row[name]) for name in IDS)] for tokens, row in found["one_prompt"].items()]
    return Table("From token ids, one prompt, µs (best)", ["tokens", *IDS], rows)


def fit(result: Numbers) -> Table:
    """Return the fit against the stream."""
    rows = []
    for tokens, row in result["fit"].items():
        ours = row["counting_seconds"] + row["gram_and_solve_seconds"]
        streamed = f"{row['streamed_seconds']:.1f} (from {row['streamed_fraction_measured']:.0%})"
        cells = [f"{ours:.2f}", streamed, f"{row['streamed_seconds'] / ours:.0f}×"]
        rows.append([f"{int(tokens):,}", *cells, f"{row['relative_difference']:.0e}"])
    columns = [
        "tokens a domain",
        "from counts, s",
        "streamed as published, s (scaled from a part)",
        "ratio",
        "W differs by",
    ]
    return Table("Fit: five domains of Zipf-distributed tokens, V = 49,152, d = 576", columns, rows)


def stages(result: Numbers) -> Table:
    """Return where the time of a decision goes."""
    text, order = result["decisions"]["text"], ("tokenizing", "encoding", "scoring", "deciding")
    rows = []
    for key, name in ROUTERS:
        found = [text[length]["stages"].get(key) for length in LENGTHS]
        if all(found):
            rows.append([name, *(" + ".join(number(one[s]) if s in one else "-" for s in order) for one in found)])
    columns = ["router", *(f"{int(length):,} characters" for length in LENGTHS)]
    return Table("Tokenizing + encoding + scoring + deciding, µs (best)", columns, rows)


def batches(result: Numbers) -> Table:
    """Return how many texts are routed in a second."""
    found = result["decisions"]["batches"]
    rows = [
        [
            name,
            number(found[key]["texts_per_second"]),
            f"{found[key]['added_percent']:+.1f}" if "added_percent" in found[key] else "",
        ]
        for key, name in ROUTERS
        if key in found
    ]
    columns = ["router", "texts/s", "added to the tokenizer's own time, %"]
    return Table("Texts of 2,000 characters in batches", columns, rows)


def confidence(result: Numbers) -> Table:
    """Return how far confidence can be believed."""
    after = ["ECE without a domain", "ECE with it again"]
    columns = ["", "texts", "accuracy %", "ECE", "of it chance", "Brier score", "AUROC", *after]
    rows = []
    for title, one in result["confidence"].items():
        for name, states in one["routers"].items():
            first = next(iter(states.values()))
            errors = [f"{state['expected_calibration_error']:.3f}" for state in states.values()]
            area = "" if first["auroc"] is None else f"{first['auroc']:.3f}"
            cells = [f"{sum(one['tested'].values()):,}", f"{100 * first['accuracy']:.1f}", errors[0]]
            cells += [f"{first['chance']:.3f}", f"{first['brier_score']:.3f}", area, *errors[1:]]
            rows.append([f"{title}: {name}", *cells])
    return Table("Confidence: expected calibration error (15 bins of equal mass) on held-out text", columns, rows)


def experts(result: Numbers) -> Table:
    """Return decisions against the number of experts."""
    names = ("majority", "entropy_top_k", "mean")
    columns = ["experts", *(f"{name}, {unit}" for name in names for unit in ("µs", "MiB")), "fit without counting, s"]
    rows = [
        [
            f"{int(key):,}",
            *(number(row[f"compiled {name} {unit}"]) for name in names for unit in ("µs", "MiB")),
            number(row["fit s"]),
        ]
        for key, row in result["experts"].items()
    ]
    return Table(
        "The compiled router's table against the number of experts: 256 tokens, 128,256 vocabulary entries",
        columns,
        rows,
    )


def gateway(result: Numbers) -> Table:
    """Return what the gateway adds to an upstream."""
    rows = []
    for think, by_clients in result["gateway"].items():
        for clients, ways in by_clients.items():
            for way, row in ways.items():
                base = ways["upstream alone, streamed" if "streamed" in way else "upstream alone"]
                if row is base:
                    continue
                added = [f"{row[f'p{q}_ms'] - base[f'p{q}_ms']:+.1f}" for q in (50, 99)]
                rates = f"{row['requests_per_second']:,.0f} of {base['requests_per_second']:,.0f}"
                rows.append([clients, think, way, *added, rates])
    columns = [
        "clients",
        "the upstream takes",
        "asked",
        "added at p50, ms",
        "at p99, ms",
        "requests/s, of the upstream's alone",
    ]
    return Table("The gateway", columns, rows)


def tables(result: Numbers) -> list[Table]:
    """Return all tables."""
    reached = Table("Aims", ["", "measured", "aim", "met"], [one.cells() for one in targets(result)])
    others = (ids, stages, batches, fit, confidence, experts, gateway)
    return [rivals(result), reached, *(table(result) for table in others)]


def markdown(result: Numbers) -> str:
    """Return the report as Markdown."""
    facts = result["machine"]
    packages = ", ".join(f"{name} {facts[name]}" for name in facts if name not in ("processor", "cores"))
    others = ", ".join(sorted(set(result["decisions"]["versions"].values())))
    lines = ["# Benchmarks", "", f"{facts['processor']}, {facts['cores']} cores; {packages}; {others}.", ""]
    for table in tables(result):
        lines += [f"## {table.title}", "", f"| {' | '.join(table.columns)} |"]
        lines += [f"| --- |{' ---: |' * (len(table.columns) - 1)}"]
        lines += [f"| {' | '.join(row)} |" for row in table.rows]
        lines += [""]
    return "\n".join([*lines, "![decisions](decisions.png)", "", "![serving](serving.png)", ""])


def print_report(result: Numbers) -> None:
    """Print the first two tables."""
    out = Console(width=170, highlight=False)
    for table in tables(result)[:2]:
        shown = RichTable(title=table.title)
        for i, column in enumerate(table.columns):
            shown.add_column(column, justify="right" if i else "left", overflow="fold")
        for row in table.rows:
            shown.add_row(*(cell.replace("*", "") for cell in row))
        out.print(shown)
    aims = targets(result)
    out.print(f"{sum(one.met for one in aims)} of {len(aims)} aims met")
