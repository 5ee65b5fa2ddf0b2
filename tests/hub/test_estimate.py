"""``estimate``: numbers that can be checked by hand, and where each is from."""

import pytest
import torch
from huggingface_hub import constants

from ir3de.hub import measure, times
from ir3de.hub.estimate import estimate
from ir3de.hub.facts import LLAMA_3B, PAPER_EXPERT
from ir3de.hub.times import duration
from tests.helpers.settings import BLOCK, M2D2, save_checkpoints, save_packed, save_tokenizer


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(measure, "SECONDS", 0.001)
    monkeypatch.setattr(measure, "_FEATURES_AT_MOST", 64)


def _rows(capsys):
    """Return what was printed, by the row's first cell; cells go over several lines."""
    rows, name = {}, None
    for line in capsys.readouterr().out.splitlines():
        cells = [cell.strip() for cell in line.strip("│┃").split("│")]
        if len(cells) == 3:
            name = cells[0] or name
            rows[name] = " ".join([rows.get(name, ""), *cells[1:]]).strip()
    return rows


@pytest.mark.parametrize(
    ("setting", "tokens", "table", "missing"),
    [
        ("m2d2", "81,920,000 in 5 domains prepare.max_tokens", "128,002 by 768", "4.42 GB (8 of 8)"),
        ("clm2", "at most 28,672,000 in 4 domains prepare.documents", "128,256 by 2,048", "1.32 GB (3 of 3)"),
        ("reasoning", "320,000 in 4 domains public sizes", "128,256 by 3,072", "27 GB (9 of 9)"),
    ],
)
def test_a_papers_setting_is_estimated_with_nothing_here(parsed, capsys, setting, tokens, table, missing):
    estimate(parsed("--config", f"{setting}.yaml"))
    rows = _rows(capsys)
    assert tokens in rows["tokens for train"]
    asks = setting == "reasoning"
    assert "measured here" in rows["scores" if asks else "losses"]
    assert ("losses" in rows, "prepare" in rows) == (not asks, not asks)
    assert f"fetched by `{'scores' if asks else 'prepare'}`" in rows["benchmark data" if asks else "raw text"]
    assert not [row for row in rows.values() if "not known" in row or "known once" in row]
    assert table in rows["embedding table"]
    assert missing in rows["to download"]
    assert "measured here" in rows["fit: Gram matrix and solve"]
    assert rows["prepared data"].startswith(
        {"m2d2": "at least 676 MB", "clm2": "at most 328 MB", "reasoning": "about 11.9 MB"}[setting]
    )


def test_what_is_not_known_is_said_to_be(parsed, write_config, capsys):
    estimate(parsed("--config", write_config(), "--reasoning.tasks", '{"a": ["my_sums"]}'))
    rows = _rows(capsys)
    assert "nothing tells the size of a, b" in rows["tokens"]
    assert "known once the text is read" in rows["fit: counting"]
    assert "not known before it is read" in rows["scores"]


def test_times_add_up_every_pass(parsed, capsys, monkeypatch):
    monkeypatch.setattr(times, "forward_rate", lambda *_, shape=None: 1e12 if shape is None else 1e11)
    options = ["--config", "m2d2.yaml", "--protocol", "published"]
    estimate(parsed(*options))
    rows = _rows(capsys)
    each = 2 * PAPER_EXPERT.products * 1_310_720 / 1e12
    assert duration((6 + 5) * each) in rows["losses"]  # five and their average, and the five again in bfloat16
    assert duration(5 * each / 4) in rows["compare: experts in fits"]  # 64 of 256 sequences
    estimate(parsed("--config", "reasoning.yaml"))
    asked = 5 * 2 * LLAMA_3B.products * (13_151_325 / 1e12 + 1_198_080 / 1e11)
    assert duration(asked, bound="at most about") in _rows(capsys)["scores"]


def test_prepared_data_and_experts_that_are_here_are_read(parsed, capsys, tmp_path):
    tokenizer = save_tokenizer(tmp_path / "tokenizer", M2D2)
    save_packed(tmp_path / "data", tokenizer, M2D2)
    bank = save_checkpoints(tmp_path / "checkpoints", tokenizer, M2D2)
    options = ["--data.root", "data", "--data.tokenizer", str(tmp_path / "tokenizer"), "--data.max_test_blocks", "4"]
    options += [part for name, source in bank.items() for part in (f"--experts.bank.{name}", source)]
    estimate(parsed("--config", "m2d2.yaml", *options, "--routers", "[paper/ir3de]"))
    rows = _rows(capsys)
    assert f"{5 * 40 * BLOCK:,} in 5 domains" in rows["tokens for train"]
    assert "the files' footers" in rows["tokens for train"]
    assert f"{5 * 4 * BLOCK:,} in 20 sequences" in rows["test tokens evaluated"]
    state = torch.load(bank["cs_l1"], weights_only=True)
    assert f"{4 * sum(value.numel() for value in state.values()) / 1e3:.3g} kB" in rows["the largest expert"]
    assert "nothing (0 of 0)" in rows["to download"]
    assert str(tmp_path / "tokenizer") in rows["prepare"].replace(" ", "")


def test_text_files_are_taken_at_four_bytes_a_token(parsed, write_config, capsys, tmp_path):
    for name, split, lines in (("a", "train", 10), ("a", "validation", 2), ("a", "test", 3)):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name / f"{split}.jsonl").write_text('{"text": "twenty-four"}\n' * lines)
    (tmp_path / "data" / "b").mkdir()
    (tmp_path / "data" / "b" / "one.txt").write_text("x" * 1000)
    estimate(parsed("--config", write_config(), "--data.pack", "false"))
    rows = _rows(capsys)
    assert f"{10 * 24 // 4 + 1000 * 80 // 100 // 4} in 2 domains" in rows["tokens for train"]
    assert f"{3 * 24 // 4 + 1000 * 12 // 100 // 4} in 4 sequences" in rows["test tokens evaluated"]
    assert "4 bytes a token" in rows["tokens for train"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "known once the text is read"), (0.5, "about 0.5 s"), (119, "about 1.2e+02 s"), (600, "about 10.0 min"),
     (7200, "about 2.0 h"), (200_000, "about 2.3 days")],
)  # fmt: skip
def test_times_are_readable(seconds, text):
    assert duration(seconds) == text


def test_the_ridge_is_scaled_from_a_part(monkeypatch):
    seconds = {"gram_from_counts": 2.0, "solve_ridge": 3.0}
    taken = iter(seconds.values())
    monkeypatch.setattr(measure, "_seconds", lambda work: next(taken))
    # 8,192 of 16,384 rows and 64 of 128 features: the Gram matrix takes 2 · 2², the solve 2³ times as long.
    assert measure.ridge_seconds(16_384, 128, 2) == 2.0 * 2 * 4 + 3.0 * 8
