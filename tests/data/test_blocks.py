"""Packing against plain loops, and the text of a block against the tokens in it."""

import numpy as np
import pytest

from ir3de.data.blocks import Encoded, encode_documents, one_per_document, pack_documents
from ir3de.data.bpe import train_bpe
from ir3de.data.cache import SequenceFile, write_sequences

TEXTS = [
    "one two three",
    "naïve — café ☕☕ and 中文字 here",
    "x",
    "a longer document with many words in it, and a dot.",
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(iter(TEXTS * 3), vocab_size=300)


def _plain_blocks(rows, length, separator):
    stream = []
    for i, row in enumerate(rows):
        if i and separator is not None:
            stream.append(separator)
        stream += row
    return [stream[i : i + length] for i in range(0, len(stream), length)]


@pytest.mark.parametrize("separator", [None, 9], ids=["joined", "separated"])
@pytest.mark.parametrize("length", [2, 3, 7, 64])
def test_packing_agrees_with_a_plain_loop(separator, length):
    rng = np.random.default_rng(length)
    rows = [rng.integers(0, 9, rng.integers(1, 12)).tolist() for _ in range(25)]
    documents = Encoded(np.arange(25), [np.array(row, np.int32) for row in rows], [], [])
    packed = pack_documents(documents, block_length=length, separator=separator)
    expected = _plain_blocks(rows, length, separator)
    matrix = packed.ids_M.reshape(-1, length)
    assert [row[:n].tolist() for row, n in zip(matrix, packed.length_N, strict=True)] == expected
    assert not matrix[-1, packed.length_N[-1] :].any()
    places = np.repeat(np.arange(25), [len(row) + (separator is not None) for row in rows])  # a gap counts as the end
    begins = [sum(map(len, expected[:i])) for i in range(len(expected))]
    first = [places[b] + (separator is not None and expected[i][0] == separator) for i, b in enumerate(begins)]
    assert packed.document_N.tolist() == first


@pytest.mark.parametrize("length", [2, 5, 11, 500])
def test_every_character_is_in_exactly_one_block(tokenizer, length):
    documents = encode_documents(TEXTS, np.arange(4), tokenizer)
    packed = pack_documents(documents, block_length=length, separator=tokenizer.end_of_text)
    # Pieces of one document follow each other without a gap; a blank line stands between documents.
    assert "".join(packed.texts).replace("\n\n", "") == "".join(TEXTS)


def test_text_of_a_block_decodes_like_its_tokens(tokenizer):
    texts = ["plain ascii words " * 9, "another of them " * 7]
    packed = pack_documents(encode_documents(texts, np.arange(2), tokenizer), block_length=8, separator=0)
    for row, length, text in zip(packed.ids_M.reshape(-1, 8), packed.length_N, packed.texts, strict=True):
        assert tokenizer.backend.decode([i for i in row[:length].tolist() if i]) == text.replace("\n\n", "")


def test_documents_without_tokens_are_passed_over(tokenizer):
    encoded = encode_documents(["", "one", ""], np.array([4, 5, 6]), tokenizer)
    assert encoded.rows.tolist() == [5]


def test_ragged_sequences_are_read_back(tokenizer, tmp_path):
    ragged = one_per_document(encode_documents(TEXTS, np.arange(4), tokenizer))
    write_sequences(tmp_path / "x.arrow", ragged, domain=2)
    file = SequenceFile(tmp_path / "x.arrow")
    expected = [ids.tolist() for ids in tokenizer.encode(TEXTS)]
    gathered = file.gather(np.array([3, 0]), max(map(len, expected)))
    assert [row[: len(expected[i])].tolist() for row, i in zip(gathered, (3, 0), strict=True)] == [
        expected[3],
        expected[0],
    ]
    assert file.texts(np.array([1])) == [TEXTS[1]]
    assert not file.ids_M.flags.owndata


def test_a_vocabulary_too_small_for_bytes_is_refused():
    with pytest.raises(ValueError, match="tokenizer_vocab_size` above 256"):
        train_bpe(iter(TEXTS), vocab_size=256)
