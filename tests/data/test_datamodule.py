"""The data module from files to batches: views, cache, determinism, and errors."""

import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from ir3de.data.bpe import train_bpe
from ir3de.data.datamodule import DomainDataModule
from ir3de.data.dataset import NO_ROW, ShardedRows
from ir3de.data.domain import Splits
from ir3de.data.splits import Splitting
from ir3de.data.tables import TableFiles, TokenizedParquet
from ir3de.pretrained.tokenizer import TextTokenizer
from tests.data.conftest import made_up_texts, write_texts

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs/data/quickstart.yaml"


def _real_ids(batch):
    return [row[mask].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


def _split_texts(data, domain, split):
    return [text for corpus, rows, _ in data._views._text.chosen(domain, split) for text in corpus.texts(rows)]


def _counts(data):
    counts = [Counter() for _ in data.domain_names]
    for batch in data.train_dataloader():
        if data.counts_training:
            counts[int(batch["domain"])] += Counter(
                dict(zip(*(batch[k].tolist() for k in ("ids", "counts")), strict=True))
            )
        else:
            for row, domain in zip(_real_ids(batch), batch["domain"].tolist(), strict=True):
                counts[domain].update(row)
    return counts


@pytest.mark.parametrize("pack", [True, False], ids=["packed", "ragged"])
@pytest.mark.parametrize("own", [False, True], ids=["shared tokenizer", "router's tokenizer"])
@pytest.mark.parametrize("shards", [False, True], ids=["rows", "shards"])
def test_training_loader_counts_the_documents_tokens_and_nothing_else(make, folders, pack, own, shards):
    router = train_bpe(iter(made_up_texts("law", 5)), vocab_size=300) if own else None
    data = make(folders, pack=pack, router_tokenizer=router, shard_tokens=500)
    data.prepare_data()
    data.counts_training = shards
    for domain, counted in enumerate(_counts(data)):
        tokenizer = router or data.expert_tokenizer
        expected = Counter()
        for ids in tokenizer.encode(_split_texts(data, domain, "train")):
            expected.update(ids.tolist())
        assert counted == expected


def test_a_router_with_its_own_tokenizer_reads_the_text_of_the_same_blocks(make, folders):
    router = train_bpe(iter(made_up_texts("law", 5)), vocab_size=300)
    data = make(folders, router_tokenizer=router, with_text=True)
    data.prepare_data()
    blocks = data.expert_blocks("test")
    seen = []
    for batch in data.test_dataloader():
        assert _real_ids(batch) == [ids.tolist() for ids in router.encode(batch["text"])]
        assert batch["text"] == blocks.texts(batch["index"].tolist())
        assert batch["domain"].tolist() == blocks.domains()[batch["index"].numpy()].tolist()
        assert not batch["input_ids"][~batch["attention_mask"]].any()
        seen += batch["index"].tolist()
    assert seen == list(range(len(blocks)))


def test_a_shared_tokenizer_gives_the_experts_ids_without_separators(make, folders):
    data = make(folders)
    blocks, end = data.expert_blocks("test"), data.expert_tokenizer.end_of_text
    expert = _real_ids(blocks.__getitems__(range(len(blocks))))
    assert sum(row.count(end) for row in expert) > 0
    routed = [row for batch in data.test_dataloader() for row in _real_ids(batch)]
    assert routed == [[i for i in row if i != end] for row in expert]


def test_blocks_are_full_but_for_the_last_of_each_domain(make, folders):
    blocks = make(folders).expert_blocks("train")
    batch = blocks.__getitems__(range(len(blocks)))
    assert (batch["input_ids"].dtype, batch["attention_mask"].dtype) == (torch.int64, torch.bool)
    short = ~batch["attention_mask"].all(1)
    last = torch.cat([batch["domain"][1:] != batch["domain"][:-1], torch.tensor([True])])
    assert not (short & ~last).any()
    assert blocks.num_tokens() == int(batch["attention_mask"].sum())


def test_gathering_any_rows_agrees_with_gathering_one(make, folders):
    for pack in (True, False):
        blocks = make(folders, pack=pack).expert_blocks("train")
        rows = np.random.default_rng(0).permutation(len(blocks))[:40]
        batch = blocks.__getitems__(rows)
        assert _real_ids(batch) == [_real_ids(blocks[int(i)])[0] for i in rows]
        assert batch["index"].tolist() == rows.tolist()


def test_one_domain_of_the_blocks(make, folders):
    data = make(folders)
    everything, law = data.expert_blocks("train"), data.expert_blocks("train", domain="law")
    batch = law.__getitems__(range(len(law)))
    assert set(batch["domain"].tolist()) == {data.domain_names.index("law")} == {1}
    assert _real_ids(batch) == _real_ids(everything.__getitems__(np.flatnonzero(everything.domains() == 1)))
    assert law.fingerprint != everything.fingerprint == data.expert_blocks("train").fingerprint
    with pytest.raises(ValueError, match="but got `physics`"):
        data.expert_blocks("train", domain="physics")
    with pytest.raises(ValueError, match="but got `dev`"):
        data.expert_blocks("dev")


def test_a_row_that_is_not_there_is_masked(make, folders):
    batch = make(folders).expert_blocks("train").__getitems__([3, NO_ROW])
    assert batch["attention_mask"][0].all()
    assert not batch["attention_mask"][1].any()


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_shards_have_each_row_once_and_equally_many_batches(world_size):
    shards = [ShardedRows(23, 4, shuffle=True, seed=1, rank=r, world_size=world_size) for r in range(world_size)]
    batches = [list(shard) for shard in shards]
    assert {len(b) for b in batches} == {len(shards[0])}
    rows = [row for shard in batches for batch in shard for row in batch if row != NO_ROW]
    assert sorted(rows) == list(range(23))
    shards[0].set_epoch(1)
    assert list(shards[0]) != batches[0]


def test_workers_read_the_same_batches(make, folders):
    alone, helped = make(folders), make(folders, num_workers=2)
    for one, other in zip(alone.train_dataloader(), helped.train_dataloader(), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    blocks = alone.expert_blocks("test")
    assert torch.equal(pickle.loads(pickle.dumps(blocks))[2]["input_ids"], blocks[2]["input_ids"])


def test_the_tokenizer_is_trained_on_training_text_alone(make, tmp_path):
    given = {name: [f"{name} {text}" for text in made_up_texts(name, 30)] for name in ("maths", "code")}
    for name, texts in given.items():
        test = [text.replace("the", "zzqqzz") for text in texts[:10]]
        for split, chosen in (("train", texts[20:]), ("validation", texts[10:20]), ("test", test)):
            write_texts(tmp_path / name / split, chosen)
    domains = {name: Splits(*(str(tmp_path / name / s) for s in ("train", "validation", "test"))) for name in given}
    data = make(domains, tokenizer_vocab_size=2000, splitting=Splitting(near_duplicates=False))
    vocabulary = data.expert_tokenizer.backend.get_vocab()
    assert "maths" in " ".join(vocabulary)
    assert not any("zz" in token or "qq" in token for token in vocabulary)
    assert data.report[0].documents == {"train": 10, "validation": 10, "test": 10}


def test_prepared_data_are_not_read_or_tokenized_again(make, folders, monkeypatch):
    first = make(folders)
    first.prepare_data()
    for name in ("encode", "encode_with_offsets"):
        monkeypatch.setattr(TextTokenizer, name, lambda *args: pytest.fail("tokenized again"))
    monkeypatch.setattr("ir3de.data.split_text.assign_splits", lambda *args: pytest.fail("split again"))
    second = make(folders)
    second.prepare_data()
    second.setup("fit")
    assert second.report == first.report
    assert second.expert_blocks("test").fingerprint == first.expert_blocks("test").fingerprint


def test_changed_text_is_prepared_again(make, folders):
    before = make(folders).expert_blocks("train").fingerprint
    write_texts(Path(folders["law"]), made_up_texts("law", 70))
    assert make(folders).expert_blocks("train").fingerprint != before


@pytest.mark.parametrize("key", ["test", "train"])
def test_fingerprints_differ_with_the_settings(make, folders, key):
    prints = {make(folders, block_length=n).expert_blocks(key).fingerprint for n in (8, 16, 16, 24)}
    assert len(prints) == 3


_PREPARE = """
import sys
from ir3de.data.datamodule import DomainDataModule
folder = sys.argv[1]
domains = {name: f"{folder}/{name}" for name in ("maths", "code", "law")}
data = DomainDataModule(domains=domains, tokenizer_vocab_size=400, block_length=16, cache_dir=sys.argv[2])
data.prepare_data()
"""


def test_the_cache_is_the_same_bytes_in_another_process(folders, tmp_path):
    written = []
    for seed in ("1", "2"):
        cache = tmp_path / f"cache{seed}"
        environment = os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", _PREPARE, str(tmp_path), str(cache)]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        written.append({str(f.relative_to(cache)): f.read_bytes() for f in cache.rglob("*") if f.is_file()})
    assert len(written[0]) > 10
    assert written[0] == written[1]


def test_the_report_accounts_for_every_document(make, tmp_path):
    texts = {name: made_up_texts(name, 60) for name in ("maths", "code")}
    texts["maths"] += [texts["maths"][0], "  \n ", texts["code"][1]]
    data = make({name: write_texts(tmp_path / name, t) for name, t in texts.items()}, max_test_blocks=3)
    code, maths = data.report
    assert (maths.documents_read, maths.left_out) == (62, {"empty documents": 1})
    assert (maths.exact_duplicates, maths.shared_with_other_domains, code.shared_with_other_domains) == (1, 1, 1)
    assert sum(maths.documents.values()) == 60
    assert maths.blocks["test"] == 3
    assert maths.blocks_left_out["test"] > 0
    stored = json.loads((data._views._blocks.folder / "data.json").read_text())
    assert stored["reports"][1] == maths.as_dict()


def _token_files(folder, high):
    rng = np.random.default_rng(high)
    for split, size in (("train", 9), ("validation", 3), ("test", 4)):
        (folder / split).mkdir(parents=True)
        rows = rng.integers(0, high, (size, 16)).tolist()
        pq.write_table(pa.table({"input_ids": pa.array(rows, pa.list_(pa.int32()))}), folder / split / "x.parquet")
    return Splits(*(TokenizedParquet(str(folder / split)) for split in ("train", "validation", "test")))


@pytest.fixture
def saved_tokenizer(tmp_path):
    tokenizer = train_bpe(iter(made_up_texts("law", 9)), vocab_size=300)
    tokenizer.save(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


def test_token_ids_are_used_as_they_are(make, tmp_path, saved_tokenizer):
    domains = {"a": _token_files(tmp_path / "a", 290), "b": _token_files(tmp_path / "b", 280)}
    data = make(domains, tokenizer=saved_tokenizer, block_length=16)
    given = pq.read_table(tmp_path / "a" / "test")["input_ids"].to_pylist()
    assert data.expert_blocks("test", domain="a").__getitems__(range(4))["input_ids"].tolist() == given
    assert sum(len(batch["index"]) for batch in data.train_dataloader()) == 18
    (batch,) = make(domains, tokenizer=saved_tokenizer, with_text=True, batch_size=99).test_dataloader()
    tokenizer = TextTokenizer.from_folder(Path(saved_tokenizer))
    assert batch["text"][:4] == [tokenizer.backend.decode(row) for row in given]


def test_token_ids_must_fit_the_tokenizers(make, tmp_path, saved_tokenizer):
    domains = {"a": _token_files(tmp_path / "a", 290), "b": _token_files(tmp_path / "b", 5000)}
    with pytest.raises(ValueError, match=r"vocabulary of \d+\), but the train split of `b` has \d{4}"):
        make(domains, tokenizer=saved_tokenizer).prepare_data()
    with pytest.raises(ValueError, match=r"\['a', 'b'\] are already tokenized"):
        make(domains).prepare_data()
    domains["b"] = _token_files(tmp_path / "b2", 200)
    other = train_bpe(iter(made_up_texts("code", 9)), vocab_size=300)
    with pytest.raises(ValueError, match="Expected text for the router's tokenizer"):
        make(domains, tokenizer=saved_tokenizer, router_tokenizer=other).prepare_data()


def test_two_domains_of_equal_text_have_nothing_left(make, tmp_path):
    texts = made_up_texts("law", 20)
    domains = {name: write_texts(tmp_path / name, texts) for name in ("a", "b")}
    with pytest.raises(ValueError, match="none is left of 20 .*20 also in another domain"):
        make(domains).prepare_data()


def test_a_domain_without_text_is_refused(make, folders, tmp_path):
    folders["code"] = write_texts(tmp_path / "empty", ["", " \n"])
    with pytest.raises(ValueError, match=r"text in the domain `code`, .* \(2 empty documents\)"):
        make(folders).prepare_data()


def test_missing_things_are_found_before_anything_is_read(make, folders, monkeypatch, tmp_path):
    monkeypatch.setattr("ir3de.data.split_text.read_corpus", lambda *args, **kwargs: pytest.fail("read"))
    with pytest.raises(FileNotFoundError, match="In the domain `law`: .*nowhere"):
        make(folders | {"law": str(tmp_path / "nowhere")}).prepare_data()
    (tmp_path / "x.jsonl").write_text('{"body": "a"}')
    splits = Splits(folders["law"], folders["law"], TableFiles(str(tmp_path / "x.jsonl")))
    with pytest.raises(ValueError, match=r"`law` \(test\): Expected the field `text`"):
        make(folders | {"law": splits}).prepare_data()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block_length": 1}, "`block_length` to be at least 2, but got 1"),
        ({"batch_size": 0}, "`batch_size` to be at least 1, but got 0"),
        ({"max_test_blocks": -3}, "`max_test_blocks` to be at least 1, but got -3"),
        ({"splitting": Splitting(test_fraction=2.0)}, "test_fraction` between 0 and 1"),
    ],
)
def test_impossible_settings_are_refused(make, folders, settings, message):
    with pytest.raises(ValueError, match=message):
        make(folders, **settings)


def test_no_domains_are_refused(make):
    with pytest.raises(ValueError, match="at least one domain"):
        make({})


def _parser():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DomainDataModule, "data")
    return parser


