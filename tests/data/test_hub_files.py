"""Data files of a hub's repository: which are read, in which order, and what is said where they cannot be had."""

import gzip
import io
import json
import lzma
import subprocess
import sys
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.hub import TOKEN, FakeHub

# What the hub's library reads of the environment, it reads when it is imported: hence a process of its own.
SCRIPT = """
import json, sys
from ir3de.data.hub_files import HubFiles
for settings in json.loads(sys.argv[1]):
    source = HubFiles(**settings)
    try:
        source.check()
        print(json.dumps([list(source.documents()), dict(source.left_out), source.identity()]))
    except (ValueError, OSError) as error:
        print(json.dumps(str(error)))
"""


def jsonl(*texts):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def parquet(rows):
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), content)
    return content.getvalue()


def archive(**members):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as writer:
        for name, member in members.items():
            info = tarfile.TarInfo(f"cs/{name}.txt")
            info.size = len(member)
            writer.addfile(info, io.BytesIO(member))
    return content.getvalue()


FILES = {
    "README.md": b"---\nlicense: mit\n---\n",
    "data/b.jsonl.gz": gzip.compress(jsonl("b0", "b1", "b2")),
    "data/a.jsonl.xz": lzma.compress(jsonl("a0")),
    "data/c.json": jsonl("c0", "c1"),
    "data/train-00000-of-00002-1f.parquet": parquet([{"text": "p0"}, {"text": None}]),
    "data/train-00001-of-00002-2e.parquet": parquet([{"text": "p1"}]),
    "cs.tar.gz": archive(valid=b"v0\n", train=b"t0\n\nt1\n"),
    "load.py": b"raise SystemExit('a loading script was run')",
}


@pytest.fixture
def hub():
    with FakeHub() as hub:
        hub.add("owner/set", FILES, repo_type="dataset")
        yield hub


def read(hub, home, *settings, **environment):
    """Return what the script prints for each of the sources' settings."""
    given = json.dumps([{"name": "owner/set"} | one for one in settings])
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, given], env=hub.environment(home, **environment), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_files_are_read_as_they_are_named(hub, tmp_path):
    jsons = {"files": ["data/b.jsonl.gz", "data/*.json*"]}
    answers = read(
        hub, tmp_path, jsons, jsons | {"interleave": True}, {"files": "data/train-*.parquet"},
        {"files": "cs.tar.gz", "member": "cs/train.txt"},
    )  # fmt: skip
    assert [documents for documents, _, _ in answers] == [
        ["b0", "b1", "b2", "a0", "c0", "c1"],
        ["b0", "a0", "c0", "b1", "c1", "b2"],
        ["p0", "p1"],
        ["t0", "t1"],
    ]
    assert [left_out for _, left_out, _ in answers[2:]] == [{"rows without a value": 1}, {"blank lines": 1}]
    identity = answers[0][2]
    assert identity["commit"] == hub.repositories["dataset", "owner/set"].commit
    assert identity["files"] == ["data/b.jsonl.gz", "data/a.jsonl.xz", "data/c.json"]


def test_settings_that_cannot_work_are_refused_before_a_fetch(hub, tmp_path):
    answers = read(
        hub, tmp_path, {"files": "data/*.csv"}, {"files": "load.py"}, {"files": "cs.tar.gz"},
        {"name": "owner/other", "files": "*"}, {"files": "cs.tar.gz", "member": "no"},
        {"files": "data/c.json", "field": "body"}, {"files": "*", "revision": "v9"},
    )  # fmt: skip
    for answer, words in zip(
        answers,
        ("match `data/*.csv`", "but got `load.py`", "Expected `member`", "no data set `owner/other`",
         "matches `no`", "Expected the field `body`", "at revision `v9`"), strict=True,
    ):  # fmt: skip
        assert words in answer
    assert not hub.downloads("load.py")
    assert len(hub.downloads("cs.tar.gz")) == 1


def test_without_the_hub_the_cache_is_read_or_what_is_missing_is_named(hub, tmp_path):
    first = {"files": "data/train-00000-of-*.parquet"}
    online = read(hub, tmp_path, {"files": "data/*.json*"}, first)
    offline = read(
        hub, tmp_path, {"files": "data/*.json*"}, first, {"files": "data/train-*.parquet"},
        {"files": "cs.tar.gz", "member": "*"}, {"name": "owner/other", "files": "x.json"}, HF_HUB_OFFLINE="1",
    )  # fmt: skip
    assert offline[:2] == online
    for answer, missing in zip(offline[2:], ("train-00001-of-00002", "cs.tar.gz", "x.json"), strict=True):
        assert missing in answer
        assert "hf download --repo-type dataset owner/" in answer


def test_a_gated_set_names_its_page_and_is_read_with_a_token(hub, tmp_path):
    hub.add("owner/set", FILES, repo_type="dataset", gated="auto")
    refused = read(hub, tmp_path, {"files": "data/c.json"})
    assert "https://huggingface.co/datasets/owner/set" in refused[0]
    assert "HF_TOKEN" in refused[0]
    assert read(hub, tmp_path, {"files": "data/c.json"}, HF_TOKEN=TOKEN)[0][0] == ["c0", "c1"]


def test_what_is_not_as_promised_is_not_read(hub, tmp_path):
    name = "data/train-00001-of-00002-2e.parquet"
    hub.faults.corrupt.add(name)
    assert "its SHA-256 differs. Delete it" in read(hub, tmp_path, {"files": name})[0]
