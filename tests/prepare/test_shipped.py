"""The shipped parts for the paper's data sets, against a hub that has files of their names and form."""

import gzip
import io
import json
import lzma
import subprocess
import sys
import tarfile

import pytest
import yaml

from ir3de.configs import SHIPPED
from tests.helpers.hub import FakeHub
from tests.prepare.texts import DOMAINS, SPLITS, documents, parquet, parquet_of, tokenizer_like_llamas

SCRIPT = """
import json, sys, yaml
from jsonargparse import ArgumentParser, Namespace
from ir3de.prepare.run import prepare
from ir3de.prepare.settings import Preparation
given = json.loads(sys.argv[1])
for part, (root, names, more) in given["parts"].items():
    parser = ArgumentParser()
    parser.add_class_arguments(Preparation, "prepare")
    settings = yaml.safe_load(open(f"configs/prepare/{part}.yaml")) | more
    built = parser.instantiate(parser.parse_object({"prepare": settings}))
    data = Namespace(root=root, domains=dict(zip(names, names)), tokenizer=given["tokenizer"], block_length=16,
                     pack=part != "clm2")
    prepare(Namespace(data=data, prepare=built.prepare))
"""


def jsonl(name, size):
    return "".join(json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate(documents(name, size))).encode()


def archive(domain):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as writer:
        for name in ("train", "valid", "test"):
            member = "\n".join(documents(domain, 60, seed=name)).encode()
            info = tarfile.TarInfo(f"{domain}/{name}.txt")
            info.size = len(member)
            writer.addfile(info, io.BytesIO(member))
    return content.getvalue()


def dialogues(name, size):
    roles = ("user", "assistant")
    return parquet(
        [{"prompt": text, "messages": [{"role": role, "content": f"{text} {role}"} for role in roles]}
         for text in documents(name, size) if text]
    )  # fmt: skip


def serve(hub, names):
    """Serve files of the published names: archives, Parquet, compressed JSON."""
    add = {
        "machelreid/m2d2": {f"data/{name}.tar.gz": archive(name) for name in names},
        "Skylion007/openwebtext": {f"data/train-0000{i}-of-00002.parquet": parquet_of(f"web{i}", 90) for i in range(2)},
        "open-web-math/open-web-math": {"data/train-00000-of-00114-5a023365406cb9c4.parquet": parquet_of("math", 60)},
        "allenai/peS2o": {
            f"data/v2/{file}.json.gz": gzip.compress(jsonl(file, 40))
            for file in (*(f"train-000{i}0-of-00020" for i in "01"), *(f"validation-0000{i}-of-00002" for i in "01"))
        },
        "pile-of-law/pile-of-law": {
            f"data/{split}.{kind}.jsonl.xz": lzma.compress(jsonl(f"{split}{kind}", 30))
            for split in ("train", "validation") for kind in ("r_legaladvice", "atticus_contracts.0")
        },
        "HuggingFaceH4/ultrachat_200k": {
            f"data/{split}-00000-of-00001-a3ecf92756993583.parquet": dialogues(split, 60)
            for split in ("train_sft", "test_sft", "train_gen")
        },
    }  # fmt: skip
    for name, files in add.items():
        hub.add(name, files, repo_type="dataset")


@pytest.mark.parametrize("setting", ["m2d2", "clm2"])
def test_a_part_has_its_settings_domains(setting):
    config, part = (yaml.safe_load((SHIPPED / folder / f"{setting}.yaml").read_text()) for folder in ("", "prepare"))
    assert list(part["domains"]) == list(config["data"]["domains"])


def test_the_papers_data_sets_are_prepared(tmp_path):
    tokenizer_like_llamas(tmp_path / "tokenizer", DOMAINS)
    m2d2, clm2 = (
        list(yaml.safe_load((SHIPPED / f"prepare/{s}.yaml").read_text())["domains"]) for s in ("m2d2", "clm2")
    )
    one = {"processes": 1}
    parts = {
        "m2d2": [str(tmp_path / "m2d2"), m2d2, one],
        "clm2": [str(tmp_path / "clm2"), clm2, one | {"documents": {"train": 14, "validation": 2, "test": 4}}],
        "openwebtext": [str(tmp_path / "m2d2"), m2d2, one],
    }
    with FakeHub() as hub:
        serve(hub, m2d2)
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT, json.dumps({"tokenizer": str(tmp_path / "tokenizer"), "parts": parts})],
            env=hub.environment(tmp_path / "home"), cwd=SHIPPED.parent, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert run.returncode == 0, run.stderr
    read = {request.rsplit("/", 1)[-1] for method, request, _ in hub.requests if method == "GET"}
    assert {"cs_l1.tar.gz", "train-00010-of-00020.json.gz", "train.atticus_contracts.0.jsonl.xz"} <= read
    assert not any("train_gen" in file for file in read)
    for folder in [
        *(tmp_path / "m2d2" / name for name in (*m2d2, "openwebtext")),
        *(tmp_path / "clm2" / n for n in clm2),
    ]:
        assert all(list((folder / split).glob("*.parquet")) for split in SPLITS), folder
    manifests = {name: json.loads((tmp_path / f"clm2/{name}/prepare.json").read_text()) for name in clm2}
    for name, manifest in manifests.items():
        counts = {split: state["documents"] for split, state in manifest["splits"].items()}
        assert counts == {"train": 14, "validation": 2, "test": 4}, name
    lines = [text for text in documents("cs_l1", 60, seed="test") if text]
    assert json.loads((tmp_path / "m2d2/cs_l1/prepare.json").read_text())["splits"]["test"]["documents"] == len(lines)
