"""Copies, near-copies and splits, on texts whose relations are known."""

import hashlib
import random

import numpy as np
import pytest

from ir3de.data.corpus import text_hash
from ir3de.data.near_duplicates import WordHashes, near_duplicate_clusters
from ir3de.data.splits import DROPPED, SPLITS, Part, Splitting, assign_splits
from ir3de.functional.overlap import run_hashes, seen_share

WORDS = WordHashes()


def _part(domain, texts, split=None):
    return Part(domain, split, [text_hash(text) for text in texts], [WORDS(text) for text in texts])


def _texts(size, seed, words=60):
    rng = random.Random(seed)
    return [" ".join(str(rng.randrange(10**6)) for _ in range(words)) for _ in range(size)]


def _variant(text, seed):
    words = text.split()
    words[random.Random(seed).randrange(len(words))] = "changed"
    return " ".join(words)


def test_a_repeated_text_is_kept_once_and_one_of_two_domains_in_neither():
    own, shared = _texts(10, 0), _texts(3, 1)
    parts = [_part("a", [*own, own[0] + "  \n", *shared]), _part("b", [*_texts(5, 2), *shared])]
    result = assign_splits(parts, Splitting())
    assert (result.splits[0] == DROPPED).tolist() == [False] * 10 + [True] * 4
    assert (result.splits[1] == DROPPED).tolist() == [False] * 5 + [True] * 3
    assert (result.counts["a"].exact_duplicates, result.counts["a"].shared_with_other_domains) == (1, 3)
    assert result.counts["b"].shared_with_other_domains == 3


def test_near_copies_never_straddle_splits_or_domains():
    originals = _texts(80, 3)
    parts = [_part("a", originals), _part("b", [_variant(text, i) for i, text in enumerate(originals)])]
    result = assign_splits(parts, Splitting(validation_fraction=0.3, test_fraction=0.3))
    assert result.splits[0].tolist() == result.splits[1].tolist()
    assert result.counts["a"].near_duplicate_clusters == result.counts["b"].near_duplicate_documents == 80
    assert all(count.seen_in_training["test"] == 0 for count in result.counts.values())


def test_without_clustering_near_copies_do_leak():
    originals = _texts(80, 3)
    parts = [_part("a", originals), _part("b", [_variant(text, i) for i, text in enumerate(originals)])]
    result = assign_splits(parts, Splitting(validation_fraction=0.3, test_fraction=0.3, near_duplicates=False))
    assert result.counts["a"].seen_in_training["test"] > 0.2


def test_a_split_does_not_depend_on_the_order_of_domains_or_documents():
    a, b = _texts(50, 4), _texts(50, 5)
    b[:20] = [_variant(text, i) for i, text in enumerate(a[:20])]
    forward = assign_splits([_part("a", a), _part("b", b)], Splitting())
    backward = assign_splits([_part("b", b[::-1]), _part("a", a[::-1])], Splitting())
    assert forward.splits[0].tolist() == backward.splits[1][::-1].tolist()
    assert forward.splits[1].tolist() == backward.splits[0][::-1].tolist()


def test_new_documents_do_not_move_old_ones():
    old = _texts(60, 6)
    before = assign_splits([_part("a", old)], Splitting()).splits[0]
    after = assign_splits([_part("a", [*old, *_texts(60, 7)])], Splitting()).splits[0]
    assert after[:60].tolist() == before.tolist()


def test_fractions_are_met_on_average():
    splits = assign_splits([_part("a", _texts(3000, 8, words=12))], Splitting()).splits[0]
    shares = [float(np.mean(splits == i)) for i in range(3)]
    assert shares == pytest.approx([0.8, 0.08, 0.12], abs=0.03)


@pytest.mark.parametrize("drop", [True, False])
@pytest.mark.parametrize("near", [True, False], ids=["near", "equal"])
def test_training_documents_with_a_copy_in_a_given_test_split_are_counted(drop, near):
    train, validation, test = _texts(20, 9), _texts(10, 10), _texts(10, 11)
    train[:3] = [_variant(text, 0) if near else text for text in test[:3]]
    validation[0] = test[5]
    parts = [_part("a", train, "train"), _part("a", validation, "validation"), _part("a", test, "test")]
    result = assign_splits(parts, Splitting(drop_leaked=drop, near_duplicates=near))
    count = result.counts["a"]
    assert (count.leaked, count.leaked_dropped) == (4, 4 if drop else 0)
    assert (result.splits[2] == SPLITS.index("test")).all()
    assert (result.splits[0][:3] == (DROPPED if drop else 0)).all()
    assert (result.splits[0][3:] == 0).all()
    assert (count.seen_in_training["test"] == 0) == drop


