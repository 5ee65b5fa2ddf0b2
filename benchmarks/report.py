"""The tables of `make bench`: the rivals side by side, the aims, every stage, experts, and the gateway."""

from dataclasses import dataclass

from aims import COLUMNS, FIRST_ONLY, LENGTHS, OURS, WINDOWED, number, targets
from rich.console import Console
from rich.table import Table as RichTable
from turns import Numbers

TOKENIZERS = ("tokenizers", "tiktoken")
# Key in the parts' numbers, and name in the tables.
ROUTERS = (
    ("tokenizers", "*the tokenizer alone (`tokenizers`)*"),
    ("tiktoken", "*tiktoken alone, the same ids*"),
    ("majority", "**IR3DE**, ridge by majority"),
    ("entropy_top_k", "IR3DE, ridge by entropy top-50"),
    ("mean", "IR3DE, ridge by mean"),
    ("naive_bayes", "IR3DE, naive Bayes"),
    ("smoothed_bayes", "**IR3DE**, counts smoothed by the ridge"),
    (WINDOWED, "IR3DE, ridge by majority, a window of 3,000 characters spread over the text"),
    (FIRST_ONLY, "IR3DE, ridge by majority, the first 1,000 characters"),
    ("kolmo", "kolmo: zstd dictionaries"),
    ("kolmo_one_size", "kolmo, dictionaries of one size, chosen on training text"),
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
    accurate = [f"accuracy %, mean over domains, {title}" for title in sets]
    columns = ["router", *times, *accurate, "add a domain, s", "remove it, s"]
    rows = []
    for key, name in ROUTERS:
        cells = [shown_times(text[length][key]) if key in text[length] else "" for length in LENGTHS]
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
    rows = [
        [f"{int(tokens):,}", *(f"{number(row[name]['best'])}; {shown_times(row[name])}" for name in OURS)]
        for tokens, row in found["one_prompt"].items()
    ]
    title = (
        f"From token ids, one prompt, µs: best; median / 99th percentile (less {number(found['clock'])} of the clock)"
    )
    return Table(title, ["tokens", *OURS], rows)


def windows(result: Numbers) -> Table:
    """Return how often a decision on a part of a text is that on all of it."""
    text = result["decisions"]["text"]
    names = {name: f"{name}, 3,000 characters spread over the text" for name in OURS} | {FIRST_ONLY: FIRST_ONLY}
    rows = [
        [shown, *(f"{text[length]['agreement'][name]:.1f}" if name in text[length]["agreement"] else ""
                  for length in LENGTHS)]
        for name, shown in names.items()
    ]  # fmt: skip
    columns = ["window", *(f"{int(length):,} characters" for length in LENGTHS)]
    return Table("Windows: decisions that are those on all of the text, %", columns, rows)


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
            rows.append(
                [name, *(" + ".join(number(one[s]["best"]) if s in one else "-" for s in order) for one in found)]
            )
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
    columns = ["", "texts", "accuracy %, of all texts", "ECE", "of it chance", "Brier score", "AUROC", *after]
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
    """Return what the gateway adds to an upstream; its 99th percentiles are of enough answers on both sides."""
    rows = []
    for think, by_clients in result["gateway"].items():
        for clients, ways in by_clients.items():
            for way, row in ways.items():
                base = upstream_alone(way, ways)
                if row is base:
                    continue
                cells = []
                for q in (50, 99):
                    through, alone = row[f"p{q}_ms"], base[f"p{q}_ms"]
                    shown = f"{through:.1f}, {alone:.1f}: {through - alone:+.1f}"
                    cells.append(shown if q == 50 or has_p99(row, base) else "-")
                rates = f"{row['requests_per_second']:,.0f} of {base['requests_per_second']:,.0f}"
                rows.append([clients, think, way, *cells, rates])
    columns = [
        "clients",
        "the upstream takes",
        "asked",
        "p50, ms: through it, alone: added",
        "p99, ms: through it, alone: added",
        "requests/s, of the upstream's alone",
    ]
    return Table("The gateway: latencies without what the upstream takes", columns, rows)


def upstream_alone(way: str, ways: Numbers) -> Numbers:
    """Return the figures of the upstream alone that a way is compared with."""
    found: Numbers = ways["upstream alone, streamed" if "streamed" in way else "upstream alone"]
    return found


def has_p99(*rows: Numbers) -> bool:
    """Return whether there were enough answers for a 99th percentile."""
    return all(row["answers"] >= FEWEST_CALLS for row in rows)


def tables(result: Numbers) -> list[Table]:
    """Return all tables."""
    reached = Table("Aims", COLUMNS, [one.cells() for one in targets(result)])
    others = (ids, windows, stages, batches, fit, confidence, experts, gateway)
    return [rivals(result), reached, *(table(result) for table in others)]


def markdown(result: Numbers) -> str:
    """Return the report as Markdown."""
    facts = result["machine"]
    packages = ", ".join(f"{name} {facts[name]}" for name in facts if name not in ("processor", "cores"))
    others = ", ".join(sorted(set(result["decisions"]["versions"].values())))
    lines = ["# Benchmarks", "", f"{facts['processor']}, {facts['cores']} cores; {packages}; {others}.", ""]
    lines += [f"kolmo's dictionaries of one size have {one_sizes(result)}.", ""]
    for table in tables(result):
        lines += [f"## {table.title}", "", f"| {' | '.join(table.columns)} |"]
        lines += [f"| --- |{' ---: |' * (len(table.columns) - 1)}"]
        lines += [f"| {' | '.join(row)} |" for row in table.rows]
        lines += [""]
    return "\n".join([*lines, "![decisions](decisions.png)", "", "![serving](serving.png)", ""])


def one_sizes(result: Numbers) -> str:
    """Return the size that was chosen for kolmo's dictionaries, for each set of texts."""
    sizes = {
        title: routers["kolmo_one_size"]["settings"]["dictionary_bytes"]
        for title, routers in measured_sets(result).items()
    }
    return ", ".join(f"{size:,} bytes ({title})" for title, size in sizes.items())


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
