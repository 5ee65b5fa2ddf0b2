"""Tiny random models with ``word_tokenizer``, saved as transformers saves them."""

import torch
from tokenizers import processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

from tests.helpers.text import word_tokenizer


def save_model(folder, *, bert=False, words=20, positions=64):
    """Save a model of 16 hidden features and two layers; a BERT has w1 as [CLS] and w2 as [SEP]."""
    torch.manual_seed(0)
    size = {"vocab_size": words, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    size |= {"num_attention_heads": 2, "max_position_embeddings": positions}
    model = BertModel(BertConfig(**size)) if bert else LlamaModel(LlamaConfig(**size))
    model.save_pretrained(folder)
    tokenizer = word_tokenizer(words)
    if bert:
        template = {"single": "w1 $A w2", "special_tokens": [("w1", 1), ("w2", 2)]}
        tokenizer.backend.post_processor = processors.TemplateProcessing(**template)
    tokenizer.save(folder)
    return str(folder)
