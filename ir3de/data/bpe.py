"""A byte-level BPE tokenizer, trained on the training split alone."""

from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ir3de.pretrained.tokenizer import TextTokenizer

END_OF_TEXT = "<|endoftext|>"


def train_bpe(texts: Iterator[str], *, vocab_size: int) -> TextTokenizer:
    """Return a byte-level BPE tokenizer with at most ``vocab_size`` entries; id 0 ends a text.

    Raises:
        ValueError: if the vocabulary cannot hold the 256 bytes and the end of text.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size <= len(alphabet):
        raise ValueError(
            f"Expected `tokenizer_vocab_size` above {len(alphabet)}, which the single bytes take, but got {vocab_size}."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return TextTokenizer(tokenizer, end_of_text=tokenizer.token_to_id(END_OF_TEXT))
