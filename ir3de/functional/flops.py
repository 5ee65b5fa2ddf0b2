"""How many floating point operations a training step needs, for the share of a device's peak that it reaches."""

from torch import nn


def training_flops_per_token(model: nn.Module, *, layers: int, width: int, length: int) -> int:
    """Return the operations that the mathematics of one training token needs (PaLM, arXiv 2204.02311, appendix B).

    Two for each weight of a matrix product in the forward pass, two in the backward pass towards the inputs, and two
    towards the weight where it is trained; ``12 · layers · width · length`` for the attention's scores. What gradient
    checkpointing computes again does not count.

    Args:
        model: A causal language model; its linear layers are its matrix products (an embedding is a look-up).
        layers: Its attention layers.
        width: Heads times the features of a head.
        length: Tokens of a sequence.
    """
    total = 12 * layers * width * length
    for module in model.modules():
        if isinstance(module, nn.Linear):
            total += (6 if module.weight.requires_grad else 4) * module.weight.numel()
    return total
