"""Raw text to token Parquet: the rows, the splits, what is counted, and what is refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import processors

from ir3de.data.datamodule import DomainDataModule
from ir3de.data.domain import Splits
from ir3de.data.sources import TextSource
from ir3de.data.tables import TokenizedParquet
from ir3de.prepare.run import prepare
from ir3de.prepare.settings import Part
from tests.prepare.texts import (
    BLOCK,
    DOMAINS,
    SPLITS,
    config,
    documents,
    expected_run,
    rows,
    tokenizer_in,
    tree,
    write_jsonl,
)


class Spoken(TextSource):
    """Documents of a list; counts how often it is read, and how far."""

    def __init__(self, texts):
        super().__init__()
        self.texts = texts
        self.readings = 0
        self.given = 0

    def check(self):
        pass

    def identity(self):
        return {"class": "Spoken", "settings": len(self.texts)}

    def documents(self):
        self.readings += 1
        for text in self.texts:
            self.given += 1
            yield text


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tokenizer_in(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def split_texts(tmp_path):
    """Return a domain's documents by split, and the files that hold them."""
    texts = {split: documents("maths", size, seed=size) for split, size in zip(SPLITS, (60, 20, 30), strict=True)}
    files = {split: write_jsonl(tmp_path / f"raw/{split}.jsonl", texts[split]) for split in SPLITS}
    return texts, Splits(**files)


@pytest.mark.parametrize("rows_per_file", [5, 64, 10_000])
def test_packed_rows_are_windows_of_the_run(tmp_path, tokenizer, split_texts, rows_per_file):
    loaded, name = tokenizer
    texts, sources = split_texts
    prepare(config(tmp_path / "out", name, {"maths": sources}, rows_per_file=rows_per_file))
    for split in SPLITS:
        run = expected_run(texts[split], loaded, after=[loaded.end_of_text])
        count = (len(run) - 1) // BLOCK
        folder = tmp_path / "out/maths" / split
        assert rows(folder, "input_ids") == [run[i * BLOCK : (i + 1) * BLOCK] for i in range(count)]
        assert rows(folder, "label") == [run[i * BLOCK + 1 : (i + 1) * BLOCK + 1] for i in range(count)]
        files = sorted(folder.glob("*"))
        assert [pq.read_metadata(file).num_rows for file in files[:-1]] == [rows_per_file] * (len(files) - 1)
        assert pq.read_schema(files[0]) == pa.schema(
            [("input_ids", pa.list_(pa.int32())), ("label", pa.list_(pa.int32()))]
        )
        state = json.loads((tmp_path / "out/maths/prepare.json").read_text())["splits"][split]
        assert state["rows"] == count
        assert state["tokens"] == len(run)
        assert state["tokens_left_over"] == len(run) - count * BLOCK - 1
        assert state["documents"] == sum(bool(text) for text in texts[split])


