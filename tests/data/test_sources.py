"""Files, tables and installed packages as sources."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ir3de.data.installed import Docstrings, LicenceTexts, PackageFiles, PythonSource
from ir3de.data.prose import docstring_prose
from ir3de.data.sources import TextFiles
from ir3de.data.tables import HubDataset, TableFiles, TokenizedParquet, source_from_path

TEXTS = ["first, with a comma", "second\nwith two lines", "third ☕"]


@pytest.fixture
def tables(tmp_path):
    rows = [{"body": text, "n": i} for i, text in enumerate(TEXTS)]
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    (tmp_path / "x.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    with (tmp_path / "x.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["body", "n"])
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    return tmp_path


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_tables_give_their_field(tables, suffix):
    source = TableFiles(str(tables / f"x.{suffix}"), field="body")
    source.check()
    assert list(source.documents()) == TEXTS


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_a_missing_field_names_those_that_there_are(tables, suffix):
    with pytest.raises(ValueError, match=r"Expected the field `text` .*\['body', 'n'\]"):
        source_from_path(str(tables / f"x.{suffix}")).check()


def test_a_folder_of_tables_is_read_in_order(tables):
    for name in ("x.json", "x.csv", "x.parquet"):
        (tables / name).unlink()
    (tables / "a").mkdir()
    (tables / "a" / "y.jsonl").write_text(json.dumps({"body": "earlier"}) + "\n" + json.dumps({"body": None}))
    source = TableFiles(str(tables), field="body")
    assert list(source.documents()) == ["earlier", *TEXTS]
    assert source.left_out == {"rows without a value": 1}


def test_numbers_are_not_text(tables):
    with pytest.raises(ValueError, match="row 0 has int"):
        list(TableFiles(str(tables / "x.jsonl"), field="n").documents())


def test_text_files_are_documents(tmp_path):
    for name in ("b.txt", "a.md", "sub/c.rst", "ignored.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert list(TextFiles(str(tmp_path)).documents()) == ["a.md", "b.txt", "sub/c.rst"]
    assert list(TextFiles(str(tmp_path), pattern="*.py").documents()) == ["ignored.py"]
    assert list(source_from_path(str(tmp_path / "b.txt")).documents()) == ["b.txt"]


def test_bytes_that_are_not_text_name_the_file(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"Expected utf-8 text in `.*x.txt`, but byte 3 is not"):
        list(TextFiles(str(tmp_path)).documents())
    assert list(TextFiles(str(tmp_path), encoding_errors="replace").documents()) == ["caf\ufffd"]
    assert list(TextFiles(str(tmp_path), encoding="latin-1").documents()) == ["café"]
    with pytest.raises(ValueError, match="name of an encoding"):
        list(TextFiles(str(tmp_path), encoding="utf8000").documents())


@pytest.mark.parametrize("make", [TextFiles, TableFiles, TokenizedParquet])
def test_a_missing_path_is_named(make, tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected a file or a folder at `.*/nowhere`"):
        make(str(tmp_path / "nowhere")).check()
    with pytest.raises(FileNotFoundError, match="found none"):
        make(str(tmp_path)).check()


def test_a_path_of_unknown_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="class_path: TextFiles"):
        source_from_path(str(tmp_path / "x.docx"))


def test_an_unreachable_data_set_is_one_sentence(monkeypatch):
    def unreachable(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr("datasets.load_dataset_builder", unreachable)
    with pytest.raises(ValueError, match="data set `a/b` .* cannot be had: no network"):
        HubDataset("a/b").check()


def test_token_rows_are_read(tmp_path):
    pq.write_table(pa.table({"input_ids": [[1, 2], [3]]}), tmp_path / "x.parquet")
    rows = list(TokenizedParquet(str(tmp_path)).rows())
    assert [row.tolist() for row in rows] == [[1, 2], [3]]
    assert rows[0].dtype == np.int64


def test_changed_files_have_another_identity(tmp_path):
    (tmp_path / "x.txt").write_text("a")
    before = TextFiles(str(tmp_path)).identity()
    (tmp_path / "x.txt").write_text("ab")
    assert TextFiles(str(tmp_path)).identity() != before


DOCSTRING = """Return the sum.

A formula:

.. math:: a + b

.. code-block:: python

    secret = 1

As in::

    hidden(2)

Parameters
----------
a : int
    The first.

Examples
--------
>>> add(1, 2)
3

Notes
-----
Fast. ```inline``` stays.

```python
fenced = 3
```

Examples
--------
>>> add(3, 4)
7
"""


def test_prose_keeps_words_and_formulas_and_loses_code():
    prose = docstring_prose(DOCSTRING)
    for kept in ("Return the sum.", ".. math:: a + b", "As in:", "a : int", "The first.", "Notes\n-----\nFast."):
        assert kept in prose
    for code in (">>>", "secret", "hidden", "fenced", "Examples", "add("):
        assert code not in prose


@pytest.fixture
def package(tmp_path, monkeypatch):
    root = tmp_path / "site" / "madeup"
    (root / "tests").mkdir(parents=True)
    (root / "__init__.py").write_text('raise RuntimeError("must not be imported")\n')
    (root / "a.py").write_text(
        '"""Module words."""\nclass A:\n    """Class words."""\n    async def f(self):\n        "f words"\n'
    )
    (root / "broken.py").write_text("def {{ name }}")
    (root / "tests" / "t.py").write_text('"""Test words."""')
    (root / "x.txt").write_text("data text")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return "madeup"


def test_docstrings_come_from_parsing(package):
    source = Docstrings([package], min_chars=8)
    assert sorted(source.documents()) == ["Class words.", "Module words."]
    assert source.left_out == {"modules that this Python cannot parse": 1, "docstrings below min_chars": 1}


def test_source_code_is_read_up_to_its_limit(package):
    whole = list(PythonSource([package]).documents())
    assert len(whole) == 3
    source = PythonSource([package], max_bytes=len(whole[0]) + 1)
    assert list(source.documents()) == whole[:1]
    assert source.left_out == {"files beyond max_bytes": 2}


def test_files_of_a_package(package):
    assert list(PackageFiles(package).documents()) == ["data text"]
    with pytest.raises(ValueError, match=r"match `\*.md` in the package madeup"):
        PackageFiles(package, pattern="*.md").check()


@pytest.mark.parametrize("make", [lambda p: Docstrings([p]), lambda p: PythonSource([p]), PackageFiles])
def test_a_missing_package_is_named(make):
    with pytest.raises(ValueError, match="pip install no_such_package"):
        make("no_such_package").check()


def test_installed_licences_are_found():
    licences = list(LicenceTexts(max_bytes=200_000).documents())
    assert any("copyright" in text.lower() for text in licences)


def test_standard_library_has_no_tests():
    assert not [file for file in PythonSource().files() if "test" in file.parts or "site-packages" in file.parts]
