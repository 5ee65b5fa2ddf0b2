"""Counts of prompts are integers that add, whatever the order, and come back from their file."""

import errno
import os
import resource

import numpy as np
import pytest

from ir3de.serving.traffic import GROUPS, Traffic

NAMES = ("code", "law")


def none(identity="abc"):
    return Traffic.none(vocab_size=9, expert_names=NAMES, identity=identity)


def counted(prompts):
    traffic = none()
    for ids, expert, unusual in prompts:
        traffic.count(np.array(ids), expert=expert, unusual=unusual)
    return traffic


def same(one, other):
    parts = ("tokens_GV", "prompts_GE", "unusual_GE")
    return all(np.array_equal(getattr(one, part), getattr(other, part)) for part in parts)


@pytest.fixture
def prompts():
    draw = np.random.default_rng(0)
    return [(draw.integers(0, 9, size=5).tolist(), int(draw.integers(2)), bool(draw.integers(2))) for _ in range(200)]


def test_everything_is_counted_once(prompts):
    traffic = counted(prompts)
    assert traffic.prompts == 200
    assert traffic.tokens == 1_000
    assert traffic.tokens_GV.sum(axis=0).tolist() == np.bincount([i for ids, _, _ in prompts for i in ids]).tolist()
    assert traffic.prompts_GE.sum(axis=0).tolist() == np.bincount([expert for _, expert, _ in prompts]).tolist()
    assert traffic.unusual_GE.sum() == sum(unusual for _, _, unusual in prompts)
    assert (traffic.prompts_GE.sum(axis=1) > 0).all()  # every group has some


def test_order_and_parts_do_not_matter(prompts):
    whole = counted(prompts)
    assert same(whole, counted(prompts[::-1]))
    assert same(whole, counted(prompts[:70]) + counted(prompts[70:]))


def test_a_prompt_that_comes_again_is_in_one_group(prompts):
    again = counted([prompts[0]] * 50)
    assert sorted(again.prompts_GE.sum(axis=1).tolist()) == [0] * (GROUPS - 1) + [50]
    assert same(again, counted([(np.array(prompts[0][0], dtype=np.uint32), *prompts[0][1:])] * 50))


def test_counts_come_back(tmp_path, prompts):
    path = tmp_path / "counts.npz"
    path.write_bytes(counted(prompts).to_bytes())
    back = Traffic.read(path)
    assert same(back, counted(prompts))
    assert (back.expert_names, back.identity) == (NAMES, "abc")
    assert path.read_bytes() == counted(prompts[::-1]).to_bytes()


def test_counts_of_another_router_do_not_add():
    with pytest.raises(ValueError, match="of one router"):
        none() + none("other")


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:99], lambda content: b"{}" * 99])
def test_a_damaged_file_is_refused(tmp_path, prompts, damage):
    path = tmp_path / "counts.npz"
    path.write_bytes(damage(counted(prompts).to_bytes()))
    with pytest.raises(ValueError, match="it holds none"):
        Traffic.read(path)


def test_a_flipped_byte_is_refused_or_changes_nothing(prompts):
    whole = counted(prompts)
    content = whole.to_bytes()
    structure = [i for i in range(len(content)) if b"PK" in content[max(i - 47, 0) : i + 1] or i % 13 == 0]
    flipped = [(place, flip) for place in structure for flip in (0x01, 0x80, 0xFF)]
    refused = [error for place, flip in flipped if (error := _refusal(content, place, flip, whole)) is not None]
    assert all("Expected saved counts of prompts in a test, but it holds none" in str(error) for error in refused)
    assert len(refused) > len(structure)  # the others are names and dates that nobody reads


def _refusal(content, place, flip, whole):
    damaged = bytearray(content)
    damaged[place] ^= flip
    try:
        found = Traffic.from_bytes(bytes(damaged), name="a test")
    except ValueError as error:
        return error
    assert (same(found, whole), found.identity, found.expert_names) == (True, "abc", NAMES)
    return None


def test_a_file_that_cannot_be_read_now_is_not_called_damaged(tmp_path, prompts):
    path = tmp_path / "counts.npz"
    path.write_bytes(counted(prompts).to_bytes())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            Traffic.read(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert same(Traffic.read(path), counted(prompts))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        Traffic.read(tmp_path / "counts.npz")