def test_the_data_module_reads_what_was_written(tmp_path, tokenizer):
    _, name = tokenizer
    texts = {domain: documents(domain, 90) for domain in DOMAINS}
    domains = {domain: write_jsonl(tmp_path / f"{domain}.jsonl", texts[domain]) for domain in DOMAINS}
    prepare(config(tmp_path / "out", name, domains, read={domain: f"of/{domain}" for domain in DOMAINS}))
    data = DomainDataModule(
        root=str(tmp_path / "out"), domains={domain: f"of/{domain}" for domain in DOMAINS}, tokenizer=name,
        block_length=BLOCK, cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    data.prepare_data()
    for split in SPLITS:
        blocks = data.expert_blocks(split, domain="maths")
        batch = blocks[list(range(len(blocks)))]
        assert batch["input_ids"].tolist() == rows(tmp_path / "out/of/maths" / split, "input_ids")
        assert batch["next"].tolist() == [label[-1] for label in rows(tmp_path / "out/of/maths" / split, "label")]


def test_a_row_is_a_document_that_is_cut(tmp_path, tokenizer, split_texts):
    loaded, name = tokenizer
    texts, sources = split_texts
    prepare(config(tmp_path / "out", name, {"maths": sources}, pack=False, separator="none", rows_per_file=7))
    ids = [loaded.backend.encode(text, add_special_tokens=False).ids for text in texts["train"] if text]
    cut = [one[: BLOCK + 1] for one in ids if len(one) > 1]
    assert rows(tmp_path / "out/maths/train", "input_ids") == [one[:-1] for one in cut]
    assert rows(tmp_path / "out/maths/train", "label") == [one[1:] for one in cut]
    manifest = json.loads((tmp_path / "out/maths/prepare.json").read_text())
    state = manifest["splits"]["train"]
    assert state["tokens_cut"] == sum(max(0, len(one) - BLOCK - 1) for one in ids) > 0
    assert state["documents_without_row"] == sum(len(one) < 2 for one in ids)
    assert manifest["left_out"]["train"] == {"empty documents": sum(not text for text in texts["train"])}


@pytest.mark.parametrize("pack", [True, False])
def test_the_bytes_are_the_same_for_any_number_of_processes(tmp_path, tokenizer, split_texts, pack, monkeypatch):
    monkeypatch.setattr("ir3de.prepare.encode._DOCUMENTS_AT_ONCE", 4)
    for processes in (1, 3):
        prepare(
            config(
                tmp_path / str(processes), tokenizer[1], {"maths": split_texts[1]}, pack=pack, processes=processes,
                rows_per_file=5, max_tokens={"train": 20 * BLOCK},
            )
        )  # fmt: skip
    assert tree(tmp_path / "1") == tree(tmp_path / "3")


def test_one_source_is_split_in_one_reading(tmp_path, tokenizer):
    texts = [f"number{i} and some words more" for i in range(100)]
    source = Spoken(texts)
    documents = {"train": 21, "validation": 4, "test": 7}
    prepare(config(tmp_path, tokenizer[1], {"maths": source}, documents=documents, pack=False, block_length=40))
    assert source.readings == 1
    assert source.given == 32  # it is not read further than needed
    decoded = {split: tokenizer[0].decode([np.array(row) for row in rows(tmp_path / "maths" / split, "input_ids")])
               for split in SPLITS}  # fmt: skip
    first = {split: int(decoded[split][0].removeprefix("number").split()[0]) for split in SPLITS}
    assert first == {"train": 0, "validation": 21, "test": 25}
    assert {split: len(texts) for split, texts in decoded.items()} == documents


@pytest.mark.parametrize(
    "settings, counts",
    [
        ({}, [80, 10, 10]),
        ({"split": {"train": 1, "validation": 1, "test": 2}}, [25, 25, 50]),
        ({"split": {"train": 1, "validation": 1, "test": 2}, "documents": {"test": 30}}, [25, 25, 30]),
        ({"documents": {"train": 14, "validation": 2, "test": 4}}, [14, 2, 4]),
    ],
)
def test_documents_go_to_splits_by_turns(tmp_path, tokenizer, settings, counts):
    source = Spoken([f"number{i} and some words more" for i in range(100)])
    prepare(config(tmp_path, tokenizer[1], {"maths": source}, pack=False, **settings))
    manifest = json.loads((tmp_path / "maths/prepare.json").read_text())
    assert [manifest["splits"][split]["documents"] for split in SPLITS] == counts
    left_out = manifest["left_out"]["train+validation+test"]
    full = "documents" in settings and "split" in settings
    assert left_out == ({"documents beyond `documents`": 20} if full else {})


def test_parts_fill_some_splits_each(tmp_path, tokenizer):
    shared, own = (Spoken([f"{name} {i} and words" for i in range(90)]) for name in ("shared", "own"))
    parts = [Part(shared, ["train", "test"]), Part(own, ["validation"])]
    limits = {"train": 70, "validation": 10, "test": 20}
    prepare(config(tmp_path, tokenizer[1], {"maths": parts}, pack=False, documents=limits))
    splits = json.loads((tmp_path / "maths/prepare.json").read_text())["splits"]
    assert {split: state["documents"] for split, state in splits.items()} == limits
    assert (shared.readings, own.readings, own.given) == (1, 1, 10)


@pytest.mark.parametrize("pack", [True, False])
def test_max_tokens_ends_a_split_with_a_whole_row(tmp_path, tokenizer, split_texts, pack):
    limit = 10 * BLOCK + 3
    prepare(config(tmp_path, tokenizer[1], {"maths": split_texts[1]}, pack=pack, max_tokens={"train": limit}))
    tokens = sum(map(len, rows(tmp_path / "maths/train", "input_ids")))
    assert limit - BLOCK < tokens <= limit


def test_special_tokens_are_those_that_the_tokenizer_puts(tmp_path, split_texts):
    loaded, name = tokenizer_in(tmp_path)
    with pytest.raises(ValueError, match="it puts none. Set `prepare.separator`"):
        prepare(config(tmp_path / "out", name, {"maths": split_texts[1]}, separator="special_tokens"))
    loaded.backend.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", loaded.end_of_text)]
    )
    loaded.save(tmp_path / "tokenizer")
    prepare(config(tmp_path / "out", name, {"maths": split_texts[1]}, separator="special_tokens"))
    run = expected_run(split_texts[0]["test"], loaded, before=[loaded.end_of_text])
    written = [token for row in rows(tmp_path / "out/maths/test", "input_ids") for token in row]
    assert written == run[: (len(run) - 1) // BLOCK * BLOCK]


def test_what_is_done_is_not_made_again(tmp_path, tokenizer):
    source = Spoken(documents("maths", 90))
    prepare(config(tmp_path, tokenizer[1], {"maths": source}))
    before = tree(tmp_path)
    prepare(config(tmp_path, tokenizer[1], {"maths": source}, processes=2))
    assert source.readings == 1
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "change, message",
    [
        ({"separator": "none"}, "`separator` was end_of_text and is now none"),
        ({"block_length": 9}, "`block_length` was 8 and is now 9"),
        ({"documents": {"train": 5}}, "`.*documents.*` was .*and is now 5"),
        ({"domains": {"maths": Spoken(documents("maths", 91))}}, "`passes.*source.settings` was 90 and is now 91"),
    ],
)
def test_other_settings_are_named(tmp_path, tokenizer, change, message):
    settings = {"domains": {"maths": Spoken(documents("maths", 90))}}
    prepare(config(tmp_path, tokenizer[1], **settings))
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=message):
        prepare(config(tmp_path, tokenizer[1], **(settings | change)))
    assert tree(tmp_path) == before


