"""Rows of compressed files and archives, and what is said of those that are damaged."""

import bz2
import gzip
import io
import json
import lzma
import tarfile

import pyarrow as pa
import pytest

from ir3de.data.rows import archive_members, text_lines
from ir3de.data.sources import TextFiles
from ir3de.data.tables import TableFiles, source_from_path

TEXTS = [f"text number {i}, with a few more words ☕" for i in range(2000)]
LINES = "".join(json.dumps({"text": text, "n": i}) + "\n" for i, text in enumerate(TEXTS)).encode()
COMPRESS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: pa.Codec("zstd").compress(content, asbytes=True),
}


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_compressed_json_gives_its_field(tmp_path, kind, suffix):
    half = LINES.index(b"\n", len(LINES) // 2) + 1
    file = tmp_path / f"x.{kind}.{suffix}"
    file.write_bytes(COMPRESS[suffix](LINES[:half]) + COMPRESS[suffix](LINES[half:]))  # as parallel compressors write
    source = source_from_path(str(file))
    source.check()
    assert list(source.documents()) == TEXTS
    with pytest.raises(ValueError, match=r"Expected the field `body` .* but it has \['text', 'n'\]"):
        TableFiles(str(file), field="body").check()


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_text_is_one_document_or_its_lines(tmp_path, suffix):
    (tmp_path / f"x.txt.{suffix}").write_bytes(COMPRESS[suffix]("first ☕\r\n\n  \nsecond".encode()))
    assert list(TextFiles(str(tmp_path)).documents()) == ["first ☕\n\n  \nsecond"]
    lines = TextFiles(str(tmp_path), lines=True)
    assert list(lines.documents()) == ["first ☕", "second"]
    assert lines.left_out == {"blank lines": 2}
    assert lines.identity() != TextFiles(str(tmp_path)).identity()


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"no such file"])
def test_a_damaged_file_is_named(tmp_path, suffix, damage):
    file = tmp_path / f"x.jsonl.{suffix}"
    file.write_bytes(damage(COMPRESS[suffix](LINES)))
    with pytest.raises(ValueError, match=rf"`.*x.jsonl.{suffix}` is damaged or not whole .* get it again"):
        list(TableFiles(str(file)).documents())


@pytest.mark.parametrize(
    "content, message",
    [
        (b'{"text": "a"}\n{"text": \n', "Expected a JSON object in line 2"),
        (b'{"text": "a"}\n3\n', "line 2 has int"),
        (b"nothing\nof the kind", "Expected JSON lines or one JSON array"),
        (b'{"text": "a"}\n{"text": ["b"]}\n', "row 1 has list.* set `messages`"),
    ],
)
def test_json_that_is_none_is_named(tmp_path, content, message):
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(TableFiles(str(tmp_path)).documents())


@pytest.mark.parametrize("content", [b'[{"text": "a"},\n {"text": "b"}]', b'{"text": "a"}\n\n{"text": "b"}\n{"n": 1}'])
def test_json_may_be_an_array_or_lines(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    assert list(TableFiles(str(tmp_path)).documents()) == ["a", "b"]


MESSAGES = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]


@pytest.mark.parametrize("messages, text", [("contents", "What? That."), ("roles", "User: What?\n\nAssistant: That.")])
def test_messages_become_text_as_asked(tmp_path, messages, text):
    (tmp_path / "x.jsonl").write_text(json.dumps({"messages": MESSAGES}) + "\n" + json.dumps({"messages": None}))
    source = TableFiles(str(tmp_path), field="messages", messages=messages)
    assert list(source.documents()) == [text]
    assert source.left_out == {"rows without a value": 1}
    (tmp_path / "x.jsonl").write_text(json.dumps({"messages": "plain"}))
    with pytest.raises(ValueError, match="Expected a list of messages.*got 'plain'.*Set `messages: null`"):
        list(source.documents())


def archive(file, members):
    mode = "w:gz" if file.name.endswith(("gz", "tgz")) else "w"
    with tarfile.open(file, mode) as writer:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            writer.addfile(info, io.BytesIO(content))
    return file


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tgz"])
def test_members_of_an_archive_are_read_in_order(tmp_path, name):
    members = {"./d/valid.txt": b"no", "./d/train.txt": b"one\ntwo", "e/train.txt.gz": gzip.compress(b"three")}
    file = archive(tmp_path / name, members)
    read = [list(text_lines(stream, "x")) for _, stream in archive_members(file, "*/train.txt*", "`x`")]
    assert read == [["one", "two"], ["three"]]
    with pytest.raises(ValueError, match=r"matches `\*.csv` in `x`, but it begins with \['d/valid.txt'"):
        list(archive_members(file, "*.csv", "`x`"))


def test_an_archive_that_ends_early_is_named(tmp_path):
    file = archive(tmp_path / "x.tar.gz", {"d/train.txt": bytes(range(256)) * 4000})
    file.write_bytes(file.read_bytes()[:-600])
    read = (text_lines(stream, "`x`", encoding="latin-1") for _, stream in archive_members(file, "*", "`x`"))
    with pytest.raises(ValueError, match="`x` is damaged or not whole"):
        [list(lines) for lines in read]


def test_bytes_of_another_encoding_are_named(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match="Expected utf-8 text in `.*x.txt`"):
        list(TextFiles(str(tmp_path), lines=True).documents())
    assert list(TextFiles(str(tmp_path), lines=True, encoding="latin-1").documents()) == ["café"]
