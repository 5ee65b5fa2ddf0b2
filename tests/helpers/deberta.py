"""A tiny DeBERTa-v2 in the very form of DeBERTa-v3 on the hub: a half-precision pytorch_model.bin and an spm.model."""

import io
import json

import sentencepiece
import torch
from transformers import DebertaV2Config, DebertaV2Model

SENTENCES = ["the cat sat on the mat", "a dog and a cat, 1 and 2", "naïve café fi x2", "Where is it now? Here it is."]


def save_deberta(folder):
    """Save it, and return the model in float32 and the SentencePiece processor."""
    folder.mkdir()
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20), model_writer=written, vocab_size=80, model_type="unigram",
        pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]",
        unk_piece="[UNK]", hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (folder / "spm.model").write_bytes(written.getvalue())
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "vocab_type": "spm"}))
    shape = {
        "model_type": "deberta-v2", "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 64, "relative_attention": True, "position_biased_input": False,
        "pos_att_type": "p2c|c2p", "norm_rel_ebd": "layer_norm", "share_att_key": True, "max_relative_positions": -1,
        "position_buckets": 16, "type_vocab_size": 0, "max_position_embeddings": 64,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(shape))
    torch.manual_seed(0)
    model = DebertaV2Model(DebertaV2Config(**{k: v for k, v in shape.items() if k != "model_type"})).eval().half()
    state = {f"deberta.{name}": value for name, value in model.state_dict().items()}
    state["lm_predictions.lm_head.bias"] = torch.zeros(96).half()  # of the pre-training's head
    torch.save(state, folder / "pytorch_model.bin")
    return model.float(), sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
