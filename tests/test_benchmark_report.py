"""The benchmarks' aims, tables and figures: each shows the number that it names, and no other."""

import random

import aims
import pytest
import report

TEXT_ROWS = [key for key, _ in report.ROUTERS]
FIRST_AT = ("2000", "8000")


def _numbers():
    """Return numbers in the form of the parts', in which no two are equal."""
    draw = random.Random(0)

    def some():
        return draw.uniform(1, 1000)

    def row(*, others=()):
        return {"best": some(), "p50": some(), "p99": some(), "calls": 100.0, "beside": {key: some() for key in others}}

    text = {}
    for length in aims.LENGTHS:
        keys = [key for key in TEXT_ROWS if key != aims.FIRST_ONLY or length in FIRST_AT]
        slow = [*aims.ENCODERS, "deberta_large", "aurelio"]
        rows = {key: row(others=() if key in slow else slow) for key in keys}
        stages = {key: {stage: row() for stage in ("tokenizing", "scoring", "deciding")} for key in TEXT_ROWS}
        agreement = {name: some() / 10 for name in (*aims.OURS, *((aims.FIRST_ONLY,) if length in FIRST_AT else ()))}
        text[length] = {**rows, "stages": stages, "tokens": some(), "agreement": agreement}
    batches = {name: {"added_percent": some(), "added_percent_by_medians": some(), "texts_per_second": some()}
               for name in aims.OURS}  # fmt: skip
    compiled = {f"compiled {name} {unit}": some() for name in aims.IDS for unit in ("µs", "MiB")}

    def way(answers):
        return {"requests_per_second": some(), "p50_ms": some(), "p99_ms": some(), "answers": answers}

    def ways(answers):
        names = ("upstream alone", "named", "auto", "auto, reloads", "upstream alone, streamed", "auto, streamed")
        return {name: way(answers) for name in names}

    def accuracy(low):
        return {"accuracy": {"mean": low + 2, "interval": [low, low + 3], "domains": {"a": low}}}

    def state():
        return {"accuracy": some() / 1000, "expected_calibration_error": some() / 1000, "brier_score": some() / 1000,
                "auroc": None, "chance": some() / 1000}  # fmt: skip

    return {
        "machine": {"processor": "one", "cores": 2, "numpy": "2.4"},
        "fit": {"1000": {"counting_seconds": 1.0, "gram_and_solve_seconds": 1.5, "streamed_seconds": 600.0,
                         "streamed_fraction_measured": 0.02, "relative_difference": 1e-6}},
        "decisions": {
            "ids": {"one_prompt": {"230": {name: row() for name in aims.OURS}}, "clock": 0.06,
                    "batch": {"published": row(), "compiled": row()}},
            "text": text,
            "batches": batches,
            "versions": {"kolmo": "kolmo 0.0.3"},
        },
        "accuracy": {"passages": {"routers": {
            "majority": accuracy(80.0) | {"add_seconds": 0.5, "compile_seconds": 1.25, "remove_seconds": 0.25},
            "kolmo": accuracy(70.0) | {"add_seconds": 0.125},
            "kolmo_one_size": accuracy(60.0) | {"settings": {"dictionary_bytes": 8_000}},
        }}},
        "confidence": {"blocks": {"tested": {"code": 1_000, "law": 20}, "routers": {
            name: {of: state() for of in ("fitted", "without", "again")} for name in ("ridge", "Bayes")
        }}},
        "experts": {"5": {**compiled, "fit s": some()}},
        "gateway": {"0.3 s": {"1": ways(99), "128": ways(100)}},
    }  # fmt: skip


def _expected(numbers):
    """Return what each aim is about, from the fields that it is to be made of."""
    ids, text, batches = (numbers["decisions"][part] for part in ("ids", "text", "batches"))
    one, batch = ids["one_prompt"]["230"], ids["batch"]
    found = {f"ids to decision, 230 tokens, {name}": (one[name]["best"], one[name]["p50"], bound, True)
             for name, bound in (("majority", 2), ("entropy_top_k", 5), ("mean", 6))}  # fmt: skip
    found["16 × 1,024 ids: published formula / ours"] = (
        batch["published"]["best"] / batch["compiled"]["best"],
        batch["published"]["p50"] / batch["compiled"]["p50"], 200, False,
    )  # fmt: skip
    for name in ("majority", "entropy_top_k", "mean", "naive_bayes", "smoothed_bayes"):
        both = batches[name]["added_percent"], batches[name]["added_percent_by_medians"]
        found[f"what {name} adds to the tokenizer, batches of 2,000 characters"] = (*both, 15, True)
    for length, ours, bound in (("80", "majority", 0.3), ("400", "majority", 0.5), ("2000", "majority", 0.9),
                                ("8000", "majority, window", 0.5)):  # fmt: skip
        row = text[length]
        for key, shown in (("kolmo", "kolmo"), ("kolmo_one_size", "kolmo, one size")):
            ratios = [row[ours][which] / row[key][which] for which in ("best", "p50")]
            found[f"text to decision, {int(length):,} characters, {ours} / {shown}"] = (*ratios, bound, True)
        for key, shown in (("aurelio_free", "200"), ("aurelio_free_few", "10")):
            for router in ("majority", "smoothed_bayes"):
                mine, theirs = row["stages"][router], row["stages"][key]["scoring"]
                own = [theirs[w] / (mine["scoring"][w] + mine["deciding"][w]) for w in ("best", "p50")]
                what = f"own time, {int(length):,} characters: aurelio's router, {shown} texts a domain / {router}"
                found[what] = (*own, 50, False)
        for key, shown in (("minilm_knn", "MiniLM and kNN"), ("deberta_small", "DeBERTa-v3-small's size")):
            best = row[key]["best"] / row["majority"]["beside"][key]
            medians = row[key]["p50"] / row["majority"]["p50"]
            found[f"text to decision, {int(length):,} characters: {shown} / majority"] = (best, medians, 1000, False)
    same = text["8000"]["agreement"]["majority"]
    found["the window's decision is the full one's, 8,000 characters, majority"] = (same, None, 99, False)
    states = [state for one in numbers["confidence"]["blocks"]["routers"].values() for state in one.values()]
    worst = max(state["expected_calibration_error"] for state in states)
    found["the worst ECE of any router and state, blocks"] = (worst, None, 0.03, True)
    return found