def test_a_folder_of_somebody_else_is_left_alone(tmp_path, tokenizer):
    (tmp_path / "maths/train").mkdir(parents=True)
    with pytest.raises(ValueError, match="`prepare` did not make it"):
        prepare(config(tmp_path, tokenizer[1], {"maths": Spoken(documents("maths", 9))}))


def test_a_file_that_was_lost_is_named(tmp_path, tokenizer):
    given = config(tmp_path, tokenizer[1], {"maths": Spoken(documents("maths", 90))})
    prepare(given)
    (tmp_path / "maths/test/data_00000.parquet").unlink()
    with pytest.raises(ValueError, match="test/data_00000.parquet` is missing"):
        prepare(given)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"domains": {}}, "Expected `prepare.domains`"),
        ({"tokenizer": "train"}, "Expected `data.tokenizer` to name"),
        ({"max_tokens": {"train": 3}}, "at least a block of 8"),
        ({"split": {"training": 3}}, "`prepare.split` .*{'training': 3}"),
        ({"split": {"train": 3}}, "Expected `prepare.split` to name all of"),
        ({"processes": 0}, "`prepare.processes` to be at least 1"),
        ({"read": {"maths": Spoken([])}}, "`data.domains.maths` to be a folder within"),
        ({"domains": {"maths": [Part(Spoken([]), ["train"])]}}, r"fills \['train'\]"),
        ({"domains": {"maths": Spoken(["too short"])}}, "validation and test got none"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, tokenizer, settings, message):
    given = {"tokenizer": tokenizer[1], "domains": {"maths": Spoken(documents("maths", 90))}} | settings
    with pytest.raises(ValueError, match=message):
        prepare(config(tmp_path, given.pop("tokenizer"), given.pop("domains"), **given))


def test_token_ids_and_unknown_domains_are_refused(tmp_path, tokenizer):
    pq.write_table(pa.table({"input_ids": [[1, 2]]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="need no preparation"):
        prepare(config(tmp_path / "out", tokenizer[1], {"maths": TokenizedParquet(str(tmp_path / "x.parquet"))}))
    with pytest.raises(ValueError, match=r"`--domain` to name some of \['maths'\], but got \['law'\]"):
        prepare(config(tmp_path / "out", tokenizer[1], {"maths": Spoken([])}), domain=["law"])


def test_half_characters_are_counted(tmp_path, tokenizer):
    texts = ["half \ud800 a character", *(f"number{i} and some words more" for i in range(30))]
    prepare(config(tmp_path, tokenizer[1], {"maths": Spoken(texts)}))
    left_out = json.loads((tmp_path / "maths/prepare.json").read_text())["left_out"]
    assert left_out == {"train+validation+test": {"documents with half a character (a lone surrogate)": 1}}
