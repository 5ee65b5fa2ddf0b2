"""Text and token ids that are a column of a table: JSON, CSV, Parquet, or a data set of the Hugging Face hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.csv as arrow_csv
import pyarrow.parquet as arrow_parquet

from ir3de.data.fields import JSON_SUFFIXES, Messages, check_field, file_values, texts
from ir3de.data.hub_cache import load_hub_dataset
from ir3de.data.rows import COMPRESSIONS, decompressed, json_rows
from ir3de.data.sources import (
    TEXT_SUFFIXES,
    Source,
    TextFiles,
    TextSource,
    TokenSource,
    file_stamps,
    files_at,
    known_suffix,
)

_COMPRESSED = tuple(f"{suffix}{compression}" for suffix in JSON_SUFFIXES for compression in COMPRESSIONS)
TABLE_SUFFIXES = (*JSON_SUFFIXES, ".csv", ".parquet", *_COMPRESSED)


class TableFiles(TextSource):
    """A JSON, JSONL, CSV or Parquet file, or a folder of them; every row is one document.

    Args:
        path: a file, or a folder that is searched with its subfolders for such files; JSON may be compressed
            (.jsonl.gz, .bz2, .xz, .zst).
        field: the column that holds the text.
        messages: for a column that holds a list of messages, each with `role` and `content`: `contents` joins the
            contents by a space, `roles` puts each in a paragraph after its role ("User: …"). Null: it holds text.
    """

    def __init__(self, path: str, field: str = "text", messages: Messages | None = None) -> None:
        super().__init__()
        self.path = path
        self.field = field
        self.messages = messages

    def files(self) -> list[Path]:
        """Return the files, sorted by path.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if a file's name does not end as a table's does.
        """
        files = files_at(self.path, tuple(f"**/*{suffix}" for suffix in TABLE_SUFFIXES))
        for file in files:
            if known_suffix(file.name, TABLE_SUFFIXES) is None:
                raise ValueError(f"Expected a table ({', '.join(TABLE_SUFFIXES)}), but got `{file}`.")
        return files

    def check(self) -> None:
        for file in self.files():
            check_field(self.field, _columns(file), f"`{file}`")

    def identity(self) -> dict[str, Any]:
        settings = [self.path, self.field, *([self.messages] if self.messages else [])]
        return {"class": "TableFiles", "settings": settings, "files": file_stamps(self.files())}

    def documents(self) -> Iterator[str]:
        self.left_out.clear()
        for file in self.files():
            where = f"`{file}`"
            if file.suffix.lower() == ".csv":
                table = datasets.load_dataset("csv", data_files=str(file), split="train", streaming=True)
                values: Iterator[Any] = (row[self.field] for row in table)
            else:
                values = file_values(file, self.field, where)
            yield from texts(self, values, field=self.field, where=where, messages=self.messages)


class HubDataset(TextSource):
    """A data set of the Hugging Face hub, or one that its cache already holds; every row is one document.

    Args:
        name: the data set's id, such as ``openai/gsm8k``.
        field: the column that holds the text.
        config: the name of the configuration, where the data set has several.
        split: which of the data set's splits to read.
        revision: a branch, tag or commit. Without it a later run may find other data under the same name.
    """

    def __init__(
        self, name: str, field: str = "text", config: str | None = None, split: str = "train",
        revision: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.name = name
        self.field = field
        self.config = config
        self.split = split
        self.revision = revision

    def _load(self) -> Any:
        try:
            return load_hub_dataset(self.name, self.config, split=self.split, revision=self.revision)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"Expected the data set `{self.name}` (config {self.config}, split `{self.split}`) on the hub or in its"
                f" cache, but it cannot be had: {str(error).splitlines()[0]}"
            ) from error

    def check(self) -> None:
        check_field(self.field, list(self._load().column_names), f"the data set `{self.name}`")

    def identity(self) -> dict[str, Any]:
        return {"class": "HubDataset", "settings": [self.name, self.field, self.config, self.split, self.revision]}

    def documents(self) -> Iterator[str]:
        self.left_out.clear()
        values = (row[self.field] for row in self._load())
        yield from texts(self, values, field=self.field, where=f"the data set `{self.name}`")


class TokenizedParquet(TokenSource):
    """Parquet files of token ids; the ids are used as they are, with the experts' tokenizer.

    Args:
        path: a Parquet file, or a folder that is searched with its subfolders.
        field: the column that holds a list of token ids.
        as_is: whether rows stay as they are: a row is a sequence, nothing is packed, and copies and near-copies are
            not looked for. A closed-form fit then reads the files at the speed of reading. For domains that come with
            splits of their own.
    """

    def __init__(self, path: str, field: str = "input_ids", as_is: bool = False) -> None:
        super().__init__()
        self.path = path
        self.field = field
        self.as_is = as_is

    def files(self) -> list[Path]:
        """Return the files, sorted by path.

        Raises:
            FileNotFoundError: if there is none.
        """
        return files_at(self.path, ("**/*.parquet",))

    def check(self) -> None:
        for file in self.files():
            check_field(self.field, _columns(file), f"`{file}`")

    def identity(self) -> dict[str, Any]:
        return {"class": "TokenizedParquet", "settings": [self.path, self.field], "files": file_stamps(self.files())}

    def rows(self) -> Iterator[np.ndarray]:
        self.left_out.clear()
        for file in self.files():
            for batch in arrow_parquet.ParquetFile(file).iter_batches(columns=[self.field]):
                column = batch.column(0)
                for row in column:
                    if not row.is_valid:
                        self.left_out["rows without a value"] += 1
                        continue
                    yield np.asarray(row.values.to_numpy(zero_copy_only=False), dtype=np.int64)


def source_from_path(path: str) -> Source:
    """Return the source that a plain path stands for: tables by their suffix, anything else as text files.

    Raises:
        ValueError: if the suffix is of neither kind.
    """
    if known_suffix(path, TABLE_SUFFIXES) is not None:
        return TableFiles(path)
    if not Path(path).suffix or known_suffix(path, TEXT_SUFFIXES) is not None or Path(path).is_dir():
        return TextFiles(path)
    raise ValueError(
        f"Expected a folder, a text file ({', '.join(TEXT_SUFFIXES)}) or a table ({', '.join(TABLE_SUFFIXES)}), but got"
        f" `{path}`. Name the source itself: `class_path: TextFiles` with `path: {path}`."
    )


def _columns(file: Path) -> list[str]:
    if file.suffix.lower() == ".parquet":
        return list(arrow_parquet.read_schema(file).names)
    if file.suffix.lower() == ".csv":
        with arrow_csv.open_csv(file) as reader:
            return list(reader.schema.names)
    with file.open("rb") as raw:
        return list(next(json_rows(decompressed(raw, file.name), f"`{file}`"), {}))
