"""One domain: each of its sources read once, its splits written, and the folder put in its place when all is there."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ir3de.data.sources import TextSource
from ir3de.data.splits import SPLITS
from ir3de.prepare.documents import Document, DocumentPass
from ir3de.prepare.encode import Around, encoded
from ir3de.prepare.journal import Journal, SplitState, finished, locked
from ir3de.prepare.rows import SplitWriter
from ir3de.prepare.settings import Pass, Preparation, passes_of
from ir3de.pretrained.tokenizer import TextTokenizer

_VERSION = 1  # of what is written here; a new one makes a folder be made anew


class Status:
    """What the making of a domain is at, for a progress bar that looks at it from time to time."""

    def __init__(self) -> None:
        self.source: TextSource | None = None
        self.split = ""
        self.state = SplitState()

    def __str__(self) -> str:
        if self.source is None:
            return ""
        counts = f"{self.state.documents:,} documents, {self.state.rows:,} rows, {self.state.tokens:,} tokens"
        return f"{self.split}: {counts}" + (f" ({self.source.reading})" if self.source.reading else "")


@dataclass(frozen=True)
class DomainPlan:
    """What is to be made of a domain, and where."""

    name: str
    folder: Path
    settings: Preparation
    passes: list[Pass]
    block_length: int
    pack: bool

    @classmethod
    def of(cls, name: str, folder: Path, settings: Preparation, *, block_length: int, pack: bool) -> "DomainPlan":
        """Return the plan, with its sources checked.

        Raises:
            ValueError: if a source cannot be read or does not fill the splits.
            FileNotFoundError: if a source is not there.
        """
        passes = passes_of(settings, name)
        for one in passes:
            one.source.check()
        return cls(name, folder, settings, passes, block_length, pack)

    def identity(self, tokenizer: TextTokenizer) -> dict[str, Any]:
        """Return what the files depend on."""
        form = {"block_length": self.block_length, "pack": self.pack, "separator": self.settings.separator}
        files = {"rows_per_file": self.settings.rows_per_file, "version": _VERSION}
        passes = {_name(one): one.identity() for one in self.passes}
        return {"tokenizer": tokenizer.fingerprint, **form, **files, "passes": passes}

    def make(self, tokenizer: TextTokenizer, tokenizer_name: str, around: Around, status: Status) -> dict[str, Any]:
        """Make what is missing, and return the manifest.

        Raises:
            ValueError: if what is there was made with other settings, or a split has no row.
        """
        identity = self.identity(tokenizer)
        manifest = finished(self.folder, identity)
        if manifest is not None:
            return manifest
        unfinished = self.folder.with_name(f".{self.folder.name}.unfinished")
        with locked(unfinished):
            manifest = finished(self.folder, identity)  # another process may have been at it until the lock was free
            if manifest is not None:
                return manifest
            journal = Journal.opened(unfinished, identity, tokenizer_name)
            for one in self.passes:
                if _name(one) not in journal.left_out:
                    self._fill(one, journal, tokenizer, around, status)
            empty = [split for split in SPLITS if not journal.splits[split].rows]
            if empty:
                raise ValueError(
                    f"Expected at least one row in each split of `{self.name}`, but {' and '.join(empty)} got none"
                    f" ({journal.left_out}). Delete `{unfinished}` and give it more text, or smaller blocks."
                )
            os.replace(unfinished, self.folder)
        manifest = finished(self.folder, identity)
        assert manifest is not None, "it was put there just now"
        return manifest

    def _fill(self, one: Pass, journal: Journal, tokenizer: TextTokenizer, around: Around, status: Status) -> None:
        writers = {
            split: SplitWriter(
                journal,
                split,
                block_length=self.block_length,
                pack=self.pack,
                rows_per_file=self.settings.rows_per_file,
                max_tokens=one.max_tokens.get(split),
            )
            for split in one.turns
        }
        documents = DocumentPass(one)
        left_out = None
        status.source = one.source
        for document, ids in encoded(_missing(documents, writers), tokenizer, processes=self.settings.processes):
            writer = writers[document.split]
            if writer.state.complete:
                continue
            writer.add(document.number, around.put(ids))
            status.split, status.state = document.split, writer.state
            if _all_complete(writers):
                left_out = document.left_out
                break
        for writer in writers.values():
            if not writer.state.complete:
                writer.finish()
        journal.left_out[_name(one)] = documents.left_out if left_out is None else left_out
        journal.save()


def _missing(documents: DocumentPass, writers: dict[str, SplitWriter]) -> Iterator[Document]:
    """Yield the documents that are not in what has been written already, until every split is complete."""
    for document in documents:
        if _all_complete(writers):
            return
        state = writers[document.split].state
        if not state.complete and document.number >= state.document:
            yield document


def _all_complete(writers: dict[str, SplitWriter]) -> bool:
    return all(writer.state.complete for writer in writers.values())


def _name(one: Pass) -> str:
    return "+".join(one.turns)
