"""Data files of a data-set repository of the hub, fetched and read as they are: no loading script is run."""

import hashlib
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import huggingface_hub.errors as hub_errors
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import tqdm

from ir3de.data.fields import JSON_SUFFIXES, Messages, file_values, json_values, texts
from ir3de.data.rows import ARCHIVES, archive_members, content_suffix, decompressed, text_lines
from ir3de.data.sources import TextSource, not_blank

_NUMBERED = re.compile(r"(.*)-(\d+)-of-(\d+)(.*)")
_SHA256_DIGITS = 64
_UNREACHED = (OSError, hub_errors.HTTPError)  # type: ignore[attr-defined]  # that of the hub's own httpx
_SHOWN = 5


class _Quiet(tqdm):
    """No bar for a file of a few lines."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **(settings | {"disable": True}))


class HubFiles(TextSource):
    """Files of a data-set repository of the Hugging Face hub: JSON lines, Parquet, text, or .tar archives of these.

    JSON and text may be compressed (.gz, .bz2, .xz, .zst). A row of a table is a document, and so is a line of a text
    file. Files are fetched when their turn comes, into the hub's cache (`HF_HOME`), and checked against the hub's
    SHA-256; a fetch that was interrupted goes on where it stopped.

    Args:
        name: the repository's id, such as ``open-web-math/open-web-math``.
        files: names of files in the repository, or patterns of them (``data/train-*.parquet``): those of the first
            pattern come first, those of one pattern by name.
        field: the column of a table that holds the text.
        messages: for a column that holds a list of messages: `contents` joins their contents by a space, `roles` puts
            each in a paragraph after its role. Null: it holds text.
        member: which files of a .tar archive to read, as a pattern of their names (``*/train.txt``).
        interleave: whether the files are read by turns, a document of each; otherwise one after another.
        revision: a branch, tag or commit. Without it a later run may find other data under the same name.
    """

    def __init__(
        self,
        name: str,
        files: str | list[str],
        field: str = "text",
        *,
        messages: Messages | None = None,
        member: str | None = None,
        interleave: bool = False,
        revision: str | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.patterns = [files] if isinstance(files, str) else list(files)
        self.field = field
        self.messages = messages
        self.member = member
        self.interleave = interleave
        self.revision = revision

    def check(self) -> None:
        """Refuse what could not be read later: nothing is fetched but the list of files.

        Raises:
            ValueError: if the hub does not have the repository, does not give its files, or none has such a name.
            FileNotFoundError: if the hub is out of reach and the cache does not hold the files.
        """
        commit, files = self._listing
        for file in files:
            suffix = content_suffix(file)
            if suffix not in (*JSON_SUFFIXES, ".parquet", ".txt", *ARCHIVES):
                raise ValueError(
                    f"Expected .jsonl, .json, .parquet, .txt or .tar files of `{self.name}`, but got `{file}`."
                    " Set `files` to those that hold the text."
                )
            if suffix in ARCHIVES and self.member is None:
                raise ValueError(
                    f"Expected `member`, the pattern of the files to read in `{file}` of `{self.name}`, but got null."
                )
        try:
            get_hf_file_metadata(hf_hub_url(self.name, files[0], repo_type="dataset", revision=commit))
        except GatedRepoError as error:
            if self._cached(files[0], commit) is None:
                raise ValueError(self._gated()) from error
        except _UNREACHED as error:
            missing = [file for file in files if self._cached(file, commit) is None]
            if missing:
                raise FileNotFoundError(self._missing(missing, error)) from error

    def identity(self) -> dict[str, Any]:
        commit, files = self._listing
        settings = [self.name, self.field, self.messages, self.member, self.interleave]
        return {"class": "HubFiles", "settings": settings, "commit": commit, "files": files}

    def documents(self) -> Iterator[str]:
        self.left_out.clear()
        commit, files = self._listing
        if not self.interleave:
            for file in files:
                yield from self._documents_of(file, commit)
            return
        turns = [self._documents_of(file, commit) for file in files]
        while turns:
            for one in list(turns):
                document = list(islice(one, 1))
                if document:
                    yield document[0]
                else:
                    turns.remove(one)

    def _documents_of(self, file: str, commit: str) -> Iterator[str]:
        where = f"`{file}` of `{self.name}`"
        path = self._fetched(file, commit)
        if content_suffix(file) in ARCHIVES:
            assert self.member is not None, "looked at by `check`"
            for name, stream in archive_members(path, self.member, where):
                inner = f"`{name}` in {where}"
                if content_suffix(name) in JSON_SUFFIXES:
                    values = json_values(stream, self.field, inner)
                    yield from texts(self, values, field=self.field, where=inner, messages=self.messages)
                else:
                    yield from not_blank(self, text_lines(stream, inner))
        elif content_suffix(file) == ".txt":
            with path.open("rb") as raw:
                yield from not_blank(self, text_lines(decompressed(raw, path.name), where))
        else:
            values = file_values(path, self.field, where)
            yield from texts(self, values, field=self.field, where=where, messages=self.messages)

    def _fetched(self, file: str, commit: str) -> Path:
        self.reading = f"fetching {file}"
        try:
            path = Path(hf_hub_download(self.name, file, repo_type="dataset", revision=commit))
        except GatedRepoError as error:
            raise ValueError(self._gated()) from error
        except _UNREACHED as error:
            raise FileNotFoundError(self._missing([file], error)) from error
        self.reading = f"checking {file}"
        promised = path.resolve().name  # the hub's cache names large files by their SHA-256
        if len(promised) == _SHA256_DIGITS and _sha256(path) != promised:
            raise ValueError(
                f"`{path.resolve()}`, fetched as `{file}` of `{self.name}`, is not what the hub promised: its SHA-256"
                " differs. Delete it and run again."
            )
        self.reading = f"reading {file}"
        return path

    @cached_property
    def _listing(self) -> tuple[str, list[str]]:
        """The commit, and the files that the patterns mean, in the order of reading."""
        try:
            info = HfApi().dataset_info(self.name, revision=self.revision)
            # Leaves the revision and its list of files in the cache, for later runs without the hub.
            snapshot_download(
                self.name, repo_type="dataset", revision=self.revision, allow_patterns=["README.md"], tqdm_class=_Quiet
            )
        except GatedRepoError as error:
            raise ValueError(self._gated()) from error
        except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
            raise ValueError(
                f"The hub has no data set `{self.name}` at revision `{self.revision or 'main'}`, or does not show it"
                f" ({_first_line(error)}). Check the name; a private one needs a token: `hf auth login`, or HF_TOKEN."
            ) from error
        except _UNREACHED as error:
            return self._listing_in_cache(error)
        return str(info.sha), self._matching([one.rfilename for one in info.siblings or []])

    def _listing_in_cache(self, error: Exception) -> tuple[str, list[str]]:
        try:
            folder = snapshot_download(
                self.name, repo_type="dataset", revision=self.revision, local_files_only=True,
                allow_patterns=self.patterns,
            )  # fmt: skip
        except LocalEntryNotFoundError as missing:
            # A subclass of it names the files that an interrupted fetch has left out.
            cause = error if type(missing) is LocalEntryNotFoundError else missing
            raise FileNotFoundError(self._missing(self.patterns, cause)) from error
        names = [file.relative_to(folder).as_posix() for file in Path(folder).rglob("*") if file.is_file()]
        found = self._matching(names)
        missing_parts = _parts_left_out(found, self.patterns)
        if missing_parts:
            raise FileNotFoundError(self._missing(missing_parts, error)) from error
        return Path(folder).name, found

    def _matching(self, names: list[str]) -> list[str]:
        found: dict[str, None] = {}
        for pattern in self.patterns:
            matching = sorted(name for name in names if fnmatch(name, pattern))
            if not matching:
                raise ValueError(
                    f"Expected files that match `{pattern}` in the data set `{self.name}`, but found none."
                    f" It holds {sorted(names)[:_SHOWN]}{' and others' if len(names) > _SHOWN else ''}. Set `files`."
                )
            found |= dict.fromkeys(matching)
        return list(found)

    def _cached(self, file: str, commit: str) -> Path | None:
        try:
            return Path(hf_hub_download(self.name, file, repo_type="dataset", revision=commit, local_files_only=True))
        except (EntryNotFoundError, OSError):
            return None

    def _gated(self) -> str:
        return (
            f"The data set `{self.name}` is given to those only who accept its conditions. Accept them at"
            f" https://huggingface.co/datasets/{self.name}, then run `hf auth login` or set HF_TOKEN to a token of that"
            " account."
        )

    def _missing(self, files: list[str], error: Exception) -> str:
        shown = ", ".join(f"`{file}`" for file in files[:_SHOWN])
        include = " ".join(f"--include '{pattern}'" for pattern in self.patterns)
        return (
            f"Could not get {shown}{f' and {len(files) - _SHOWN} more' if len(files) > _SHOWN else ''} of the data set"
            f" `{self.name}`: not in the cache, and the hub was not reached ({_first_line(error)}). Where it can be"
            f" reached, run `hf download --repo-type dataset {self.name} {include}` with the same HF_HOME, or give"
            " local files as the domain's source."
        )


def _parts_left_out(files: list[str], patterns: list[str]) -> list[str]:
    """Return the parts that are not there, where names say how many there are (``train-00003-of-00114.parquet``)."""
    parts = [match.groups() for match in map(_NUMBERED.fullmatch, files) if match is not None]
    there = {(stem, int(number), total) for stem, number, total, _ in parts}
    ends = {(stem, len(number), total): end for stem, number, total, end in parts}
    missing = []
    for (stem, digits, total), end in ends.items():
        for number in range(int(total)):
            name = f"{stem}-{number:0{digits}}-of-{total}{end}"  # up to a hash of its own, in some repositories
            if (stem, number, total) not in there and any(fnmatch(name, pattern) for pattern in patterns):
                missing.append(f"{stem}-{number:0{digits}}-of-{total}")
    return missing


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
