"""How large the models of a config are: read where they are here, otherwise from what is known of them."""

from dataclasses import dataclass

import torch
from jsonargparse import Namespace
from transformers import AutoModelForCausalLM

from ir3de.experts.adapters import SharedBase
from ir3de.experts.open_weights import open_weights
from ir3de.experts.presets import llama_config, preset_name
from ir3de.hub.facts import ARCHITECTURES, LLAMA_1B, LLAMA_3B, PAPER_EXPERT, Architecture
from ir3de.hub.present import is_present
from ir3de.hub.requirements import Requirement, bank_of, router_configs
from ir3de.pretrained.embeddings import load_embedding_table
from ir3de.pretrained.locate import PACKAGE_PREFIX

_OF_SETTING = {"m2d2": PAPER_EXPERT, "clm2": LLAMA_1B, "reasoning": LLAMA_3B}


@dataclass(frozen=True)
class Sized:
    """A model's size and where that is known from."""

    architecture: Architecture
    basis: str


def expert_sizes(config: Namespace) -> dict[str, Sized]:
    """Return the size of every expert, by domain; those of which nothing is known are left out."""
    found = {}
    for name, source in bank_of(config).items():
        sized = model_size(source, kind_is_expert=True) or _of_setting(config)
        if sized is not None:
            found[name] = sized
    return found


def model_size(source: str, *, kind_is_expert: bool) -> Sized | None:
    """Return a model's size: read if it is an expert that is here, otherwise as published; ``None`` if unknown."""
    known = ARCHITECTURES.get(source.split(":", 1)[0])
    if known is not None:
        return Sized(known, "as published")
    if not kind_is_expert or not is_present(Requirement("expert", source, ())):
        return None
    try:
        weights = open_weights(source, base=_without_base)
        shape, parameters = weights.config, weights.parameters()
        width = round(sum(file.stat().st_size for file in weights.files) / parameters) or 1
    except ValueError:  # an adapter, or nothing that could be loaded; the run itself says what is wrong
        return None
    looked_up = 0 if shape.tie_word_embeddings else shape.vocab_size * shape.hidden_size
    read = Architecture(shape.vocab_size, shape.hidden_size, parameters, width, parameters - looked_up)
    return Sized(read, "read from its files")


def router_table(config: Namespace) -> Sized | None:
    """Return the embedding table of the config's router, or of the first of ``compare`` that has one."""
    for router in (router_configs(config, "fit") | router_configs(config, "compare")).values():
        embeddings = (router.get("init_args") or {}).get("embeddings")
        if embeddings:
            return table_size(config, embeddings)
    return None


def table_size(config: Namespace, embeddings: str) -> Sized | None:
    """Return the size of the model whose embedding table a router uses; only vocabulary and width count."""
    sized = model_size(embeddings, kind_is_expert=embeddings in bank_of(config).values())
    if sized is None and embeddings in bank_of(config).values():
        sized = _of_setting(config)
    package = embeddings.startswith(PACKAGE_PREFIX)
    if sized is None and is_present(Requirement("package" if package else "embeddings", embeddings, ())):
        vocabulary, hidden = load_embedding_table(embeddings).shape
        sized = Sized(Architecture(vocabulary, hidden, vocabulary * hidden, 4, 0), "read from its table")
    return sized


def _of_setting(config: Namespace) -> Sized | None:
    """Return the paper's expert of a setting, or the one that ``train-experts`` makes of the config."""
    if config.setting in _OF_SETTING:
        return Sized(_OF_SETTING[config.setting], "the paper's experts")
    if config.experts.bank is not None:
        return None
    vocabulary = config.data.tokenizer_vocab_size
    preset = preset_name(config.experts.module.preset)
    shape = llama_config(preset, vocab_size=vocabulary, context_length=config.data.block_length)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape)
    number = sum(parameter.numel() for parameter in model.parameters())
    own = Architecture(vocabulary, shape.hidden_size, number, 4, number - vocabulary * shape.hidden_size)
    return Sized(own, f"the preset {preset}")


def _without_base(named: str) -> SharedBase:
    raise ValueError(f"an adapter has the size of its base `{named}`, which is not opened for an estimate")
