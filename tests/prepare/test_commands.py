"""``prepare`` by its command lines: the paper's settings over local text, then ``fit``; and those of the docs."""

import json
from collections import Counter

import pytest

import callbacks  # noqa: F401 - as main.py does
from ir3de.cli import main
from ir3de.routers import load_router
from tests.helpers.hub import FakeHub
from tests.helpers.settings import BLOCK, CLM2, M2D2, save_checkpoints, texts
from tests.prepare.texts import SPLITS, documents, expected_run, manifest, parquet_of, tokenizer_like_llamas

SIZES = {"train": 28, "validation": 4, "test": 8}
DOMAINS = {"m2d2": M2D2, "clm2": CLM2}
QUICK = ["--prepare.processes", "1", "--trainer.accelerator", "cpu", "--wandb.mode", "disabled"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _raw(setting, here):
    """Write each domain's text, a document a file; return what the config has to say of it, and the text by split."""
    order = [split for split in SPLITS for _ in range(SIZES[split])]  # m2d2 has splits of its own
    if setting == "clm2":  # which are made by turns, as the numbers of documents stand to each other
        order = (["train"] * 7 + ["validation"] + ["test"] * 2) * 4
    given, written = {}, {}
    for name in DOMAINS[setting]:
        written[name] = {split: [] for split in SPLITS}
        for i, (split, text) in enumerate(zip(order, texts(name, len(order)), strict=True)):
            path = here / "raw" / name / (split if setting == "m2d2" else "") / f"{i:02}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            written[name][split].append(text)
        given[name] = {split: f"raw/{name}/{split}" for split in SPLITS} if setting == "m2d2" else f"raw/{name}"
    return given, written


def _rows(setting, tokenizer, raw):
    """Return the input ids of a split's rows: of one run of tokens, or of each document."""
    begin = [tokenizer.end_of_text]
    if setting == "m2d2":
        run = expected_run(raw, tokenizer, before=begin)
        return [run[i * BLOCK : (i + 1) * BLOCK] for i in range((len(run) - 1) // BLOCK)]
    return [expected_run([text], tokenizer, before=begin)[: BLOCK + 1][:-1] for text in raw]


@pytest.mark.parametrize("setting", ["m2d2", "clm2"])
def test_a_setting_goes_from_text_files_to_a_router(here, setting):
    """Every token of the rows, computed from the text another way, is one that the router has counted."""
    given, written = _raw(setting, here)
    domains = list(given)
    tokenizer = tokenizer_like_llamas(here / "tokenizer", domains)
    bank = save_checkpoints(here / "checkpoints", tokenizer, domains)
    options = ["--config", f"{setting}.yaml", "--prepare.domains", json.dumps(given), "--data.tokenizer", "tokenizer"]
    options += ["--experts.bank", json.dumps(bank), "--data.block_length", str(BLOCK), *QUICK]
    if setting == "clm2":
        options += ["--prepare.documents", json.dumps(SIZES)]
    root = here / {"m2d2": "dataset", "clm2": "dataset_clm2"}[setting]
    for chosen, there in (
        (["--domain", domains[0]], 1),
        (["--domain", f"[{', '.join(domains[:3])}]"], 3),
        ([], len(domains)),
    ):
        main(["prepare", *options, *chosen])
        assert {path.name for path in root.iterdir()} == {*domains[:there]}
    main(["fit", *options])
    router = load_router(here / "runs" / setting / "router")
    for name, counted_V in zip(router.expert_names, router.statistics.counts_EV, strict=True):
        expected = Counter(token for row in _rows(setting, tokenizer, written[name]["train"]) for token in row)
        del expected[tokenizer.end_of_text]  # between documents, and no text
        assert {i: count for i, count in enumerate(counted_V.tolist()) if count} == expected
        for split in SPLITS:
            assert manifest(root / name)["splits"][split]["rows"] == len(
                _rows(setting, tokenizer, written[name][split])
            )
    own = [text for name in router.expert_names for text in written[name]["test"]]
    right = [name for name in router.expert_names for _ in written[name]["test"]]
    assert sum(map(str.__eq__, router.route(own).names, right)) > 0.5 * len(right)


def test_openwebtext_is_prepared_whole_beside_a_setting(here, monkeypatch):
    """What m2d2.yaml says of its own text (`max_tokens`, the domains) is not said of this one."""
    tokenizer_like_llamas(here / "tokenizer", M2D2)
    with FakeHub() as hub:
        hub.install(monkeypatch, here / "home")
        files = {f"data/train-0000{i}-of-00002.parquet": parquet_of(f"web{i}", 96) for i in range(2)}
        hub.add("Skylion007/openwebtext", files, repo_type="dataset")
        documented = ["prepare", "--config", "m2d2.yaml", "--prepare", "prepare/openwebtext.yaml"]
        main([*documented, "--data.tokenizer", "tokenizer", "--data.block_length", str(BLOCK), *QUICK])
    assert [path.name for path in (here / "dataset").iterdir()] == ["openwebtext"]
    made = manifest(here / "dataset/openwebtext")
    (of_pass,) = made["settings"]["passes"].values()
    assert of_pass["max_tokens"] == of_pass["documents"] == {}
    web = [text for i in range(2) for text in documents(f"web{i}", 96) if text]
    turns = ["train"] * 21 + ["validation"] * 4 + ["test"] * 7
    expected = Counter(turns[i % 32] for i in range(len(web)))
    assert {split: state["documents"] for split, state in made["splits"].items()} == expected


@pytest.mark.parametrize("limit, kept", [("null", {}), (f"{{train: {2 * BLOCK}}}", {"train": 2 * BLOCK})])
def test_max_tokens_of_a_setting_is_another_one_or_none(here, limit, kept):
    given, written = _raw("m2d2", here)
    tokenizer = tokenizer_like_llamas(here / "tokenizer", M2D2)
    main(["prepare", "--config", "m2d2.yaml", "--prepare.domains", json.dumps(given), "--data.tokenizer", "tokenizer",
          "--domain", "cs_l1", "--data.block_length", str(BLOCK), "--prepare.max_tokens", limit, *QUICK])  # fmt: skip
    made = manifest(here / "dataset/cs_l1")
    assert made["settings"]["passes"]["train"]["max_tokens"] == kept
    whole = BLOCK * len(_rows("m2d2", tokenizer, written["cs_l1"]["train"]))
    assert made["splits"]["train"]["tokens_in_rows"] == kept.get("train", whole) <= whole
