"""Token counts are values: they add, they save to equal bytes, and they refuse what does not belong together."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from ir3de.statistics.held_out import TokenBags
from ir3de.statistics.token_counts import DomainCounts, TokenCounts
from tests.helpers.counts import random_share, share, statistics


def _statistics(names=("b", "a")):
    return statistics({name: random_share(seed) for seed, name in enumerate(names)})


def test_experts_are_in_the_order_of_their_names_whatever_order_they_came_in():
    shares = {"b": random_share(0), "a": random_share(1)}
    assert statistics(shares).names == ("a", "b")
    assert statistics(shares).to_bytes() == statistics(dict(reversed(shares.items()))).to_bytes()


def test_adding_shares_adds_their_counts():
    one, two = random_share(0), random_share(1)
    both = one + two
    assert both.dense(20).tolist() == (one.dense(20) + two.dense(20)).tolist()
    assert both.tokens == one.tokens + two.tokens
    assert len(both.validation) == len(one.validation) + len(two.validation)
    assert both.facts() == (two + one).facts()


def test_saved_counts_come_back_and_equal_counts_are_equal_bytes(tmp_path):
    content = _statistics().to_bytes()
    loaded = TokenCounts.from_bytes(content, where="x")
    assert loaded.to_bytes() == content
    assert loaded.basis == _statistics().basis
    assert torch.equal(loaded.counts_EV, _statistics().counts_EV)
    code = (
        "import sys, hashlib; from tests.statistics.test_token_counts import _statistics;"
        "print(hashlib.sha256(_statistics().to_bytes()).hexdigest())"
    )
    digests = {hashlib.sha256(content).hexdigest()}
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "PATH": ""}
        run = subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True)
        digests.add(run.stdout.strip())
    assert len(digests) == 1


@pytest.mark.parametrize("largest", [1, 2**31 - 1, 2**31, 2**62])
def test_counts_of_any_size_are_saved(largest):
    shares = {"a": share([0, largest, 0]), "b": share([1, 0, 2])}
    loaded = TokenCounts.from_bytes(statistics(shares, num_words=3).to_bytes(), where="x")
    assert loaded.counts_EV.tolist() == [[0, largest, 0], [1, 0, 2]]


def test_a_small_domain_takes_little_room():
    shares = {"large": share(np.ones(50_000)), "small": share(np.eye(1, 50_000).ravel())}
    small = len(TokenCounts.of({"small": shares["small"]}, vocab_size=50_000, tokenizer="t").to_bytes())
    assert small < 1000
    assert len(TokenCounts.of(shares, vocab_size=50_000, tokenizer="t").to_bytes()) < 50_000 * 8 + 2000


def test_counts_that_would_overflow_are_refused():
    with pytest.raises(ValueError, match="at most 9223372036854775807 tokens"):
        share([2**62]) + share([2**62])


@pytest.mark.parametrize("basis, message", [({"tokenizer": "u"}, "tokenizer t and u"), ({"vocab_size": 7}, "6 and 7")])
def test_counts_of_two_tokenizers_do_not_merge(basis, message):
    one = TokenCounts({"a": random_share(0)}, {"tokenizer": "t", "vocab_size": 6})
    with pytest.raises(ValueError, match=message):
        one.merge(TokenCounts({"b": random_share(1)}, one.basis | basis))


def test_experts_are_added_and_removed_by_name():
    three = _statistics(("a", "b", "c"))
    assert three.without_expert("b").with_expert("b", three.shares["b"]).to_bytes() == three.to_bytes()
    with pytest.raises(ValueError, match="`b` exists already"):
        three.with_expert("b", random_share(9))
    with pytest.raises(ValueError, match=r"there is no `d` \(there are a, b, c\)"):
        three.without_expert("d")
    with pytest.raises(ValueError, match="`a` is the last one"):
        statistics({"a": random_share(0)}).without_expert("a")
    with pytest.raises(ValueError, match="`d` has none"):
        three.with_expert("d", share([0] * 20))


def test_what_was_read_already_is_refused():
    one = statistics({"a": share([1, 2], sources=[5, 7, 9])})
    for name in ("a", "b"):
        with pytest.raises(ValueError, match=rf"2 of 3 sources of `{name}` have been read already, for `a`"):
            one.merge(statistics({name: share([3, 1], sources=[7, 9, 11])}))
    assert one.merge(statistics({"a": share([3, 1], sources=[1])})).counts_EV.tolist()[0][:2] == [4, 3]


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_file_is_refused(keep):
    with pytest.raises(ValueError, match="`x` holds no whole token counts"):
        TokenCounts.from_bytes(_statistics().to_bytes()[:keep], where="x")


def test_bags_are_the_same_in_whatever_order_tokens_and_sequences_came():
    rows = [[3, 1, 1], [2], [5, 4, 3, 2]]
    bags = TokenBags.from_sequences([np.array(row) for row in rows])
    again = TokenBags.from_sequences([np.array(row[::-1]) for row in reversed(rows)])
    assert bags.digest() == again.digest()
    assert [row.tolist() for row in bags.sequences()] == [[2], [1, 1, 3], [2, 3, 4, 5]]
    assert (bags + TokenBags.from_sequences([])).digest() == bags.digest()
    assert isinstance(DomainCounts.from_dense(np.ones(3)).validation, TokenBags)