def test_each_aim_is_made_of_the_numbers_that_it_names():
    numbers = _numbers()
    found = {one.what: (one.measured, one.by_medians, one.bound, one.at_most) for one in aims.targets(numbers)}
    expected = _expected(numbers)
    assert sorted(found) == sorted(expected)
    for what, values in expected.items():
        assert found[what] == pytest.approx(values), what


def test_an_aim_shows_what_stands_beside_it():
    numbers = _numbers()
    text = numbers["decisions"]["text"]
    notes = {one.what: one.note for one in aims.targets(numbers) if one.note}
    for length in FIRST_AT:
        row = text[length]
        ratio = row["minilm_knn"]["best"] / row[aims.FIRST_ONLY]["beside"]["minilm_knn"]
        note = notes.pop(f"text to decision, {int(length):,} characters: MiniLM and kNN / majority")
        assert note == f"{aims.number(ratio)}× where ours, too, reads the beginning only"
    row = text["400"]
    whole = row["aurelio_free_few"]["best"] / row["smoothed_bayes"]["best"]
    what = "own time, 400 characters: aurelio's router, 10 texts a domain / smoothed_bayes"
    assert notes[what] == f"{aims.number(whole)}× with our tokenizing"
    assert all(what.startswith("own time") for what in notes)


@pytest.mark.parametrize(
    ("measured", "bound", "at_most", "met"),
    [(2.0, 2.0, True, True), (2.1, 2.0, True, False), (200, 200, False, True), (199, 200, False, False)],
)
def test_an_aim_is_met_on_its_own_side_of_the_bound(measured, bound, at_most, met):
    one = aims.Target("what", measured, bound, at_most, " µs", by_medians=1.0)  # medians judge nothing
    assert one.met is met
    assert one.cells()[-1] == ("yes" if met else "no")
    assert one.cells()[2:4] == ["1 µs", f"{'≤' if at_most else '≥'} {bound:g} µs"]
    assert len(one.cells()) == len(aims.COLUMNS)


def test_the_report_says_what_was_measured():
    numbers = _numbers()
    page = report.markdown(numbers)
    for table in report.tables(numbers):
        assert all(len(row) == len(table.columns) for row in table.rows), table.title
    states = numbers["confidence"]["blocks"]["routers"]["ridge"]
    errors = [f"{state['expected_calibration_error']:.3f}" for state in states.values()]
    first = states["fitted"]
    cells = f"1,020 | {100 * first['accuracy']:.1f} | {errors[0]} | {first['chance']:.3f} | {first['brier_score']:.3f}"
    assert f"| blocks: ridge | {cells} |  | {errors[1]} | {errors[2]} |" in page
    assert "| 1,000 | 2.50 | 600.0 (from 2%) | 240× | 1e-06 |" in page
    assert "| 82.0 (80.0 to 83.0) | 0.5 + 1.25 to compile | 0.25 |" in page
    assert "dictionaries of one size have 8,000 bytes (passages)" in page
    row = numbers["decisions"]["ids"]["one_prompt"]["230"]["naive_bayes"]
    assert "{}; {} / {}".format(*(aims.number(row[which]) for which in ("best", "p50", "p99"))) in page


def test_the_gateway_has_no_99th_percentile_of_few_answers():
    numbers = _numbers()
    rows = {(row[0], row[2]): row for row in report.gateway(numbers).rows}
    assert len(rows) == 8
    for clients in ("1", "128"):
        ways = numbers["gateway"]["0.3 s"][clients]
        for way, base in (("named", "upstream alone"), ("auto, streamed", "upstream alone, streamed")):
            shown = {q: "{:.1f}, {:.1f}: {:+.1f}".format(
                ways[way][f"p{q}_ms"], ways[base][f"p{q}_ms"], ways[way][f"p{q}_ms"] - ways[base][f"p{q}_ms"],
            ) for q in (50, 99)}  # fmt: skip
            rates = f"{ways[way]['requests_per_second']:,.0f} of {ways[base]['requests_per_second']:,.0f}"
            assert rows[clients, way][3:] == [shown[50], "-" if clients == "1" else shown[99], rates]


def test_figures_are_drawn(tmp_path):
    import report_figures

    numbers = _numbers()
    report_figures.save_decisions(numbers, tmp_path / "decisions.png")
    report_figures.save_serving(numbers, tmp_path / "serving.png")
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("decisions.png", "serving.png"))


def test_no_two_lines_of_a_figure_look_the_same():
    import report_figures

    assert report_figures.STYLES.keys() == report_figures.NAMES.keys()
    for column in ("marker", "color and line"):
        looks = [style[2] if column == "marker" else style[:2] for style in report_figures.STYLES.values()]
        assert len({str(look) for look in looks}) == len(looks), column