def test_documents_without_a_split_follow_the_given_one():
    given = _texts(20, 12)
    parts = [
        _part("a", _texts(9, 13), "train"),
        _part("a", given, "test"),
        _part("b", [_variant(t, i) for i, t in enumerate(given)]),
    ]
    assert (assign_splits(parts, Splitting()).splits[2] == SPLITS.index("test")).all()


def test_clusters_agree_with_jaccard_where_it_is_clear():
    rng = random.Random(0)
    texts = _texts(30, 14)
    texts += [_variant(texts[i], i) for i in range(10)]
    rng.shuffle(texts)
    words = [WORDS(text) for text in texts]
    labels = near_duplicate_clusters(words, shingle_words=5, num_bands=42, rows_per_band=3)
    shingles = [{tuple(w[i : i + 5].tolist()) for i in range(len(w) - 4)} for w in words]
    for i in range(40):
        for j in range(i):
            jaccard = len(shingles[i] & shingles[j]) / len(shingles[i] | shingles[j])
            assert (labels[i] == labels[j]) == (jaccard > 0.5)


def test_texts_without_words_stay_alone():
    labels = near_duplicate_clusters([WORDS("..."), WORDS("!!!"), WORDS("a b"), WORDS("a b")], shingle_words=8, num_bands=8, rows_per_band=2)  # fmt: skip  # noqa: E501
    assert labels.tolist() == [0, 1, 2, 2]


@pytest.mark.parametrize("n", [1, 3, 13])
def test_share_of_runs_seen_agrees_with_sets(n):
    rng = random.Random(n)
    train, test = ([rng.randrange(4 if n > 1 else 40) for _ in range(300)] for _ in range(2))
    test[50:100] = train[10:60]
    seen = {tuple(train[i : i + n]) for i in range(len(train) - n + 1)}
    runs = [tuple(test[i : i + n]) for i in range(len(test) - n + 1)]
    hashed = [run_hashes(np.array(ids, dtype=np.uint64), n) for ids in (test, train)]
    assert seen_share(hashed[0], np.unique(hashed[1])) == pytest.approx(np.mean([run in seen for run in runs]))


def test_shares_of_nothing():
    nothing = np.zeros(0, dtype=np.uint64)
    assert np.isnan(seen_share(nothing, nothing))
    assert seen_share(np.ones(2, dtype=np.uint64), nothing) == 0
    assert len(run_hashes(np.ones(5, dtype=np.uint64), 6)) == 0
    with pytest.raises(ValueError, match="n=0"):
        run_hashes(nothing, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_fraction": 0.0}, "validation_fraction` between 0 and 1, but got 0.0"),
        ({"test_fraction": 1.5}, "test_fraction` between 0 and 1, but got 1.5"),
        ({"validation_fraction": 0.6, "test_fraction": 0.5}, "add up to 1.1"),
        ({"num_bands": 0}, "num_bands` to be at least 1, but got 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Splitting(**settings).check()


def test_white_space_does_not_make_another_text():
    assert text_hash(" a\n\n b ") == text_hash("a b") == hashlib.sha256(b"a b").digest()


@pytest.mark.parametrize("size", [3, 4, 10])
@pytest.mark.parametrize("seed", range(6))
def test_a_small_domain_still_has_something_in_every_split(size, seed):
    parts = [_part("a", _texts(size, seed)), _part("b", _texts(300, 100 + seed))]
    alone, other = (assign_splits(order, Splitting(seed=seed)) for order in (parts, parts[::-1]))
    assert set(alone.splits[0].tolist()) == {0, 1, 2}
    assert alone.splits[0].tolist() == other.splits[1].tolist()


def test_filling_an_empty_split_moves_one_cluster_only():
    parts = [_part("a", _texts(40, 7)), _part("b", _texts(40, 8))]
    result = assign_splits(parts, Splitting(test_fraction=1e-9))  # nothing is drawn for test
    assert [(rows == SPLITS.index("test")).sum() for rows in result.splits] == [1, 1]
