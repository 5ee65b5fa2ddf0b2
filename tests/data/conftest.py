"""Small made-up domains with different words, as text files."""

import random

import pytest

from ir3de.data.datamodule import DomainDataModule

WORDS = {name: [f"{name}{i}" for i in range(60)] + ["the", "of", "and"] for name in ("maths", "code", "law")}


def made_up_texts(domain, size, seed=0, length=(20, 80)):
    """Return texts of random words of a domain, different from each other."""
    rng = random.Random(f"{domain}{seed}")
    return [" ".join(rng.choices(WORDS[domain], k=rng.randint(*length))) for _ in range(size)]


def write_texts(folder, texts):
    folder.mkdir(parents=True, exist_ok=True)
    for i, text in enumerate(texts):
        (folder / f"{i:03}.txt").write_text(text)
    return str(folder)


@pytest.fixture
def folders(tmp_path):
    return {name: write_texts(tmp_path / name, made_up_texts(name, 60)) for name in WORDS}


@pytest.fixture
def make(tmp_path):
    """Return a data module on small settings."""

    def build(domains, **settings):
        defaults = {"tokenizer_vocab_size": 400, "block_length": 16, "batch_size": 5, "cache_dir": str(tmp_path / "c")}
        return DomainDataModule(domains=domains, **(defaults | settings))

    return build
