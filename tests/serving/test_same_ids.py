"""tiktoken reads as the tokenizer does, or is not used: conditions, every character, hypothesis."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from ir3de.serving.byte_pairs import NoBytePairs, byte_pairs
from ir3de.serving.same_ids import check_characters, check_pieces, check_same_ids, compare
from ir3de.serving.text import ReferenceReader, TiktokenReader, pack_ranks, unpack_ranks
from tests.serving.routers import TEXT, byte_pair_tokenizer

PIECES = ("plain", "digits", "split")


def readers(tokenizer):
    """Return the reference reader and tiktoken's."""
    reference = ReferenceReader(lambda: tokenizer)
    return reference, TiktokenReader(**vars(byte_pairs(tokenizer)), reference=reference)


def changed(tokenizer, change):
    """Return a tokenizer with another definition."""
    definition = json.loads(tokenizer.to_str())
    change(definition)
    return Tokenizer.from_str(json.dumps(definition))


@pytest.mark.parametrize("pieces", PIECES)
@pytest.mark.parametrize("alphabet", [True, False], ids=["all bytes", "some bytes"])
def test_the_check_finds_that_byte_pairs_are_read_alike(quick_check, pieces, alphabet):
    tokenizer = byte_pair_tokenizer(pieces, alphabet=alphabet)
    tried = check_same_ids(tokenizer, byte_pairs(tokenizer))
    assert tried["short strings"] == sum(9**i for i in range(1, 5))
    assert tried["texts"] > 300
    reference, fast = readers(tokenizer)
    compare(reference, fast, TEXT)


READERS = {(pieces, alphabet): readers(byte_pair_tokenizer(pieces, alphabet=alphabet))
           for pieces in PIECES for alphabet in (True, False)}  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(
    st.text(max_size=8),
    st.sampled_from([*"aes 1\n\t'!É", "  ", "'ll", "\r\n", "<|end|>", "<|im_start|>", "<|im_", "don't", "123"]),
), max_size=20).map("".join))  # fmt: skip
def test_any_text_is_read_alike(text):
    for reference, fast in READERS.values():
        expected = reference.encode(text).tolist()
        assert fast.encode(text).tolist() == expected
        quick = fast.try_encode(text)
        assert quick.tolist() == expected or quick.max() >= fast._vocab_size, "or it says that it does not know"


@pytest.mark.parametrize("text", ["\ud800", "a\udfff b", "\ud83d\ude00"], ids=ascii)
def test_what_is_no_character_is_read_as_the_replacement_character(text):
    reference, fast = readers(byte_pair_tokenizer())
    read = (
        "\U0001f600"
        if len(text) == 2 and text[0] == "\ud83d"
        else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )
    assert fast.encode(text).tolist() == reference.encode(text).tolist() == reference.encode(read).tolist()


def test_white_space_that_is_too_much_for_the_fast_reader_is_read_by_the_other():
    reference, fast = readers(byte_pair_tokenizer())
    text = " " * 1_000_000 + "a"
    with pytest.raises(ValueError, match="stack"):
        fast._to_numpy(text, allowed_special=frozenset(), disallowed_special=())
    assert fast.encode(text).tolist() == reference.encode(text).tolist()


def test_a_tokenizer_without_added_tokens_is_read_alike():
    reference, fast = readers(byte_pair_tokenizer(special=()))
    compare(reference, fast, [*TEXT, "", " "])


def test_other_pieces_are_found():
    digits = byte_pair_tokenizer("digits")
    with pytest.raises(NoBytePairs, match="into other pieces"):
        check_pieces(digits, byte_pairs(byte_pair_tokenizer("plain")).pattern)


def test_a_character_that_is_of_another_kind_is_found(quick_check):
    tokenizer = byte_pair_tokenizer()
    pattern = (
        byte_pairs(tokenizer)
        .pattern.replace(r" ?\p{L}+", r" ?(?:(?!\u0531)\p{L})+")
        .replace(r"\p{L}\p{N}]", r"\p{L}\p{N}]|\u0531")
    )
    pre_tokenizer = json.loads(tokenizer.to_str())["pre_tokenizer"]
    check_characters(pre_tokenizer, byte_pairs(tokenizer).pattern)
    with pytest.raises(NoBytePairs, match="otherwise"):
        check_characters(pre_tokenizer, pattern)


def test_other_ids_are_found():
    reference = readers(byte_pair_tokenizer())[0]
    with pytest.raises(NoBytePairs, match="reads 'ab"):
        compare(reference, readers(byte_pair_tokenizer(vocab_size=300))[1], ["a", "ab the quick brown fox"])


def _swap(definition):
    vocabulary = definition["model"]["vocab"]
    first, second = sorted(vocabulary, key=vocabulary.get)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]


def _add_token(name):
    def change(definition):
        added = definition["added_tokens"][0]
        number = max(definition["model"]["vocab"].values()) + 1
        definition["added_tokens"].append({**added, "content": name, "id": number})

    return change  # fmt: skip


@pytest.mark.parametrize("change, reason", [
    (lambda d: d.update(normalizer={"type": "NFC"}), "changes the text first"),
    (lambda d: d["pre_tokenizer"].update(add_prefix_space=True), "not bytes as they stand"),
    (lambda d: d.update(pre_tokenizer=None), "not bytes as they stand"),
    (lambda d: d["pre_tokenizer"].update(use_regex=False), "its pieces are made by ByteLevel"),
    (lambda d: d["model"].update(dropout=0.1), "have dropout"),
    (lambda d: d["added_tokens"][0].update(lstrip=True), "rules that tiktoken does not have"),
    (_add_token("<|end|>more"), "rules that tiktoken does not have"),
    (_swap, "not in the order of its ids"),
])  # fmt: skip
def test_what_tiktoken_could_read_otherwise_is_left_to_the_tokenizer(change, reason):
    tokenizer = changed(byte_pair_tokenizer(), change)
    with pytest.raises(NoBytePairs, match=reason):
        byte_pairs(tokenizer)


def test_a_token_that_no_merge_makes_is_not_given_to_tiktoken():
    def add(definition):
        vocabulary = definition["model"]["vocab"]
        vocabulary["quickbrown"] = max(vocabulary.values()) + 1

    tokenizer = changed(byte_pair_tokenizer(), add)
    assert b"quickbrown" not in byte_pairs(tokenizer).ranks
    reference, fast = readers(tokenizer)
    compare(reference, fast, ["quickbrown", *TEXT])
    whole_first = changed(tokenizer, lambda definition: definition["model"].update(ignore_merges=True))
    assert whole_first.encode("quickbrown").ids == [tokenizer.get_vocab()["quickbrown"]]
    with pytest.raises(NoBytePairs, match="'quickbrown' is a whole piece, but no product of its merges"):
        byte_pairs(whole_first)


def test_a_tokenizer_that_looks_for_whole_pieces_first_is_read_alike():
    tokenizer = changed(byte_pair_tokenizer("split"), lambda definition: definition["model"].update(ignore_merges=True))
    reference, fast = readers(tokenizer)
    compare(reference, fast, TEXT)


def test_ranks_come_back_as_they_were():
    ranks = byte_pairs(byte_pair_tokenizer()).ranks
    assert unpack_ranks(pack_ranks(ranks)) == ranks


def test_a_normalizer_is_really_the_reason():
    tokenizer = byte_pair_tokenizer()
    tokenizer.normalizer = normalizers.NFC()
    assert (
        tokenizer.encode("e\u0301").ids
        == byte_pair_tokenizer().encode("\u00e9").ids
        != byte_pair_tokenizer().encode("e\u0301").ids
    )
