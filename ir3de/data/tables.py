"""Text and token ids that are a column of a table: JSON, CSV, Parquet, or a data set of the Hugging Face hub."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.csv as arrow_csv
import pyarrow.parquet as arrow_parquet

from ir3de.data.sources import TEXT_SUFFIXES, Source, TextFiles, TextSource, TokenSource, file_stamps, files_at

TABLE_SUFFIXES = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


class TableFiles(TextSource):
    """A JSON, JSONL, CSV or Parquet file, or a folder of them; every row is one document.

    Args:
        path: a file, or a folder that is searched with its subfolders for such files.
        field: the column that holds the text.
    """

    def __init__(self, path: str, field: str = "text") -> None:
        super().__init__()
        self.path = path
        self.field = field

    def files(self) -> list[Path]:
        """Return the files, sorted by path.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if a file's name does not end in .json, .jsonl, .csv or .parquet.
        """
        files = files_at(self.path, tuple(f"**/*{suffix}" for suffix in TABLE_SUFFIXES))
        for file in files:
            if file.suffix.lower() not in TABLE_SUFFIXES:
                raise ValueError(f"Expected a table ({', '.join(TABLE_SUFFIXES)}), but got `{file}`.")
        return files

    def check(self) -> None:
        for file in self.files():
            _check_field(self.field, _columns(file), f"`{file}`")

    def identity(self) -> dict[str, Any]:
        return {"class": "TableFiles", "settings": [self.path, self.field], "files": file_stamps(self.files())}

    def documents(self) -> Iterator[str]:
        self.left_out.clear()
        for file in self.files():
            kind = TABLE_SUFFIXES[file.suffix.lower()]
            table = datasets.load_dataset(kind, data_files=str(file), split="train", streaming=True)
            yield from _texts(self, table, self.field, f"`{file}`")


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
            return datasets.load_dataset(self.name, self.config, split=self.split, revision=self.revision)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"Expected the data set `{self.name}` (config {self.config}, split `{self.split}`) on the hub or in its"
                f" cache, but it cannot be had: {str(error).splitlines()[0]}"
            ) from error

    def check(self) -> None:
        _check_field(self.field, list(self._load().column_names), f"the data set `{self.name}`")

    def identity(self) -> dict[str, Any]:
        return {"class": "HubDataset", "settings": [self.name, self.field, self.config, self.split, self.revision]}

    def documents(self) -> Iterator[str]:
        self.left_out.clear()
        yield from _texts(self, self._load(), self.field, f"the data set `{self.name}`")


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
            _check_field(self.field, _columns(file), f"`{file}`")

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
    suffix = Path(path).suffix.lower()
    if suffix in TABLE_SUFFIXES:
        return TableFiles(path)
    if suffix in ("", *TEXT_SUFFIXES) or Path(path).is_dir():
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
    with file.open(encoding="utf-8") as opened:
        first = next((line for line in opened if line.strip()), "")
    try:
        row = json.loads(first)
    except ValueError:  # one JSON value over several lines
        row = json.loads(file.read_text(encoding="utf-8"))
    while isinstance(row, list):
        row = row[0] if row else {}
    return list(row)


def _check_field(field: str, columns: list[str], where: str) -> None:
    if field not in columns:
        raise ValueError(f"Expected the field `{field}` in {where}, but it has {columns}. Set `field` to one of these.")


def _texts(source: Source, table: Any, field: str, where: str) -> Iterator[str]:
    for number, row in enumerate(table):
        text = row[field]
        if text is None:
            source.left_out["rows without a value"] += 1
        elif isinstance(text, str):
            yield text
        else:
            raise ValueError(
                f"Expected text in the field `{field}` of {where}, but row {number} has {type(text).__name__}."
            )
