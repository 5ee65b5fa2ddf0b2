"""Raw text for `prepare`, its config, and what its files must hold, computed another way."""

import io
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
from jsonargparse import Namespace
from tokenizers import processors

from ir3de.prepare.settings import Preparation
from tests.helpers.settings import save_tokenizer

DOMAINS = ("maths", "cooking")
SPLITS = ("train", "validation", "test")
BLOCK = 8


def documents(domain, size, *, seed=0):
    """Return documents of a few to many words; some are empty."""
    rng = random.Random(f"{domain}{seed}")
    words = ["the", "of", "ends", domain, *(f"{domain}{i}" for i in range(7))]
    return ["" if i % 9 == 4 else " ".join(rng.choices(words, k=rng.randint(1, 40))) for i in range(size)]


def write_jsonl(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def parquet(rows):
    """Return the bytes of a Parquet file."""
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), content)
    return content.getvalue()


def parquet_of(domain, size):
    """Return the bytes of a Parquet file with a domain's documents."""
    return parquet([{"text": text} for text in documents(domain, size)])


def tokenizer_in(folder):
    """Save a tokenizer and return it with its folder's path."""
    return save_tokenizer(folder / "tokenizer", DOMAINS), str(folder / "tokenizer")


def tokenizer_like_llamas(folder, domains):
    """Save a tokenizer that puts a special token before a text, as Llama 3's does, and return it."""
    loaded = save_tokenizer(folder, domains)
    loaded.backend.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", loaded.end_of_text)]
    )
    loaded.save(folder)
    return loaded


def config(root, tokenizer, domains, *, pack=True, block_length=BLOCK, read=None, **settings):
    """Return a config as the command line gives it; ``read`` are the domains of the data module."""
    data = Namespace(root=str(root), domains=read or {}, tokenizer=tokenizer, block_length=block_length, pack=pack)
    return Namespace(data=data, prepare=Preparation(domains=domains, **settings))


def rows(folder, column):
    """Return a column's rows over all files, in the order of their names."""
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file)[column].to_pylist()]


def manifest(folder):
    """Return what `prepare` says of a domain that it made."""
    return json.loads((folder / "prepare.json").read_text())


def tree(folder):
    """Return the bytes of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def expected_run(texts, tokenizer, *, before=(), after=()):
    """Return the token ids of the documents that are not empty, in one run."""
    run = []
    for text in texts:
        if text:
            run += [*before, *tokenizer.backend.encode(text, add_special_tokens=False).ids, *after]
    return run
