"""``python main.py drift``: whether live prompts are still those that the router was made for."""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ir3de.compiling.with_alarm import compile_with_alarm
from ir3de.console import console
from ir3de.files import check_writable, replace_file
from ir3de.serving.alarm import Alarm
from ir3de.serving.compiled import CompiledRouter
from ir3de.serving.drift import Drift, compare
from ir3de.serving.lines import Line, Tally, check_files, field_of, lines_of, standard_input
from ir3de.serving.traffic import USUAL, Traffic

COUNTS = ".npz"  # a file of saved counts, in the place of prompts


def drift(arguments: Sequence[str]) -> None:
    """Compare live prompts with the router's validation sequences, or with earlier prompts, and print what changed.

    Raises:
        FileNotFoundError: if the router or a file is not there.
        ValueError: if the router is damaged or has too few validation sequences, there are too few prompts, or what
            should be written is a folder.
    """
    given = _parser().parse_args(list(arguments))
    for option, path in (("save", given.save), ("json", given.json)):
        if path is not None:  # before the prompts are counted
            check_writable(path, option=f"--{option}", such_as=f"live{COUNTS if option == 'save' else '.json'}")
    folder = compile_with_alarm(given.router)
    router = CompiledRouter.load(folder)
    alarm = Alarm.load(folder, source=router.config["source"])
    earlier = alarm.usual_traffic() if given.against is None else Traffic.read(given.against)
    live = Traffic.none(
        vocab_size=alarm.config["vocab_size"], expert_names=router.expert_names, identity=router.identity
    )
    saved = [path for path in given.files if path.suffix == COUNTS]
    counted = _saved(saved, router.identity)
    if counted is not None:
        live += counted
    others = [path for path in given.files if path.suffix != COUNTS]
    if others or not saved:
        _count(live, router, alarm, _lines(others, given.field))
    out = console()
    if given.save is not None:
        replace_file(given.save, live.to_bytes())
        out.print(f"[green]written[/green] {escape(str(given.save))}: counts, no text", soft_wrap=True)
    found = compare(earlier, live, alarm)
    _show(found, router, earlier="validation" if given.against is None else escape(given.against.name))
    if given.json is not None:
        replace_file(given.json, (json.dumps(asdict(found), indent=1) + "\n").encode())
        out.print(f"[green]written[/green] {escape(str(given.json))}", soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="main.py drift",
        description="Compare live prompts with what a router was made for: experts' shares, unusual prompts, tokens.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    prompts = (
        "Live prompts: .jsonl files, others with a prompt a line, and counts that --save wrote (.npz), all added up."
    )
    prompts += " Counts of another router are left out."
    add("files", nargs="*", type=Path, help=f"{prompts} Without files, standard input has a prompt a line.")
    router = "A saved router's folder (compiled when it is first used), or a compiled one's."
    add("--router", required=True, help=router)
    field = "Lines, of files or of standard input, are JSON objects with the prompt in this field."
    add("--field", help=f"{field} Not given, it is `text` for .jsonl files.")
    add("--against", type=Path, help="Compare with these counts of earlier prompts, not with validation sequences.")
    add("--save", type=Path, help="Write the counts of the live prompts to this .npz file: integers, no text.")
    add("--json", type=Path, help="Write what changed to this file.")
    return parser


def _saved(files: Sequence[Path], identity: str) -> Traffic | None:
    """Return the sum of the saved counts that are this router's, and say of how many others they are not.

    Raises:
        ValueError: if all of them are another router's.
    """
    own, others = None, []
    for path in files:
        found = Traffic.read(path)
        if found.identity != identity:
            others.append(path)
        else:
            own = found if own is None else own + found
    if others and own is None:
        raise ValueError(
            f"Expected counts of one router, {identity[:12]}, but those in {[str(path) for path in others]} are another"
            " one's. Count the prompts again with the router as it is now."
        )
    if others:
        names = ", ".join(str(path) for path in others)
        console(stderr=True).print(
            f"{len(others)} files are another router's and were left out: {names}", soft_wrap=True, markup=False
        )
    return own


def _lines(files: Sequence[Path], field: str | None) -> Iterator[list[Line]]:
    check_files(files)
    if not files:
        yield from lines_of(standard_input(), json_field=field)
    for path in files:
        with path.open("rb") as file:
            yield from lines_of(file, json_field=field_of(path, field), source=str(path))


def _count(live: Traffic, router: CompiledRouter, alarm: Alarm, batches: Iterator[list[Line]]) -> None:
    """Count prompts into ``live``, and say what could not be."""
    tally = Tally()
    columns = (TextColumn("{task.completed:,} prompts"), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        for batch in batches:
            readings = iter(router.read_many([line.text for line in batch if line.error is None]))
            for line in batch:
                tally.prompts += 1
                tally.replaced += line.replaced
                reading = next(readings) if line.error is None else None
                if reading is None or not len(reading.ids_T):
                    error = line.error or "without a token"
                    tally.errors[error] = tally.errors.get(error, 0) + 1
                    continue
                unusual = alarm.check(reading.ids_T).p_value < USUAL
                live.count(reading.ids_T, expert=router.decide(reading.ids_T), unusual=unusual)
            progress.advance(task, len(batch))
    for sentence in tally.report():
        console(stderr=True).print(sentence.replace("were not routed", "were not counted"), soft_wrap=True)


def _show(found: Drift, router: CompiledRouter, *, earlier: str) -> None:
    out = console()
    table = Table(title=f"{found.prompts[1]:,} live prompts against {found.prompts[0]:,} of {earlier}")
    for column in ("expert", "share then %", "live %", "p", f"unusual (p < {USUAL}) then %", "live %", "p"):
        table.add_column(column, justify="left" if column == "expert" else "right")
    for one in found.experts:
        share, unusual = ([_percent(value) for value in pair] for pair in (one.share, one.unusual))
        table.add_row(escape(one.expert), *share, _p(one.share_p_value), *unusual, _p(one.unusual_p_value))
    out.print(table)
    out.print(
        f"[bold]tokens[/bold]: distance {found.distance:.4f}, of which {found.by_chance:.4f} by chance, p ="
        f" {found.p_value:.4f} (0: the same distribution, 1: no token in common)",
        soft_wrap=True,
    )
    then, live = found.from_training
    out.print(
        f"[bold]from the training counts[/bold], mixed as the prompts are: {then:.4f} then, {live:.4f} live",
        soft_wrap=True,
    )
    if not found.telling:
        out.print("no token's share changed by more than chance")
        return
    tokens = Table(title="tokens that tell most")
    for column in ("token", "then, of 10,000", "live", "standard errors"):
        tokens.add_column(column, justify="left" if column == "token" else "right")
    for token in found.telling:
        text = router.reference.tokenizer.decode([token.token], skip_special_tokens=False)
        shares = (f"{10_000 * value:.2f}" for value in token.share)
        tokens.add_row(escape(repr(text)), *shares, f"{token.z:+.1f}")
    out.print(tokens)


def _percent(value: float | None) -> str:
    return "no prompts" if value is None else f"{100 * value:.1f}"


def _p(value: float) -> str:
    return f"[bold red]{value:.4f}[/bold red]" if value < 0.01 else f"{value:.4f}"
