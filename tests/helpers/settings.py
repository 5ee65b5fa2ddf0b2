"""The paper's settings in small: Parquet and checkpoints in the published form, a tokenizer and a BERT."""

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from tokenizers import processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from ir3de.configs import SHIPPED
from ir3de.data.bpe import train_bpe

M2D2 = ("cs_l1", "math_l1", "physics_l1", "History_and_events", "Philosophy_and_thinking")
CLM2 = ("math", "bio", "legal", "dialogue")
BLOCK = 24


def texts(domain, size, *, seed=0, words=(15, 60)):
    """Return texts whose words are mostly the domain's own."""
    rng = random.Random(f"{domain}{seed}")
    own = [f"{domain[:3].lower()}{rng.choice('aeiou')}{rng.choice('bcdfg')}{i}" for i in range(40)]
    return [" ".join(rng.choices([*own, "the", "of", "and", "in"], k=rng.randint(*words))) for _ in range(size)]


def save_tokenizer(folder, domains):
    """Save a small BPE with an end of text, and return it."""
    tokenizer = train_bpe((text for name in domains for text in texts(name, 20)), vocab_size=400)
    tokenizer.save(folder)
    return tokenizer


def save_packed(folder, tokenizer, domains, *, sizes=(40, 12, 14)):
    """Write packed blocks as published: windows of one more token, whose label is shifted by one."""
    for name in domains:
        for seed, (split, size) in enumerate(zip(("train", "validation", "test"), sizes, strict=True)):
            run = [
                token for ids in tokenizer.encode(texts(name, 60, seed=seed)) for token in [*ids, tokenizer.end_of_text]
            ]
            rows = [run[i * BLOCK : i * BLOCK + BLOCK + 1] for i in range(size)]
            _write(folder / name / split, [row[:-1] for row in rows], [row[1:] for row in rows])


def save_ragged(folder, tokenizer, domains, *, sizes=(40, 12, 14)):
    """Write a document a row, cut at one more than a block, whose label is shifted by one."""
    for name in domains:
        for seed, (split, size) in enumerate(zip(("train", "validation", "test"), sizes, strict=True)):
            rows = [ids[: BLOCK + 1].tolist() for ids in tokenizer.encode(texts(name, size, seed=seed, words=(3, 30)))]
            _write(folder / name / split, [row[:-1] for row in rows], [row[1:] for row in rows])


def _write(folder, ids, labels):
    folder.mkdir(parents=True)
    columns = {"input_ids": ids, "label": labels}
    table = pa.table({name: pa.array([[int(i) for i in row] for row in rows], pa.list_(pa.int32()))
                      for name, rows in columns.items()})  # fmt: skip
    half = len(table) // 2
    for part, rows in enumerate((table.slice(0, half), table.slice(half))):
        pq.write_table(rows, folder / f"part-{part:05}.parquet", row_group_size=5)


def save_checkpoints(folder, tokenizer, domains):
    """Save a tiny Llama a domain as the paper published its experts, and return where each is."""
    folder.mkdir()
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    bank = {}
    for seed, name in enumerate(domains):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        with torch.no_grad():  # likes its own domain's tokens better than others do
            ids = np.concatenate(tokenizer.encode(texts(name, 40)))
            counts_V = torch.bincount(torch.from_numpy(ids.astype(np.int64)), minlength=config.vocab_size)
            model.lm_head.weight[:, 0] += counts_V.clamp(max=30) * 0.1
        path = folder / f"llama_115000000_{name}_seed=42_freeze_attn.pth"
        torch.save({f"_model.{key}": value.bfloat16() for key, value in model.state_dict().items()}, path)
        bank[name] = str(path)
    return bank


def save_bert(folder, tokenizer):
    """Save a tiny random BERT that reads with the same tokens."""
    torch.manual_seed(0)
    size = {"vocab_size": tokenizer.vocab_size, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    BertModel(BertConfig(**size, num_attention_heads=2, max_position_embeddings=40)).save_pretrained(folder)
    tokenizer.backend.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.end_of_text)]
    )
    tokenizer.save(folder)
    tokenizer.backend.post_processor = None


def shipped_router(folder, name, model):
    """Write a shipped router's config, with another model's path and fewer sequences, to where it is found first."""
    config = yaml.safe_load((SHIPPED / f"routers/paper/{name}.yaml").read_text())
    config["router"]["init_args"]["features"]["init_args"]["model"] = str(model)
    config["router"]["init_args"]["training_sequences"] = 30
    path = folder / f"routers/paper/{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config))
