"""The check of tiktoken's ids, made small: every compilation makes the whole one, which takes ten seconds."""

import pytest

from ir3de.serving import same_ids


@pytest.fixture
def quick_check(monkeypatch):
    monkeypatch.setattr(same_ids, "_CODE_POINTS", [*range(0x600), *range(0x600, 0x110000, 997)])
    monkeypatch.setattr(same_ids, "_LENGTH", 4)
    monkeypatch.setattr(same_ids, "_CORPUS_BYTES", 20_000)
    monkeypatch.setattr(same_ids, "vocabulary_texts", lambda tokenizer: _vocabulary_texts(tokenizer, texts=100))
    monkeypatch.setattr(same_ids, "random_texts", lambda special: _random_texts(special, texts=200))


_vocabulary_texts = same_ids.vocabulary_texts
_random_texts = same_ids.random_texts
