"""The commands on saved routers: they need no trainer and no config, and stand beside LightningCLI's."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

import ir3de.data.installed  # noqa: F401 - lets `--data` name these sources by their class alone
from ir3de.compiling.router import compile_router
from ir3de.console import console
from ir3de.reasoning.lm_eval_command import lm_eval_command
from ir3de.route_command import main as route
from ir3de.statistics.statistics import content_hash
from ir3de.suggestions import RouterParser
from ir3de.upkeep.change import add_expert, merge, remove_expert
from ir3de.upkeep.drift import drift
from ir3de.upkeep.inspect import RouterSummary, inspect
from ir3de.upkeep.push import push
from ir3de.upkeep.verify import Check, verify


def _add_expert(arguments: Sequence[str]) -> None:
    given = _parse("add-expert", add_expert, arguments)
    certificate = add_expert(**given)
    _done(f"added {given['name']} to {given['router']}", given["router"], certificate)


def _remove_expert(arguments: Sequence[str]) -> None:
    given = _parse("remove-expert", remove_expert, arguments)
    certificate = remove_expert(**given)
    _done(f"removed {given['name']} from {given['router']}", given["router"], certificate)


def _merge(arguments: Sequence[str]) -> None:
    parser = RouterParser(prog="main.py merge", description=merge.__doc__)
    parser.add_argument("--routers", nargs="+", required=True, help="The saved routers' folders.")
    parser.add_argument("--into", required=True, help="The merged router's folder, which must not be there yet.")
    given = parser.parse_args(list(arguments))
    certificate = merge(given.routers, given.into)
    _done(f"merged {len(given.routers)} routers into {given.into}", given.into, certificate)


def _inspect(arguments: Sequence[str]) -> None:
    _show(inspect(**_parse("inspect", inspect, arguments)))


def _verify(arguments: Sequence[str]) -> None:
    given = _parse("verify", verify, arguments)
    checks = verify(**given)
    _show_checks(checks, title=f"{given['router']} against {given['against']}")
    failed = [check.what for check in checks if check.holds is False]
    if failed:
        raise ValueError(f"`{given['router']}` is not the router of `{given['against']}`: {', '.join(failed)} differ.")
    console().print("[green]verified[/green]: the router knows what the other knows, and nothing else", soft_wrap=True)


def _compile(arguments: Sequence[str]) -> None:
    folder = compile_router(**_parse("compile", compile_router, arguments))
    console().print(f"[green]compiled[/green] into {folder}", soft_wrap=True)


def _push(arguments: Sequence[str]) -> None:
    push(**_parse("push", push, arguments))


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "add-expert": _add_expert,
    "remove-expert": _remove_expert,
    "merge": _merge,
    "inspect": _inspect,
    "verify": _verify,
    "lm-eval": lm_eval_command,
    "compile": _compile,
    "route": route,
    "drift": drift,
    "push": _push,
}


def _parse(command: str, function: Callable[..., Any], arguments: Sequence[str]) -> dict[str, Any]:
    parser = RouterParser(prog=f"main.py {command}", description=(function.__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_function_arguments(function, as_positional=False)
    given = parser.instantiate_classes(parser.parse_args(list(arguments)))
    return {name: given[name] for name in given.keys(branches=True) if "." not in name}


def _done(what: str, router: str, certificate: Path) -> None:
    out = console()
    out.print(f"[green]{what}[/green]; certificate: {certificate}", soft_wrap=True)
    summary = inspect(router)
    if summary.scored:
        chosen = ", ".join(f"{key} {value}" for key, value in summary.chosen.items() if value is not None)
        out.print(f"chosen on validation data: {chosen}", soft_wrap=True)
    if summary.unchecked:
        out.print(f"[yellow]chosen without validation data of {', '.join(summary.unchecked)}[/yellow]", soft_wrap=True)


def _show(summary: RouterSummary) -> None:
    table = Table(title=f"{summary.router}, identity {summary.identity_hash[:16]}")
    for column in ("expert", "tokens", "validation", "counts", "most telling tokens", "model"):
        table.add_column(column, justify="right" if column in ("tokens", "validation") else "left")
    for one in summary.experts:
        telling = " ".join(repr(token) for token in one.telling)
        facts = one.facts
        sequences = f"{facts.get('validation_sequences', 0):,}"
        digest = content_hash(facts)[:12]
        table.add_row(one.name, f"{facts['tokens']:,}", sequences, digest, telling, one.model or "-")
    out = console()
    out.print(table)
    values = asdict(summary)
    for key in ("reads", "settings", "chosen"):
        shown = ", ".join(f"{name} {value}" for name, value in values[key].items())
        out.print(f"[bold]{key}[/bold]: {shown}", soft_wrap=True)
    if summary.effective_regularization is not None:
        ratio = summary.effective_regularization
        out.print(f"[bold]effective λ[/bold]: {ratio:.3g} of the Gram matrix's mean diagonal", soft_wrap=True)
    if summary.unchecked:
        out.print(f"[yellow]chosen without validation data of {', '.join(summary.unchecked)}[/yellow]", soft_wrap=True)


def _show_checks(checks: list[Check], *, title: str) -> None:
    table = Table(title=title)
    for column in ("what", "", "detail"):
        table.add_column(column, overflow="fold")
    marks = {True: "[green]equal[/green]", False: "[red]differs[/red]", None: "[yellow]not promised[/yellow]"}
    for check in checks:
        table.add_row(check.what, marks[check.holds], check.detail)
    console().print(table)
