"""Small language models and their tokenizers, saved as local experts."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ir3de.pretrained.tokenizer import TextTokenizer
from tests.gateway.running import NAMES

WORDS = 40
TEMPLATE = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}{% if add_generation_prompt %}w5{% endif %}"


def tokenizer_of_words():
    vocabulary = {f"w{i}": i for i in range(WORDS - 3)} | {"user": WORDS - 3, "<unk>": WORDS - 2, "</s>": WORDS - 1}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def tiny_llama(seed=0):
    torch.manual_seed(seed)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, max_position_embeddings=48, eos_token_id=WORDS - 1, **size))
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(8)  # or all logits are nearly equal
    return model.eval()


def saved_bank(folder):
    """Return a folder of three experts, of which the last has a chat template."""
    for seed, name in enumerate(NAMES):
        tiny_llama(seed).save_pretrained(folder / name)
        if name == "maths":
            fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer_of_words(), eos_token="</s>", unk_token="<unk>")
            fast.chat_template = TEMPLATE
            fast.save_pretrained(folder / name)
        else:
            TextTokenizer(tokenizer_of_words(), end_of_text=WORDS - 1).save(folder / name)
    return folder
