"""From the value of a row's field to text: a string as it is, a list of messages as it is asked for."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from ir3de.data.rows import content_suffix, decompressed, json_rows, parquet_values
from ir3de.data.sources import Source

Messages = Literal["contents", "roles"]
JSON_SUFFIXES = (".jsonl", ".json")


def file_values(file: Path, field: str, where: str) -> Iterator[Any]:
    """Yield one field of every row of a JSON file (compressed or not) or a Parquet file."""
    if content_suffix(file.name) == ".parquet":
        yield from parquet_values(file, field, where)
        return
    with file.open("rb") as raw:
        yield from json_values(decompressed(raw, file.name), field, where)


def json_values(stream: IO[bytes], field: str, where: str) -> Iterator[Any]:
    """Yield one field of every JSON object; None where one lacks it.

    Raises:
        ValueError: if the first object lacks it.
    """
    for number, row in enumerate(json_rows(stream, where)):
        if number == 0:
            check_field(field, list(row), where)
        yield row.get(field)


def check_field(field: str, columns: list[str], where: str) -> None:
    """Refuse a field that a table does not have.

    Raises:
        ValueError: naming those that it has.
    """
    if field not in columns:
        raise ValueError(f"Expected the field `{field}` in {where}, but it has {columns}. Set `field` to one of these.")


def texts(
    source: Source, values: Iterator[Any], *, field: str, where: str, messages: Messages | None = None
) -> Iterator[str]:
    """Yield each value as text; ``source.left_out`` counts the rows that have none.

    Raises:
        ValueError: if a value is no text, or no list of messages where ``messages`` is given.
    """
    for number, value in enumerate(values):
        if value is None:
            source.left_out["rows without a value"] += 1
        elif messages is not None:
            yield _dialogue(value, messages, f"the field `{field}` of {where}, row {number}")
        elif isinstance(value, str):
            yield value
        else:
            raise ValueError(
                f"Expected text in the field `{field}` of {where}, but row {number} has {type(value).__name__}."
                " For a list of messages set `messages`: `contents` or `roles`."
            )


def _dialogue(value: Any, messages: Messages, where: str) -> str:
    if not isinstance(value, list) or not all(_is_message(one) for one in value):
        raise ValueError(
            f"Expected a list of messages, each with `role` and `content`, in {where}, but got {str(value)[:80]!r}."
            " Set `messages: null` for a field that holds text."
        )
    if messages == "contents":
        return " ".join(one["content"] for one in value)
    return "\n\n".join(f"{one['role'].capitalize()}: {one['content']}" for one in value)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)