def test_the_quickstart_config_is_understood():
    settings = yaml.safe_load(CONFIG.read_text())
    assert CONFIG.read_text().startswith("# Five domains")
    data = _parser().instantiate(_parser().parse_object({"data": settings})).data
    assert data.domain_names == ("code", "deep_learning", "law", "math", "tables")
    data._views._check_sources()


def test_paths_sources_and_splits_can_be_given(folders):
    source = {"class_path": "TextFiles", "init_args": {"path": folders["code"]}}
    parts = {"train": folders["law"], "validation": source, "test": folders["law"]}
    splits = {"class_path": "ir3de.data.domain.Splits", "init_args": parts}
    for given in (parts, splits):
        domains = {"maths": folders["maths"], "code": source, "law": given}
        data = _parser().instantiate(_parser().parse_object({"data": {"domains": domains}})).data
        assert {name: [split for split, _ in parts] for name, parts in data._views._sources.items()} == {
            "code": [None],
            "law": ["train", "validation", "test"],
            "maths": [None],
        }


def test_domains_can_be_replaced_on_the_command_line(folders):
    arguments = [f"--data.domains.{name}={path}" for name, path in folders.items()]
    data = _parser().instantiate(_parser().parse_args([*arguments, "--data.splitting.seed=3"])).data
    assert data.domain_names == tuple(sorted(folders))
    assert data._views._splitting.seed == 3
