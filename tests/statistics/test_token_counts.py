"""Token counts are values: they add, they save to equal bytes, and they refuse what does not belong together."""

import hashlib
import subprocess
import sys

import pytest
import torch

from ir3de.statistics.token_counts import TokenCounts
from tests.helpers.text import pad


def _counts(names=("b", "a"), vocab_size=6, tokenizer="t", seed=0):
    counts_EV = torch.randint(0, 9, (len(names), vocab_size), generator=torch.Generator().manual_seed(seed))
    return TokenCounts(tuple(names), counts_EV, tokenizer)


def test_counting_batches_equals_adding_counts():
    rows, domains = [[1, 2], [3], [3, 3, 5]], [0, 1, 1]
    together, apart = (TokenCounts.zeros(["a", "b"], vocab_size=6, tokenizer="t") for _ in range(2))
    together.count_(*pad(rows), torch.tensor(domains))
    for row, domain in zip(rows, domains, strict=True):
        one = TokenCounts.zeros(["a", "b"], vocab_size=6, tokenizer="t")
        one.count_(*pad([row]), torch.tensor([domain]))
        apart = apart + one
    assert torch.equal(together.counts_EV, apart.counts_EV)
    assert together.tokens_E.tolist() == [2, 4]


def test_saved_counts_come_back_and_equal_counts_are_equal_bytes(tmp_path):
    _counts().save(tmp_path / "x")
    loaded = TokenCounts.load(tmp_path / "x")
    assert (loaded.names, loaded.tokenizer) == (("b", "a"), "t")
    assert torch.equal(loaded.counts_EV, _counts().counts_EV)
    code = (
        "import sys; from pathlib import Path; from tests.statistics.test_token_counts import _counts;"
        "_counts().save(Path(sys.argv[1]))"
    )
    digests = {hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()}
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "PATH": ""}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / seed)], check=True, env=environment)
        digests.add(hashlib.sha256((tmp_path / seed).read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("other", [{"tokenizer": "u"}, {"vocab_size": 7}], ids=["tokenizer", "vocabulary"])
def test_counts_of_two_tokenizers_do_not_add(other):
    with pytest.raises(ValueError, match="one tokenizer"):
        _counts() + _counts(**other)


def test_counts_of_other_domains_do_not_add():
    with pytest.raises(ValueError, match="same domains"):
        _counts() + _counts(names=("a", "b"))


def test_two_domains_with_one_name_are_refused():
    with pytest.raises(ValueError, match="name of its own"):
        TokenCounts.zeros(["a", "b", "a"], vocab_size=3, tokenizer="t")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    _counts().save(tmp_path / "x")
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:keep])
    with pytest.raises(ValueError, match="no whole token counts"):
        TokenCounts.load(tmp_path / "x")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        TokenCounts.load(tmp_path / "nowhere")
