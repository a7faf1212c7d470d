"""AdamW with linear warm-up and cosine decay."""

import math

from torch import nn
from torch.optim import AdamW

from ml.spec import Pretrain


def adamw(network: nn.Module, pretrain: Pretrain) -> AdamW:
    """Weight decay on all weights but those of norms, and not on biases. Loshchilov, Hutter 2019."""
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]  # norms and biases
    groups = [{"params": decayed, "weight_decay": pretrain.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return AdamW(groups, fused=True)


def set_rate(optimiser: AdamW, rate: float) -> None:
    """Of the next step, for all parameters."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def learning_rate(pretrain: Pretrain, step: int, steps: int) -> float:
    """Linear from 0 to the peak in the warm-up's share of the steps, then half a cosine down to 0."""
    assert pretrain.learning_rate is not None, "a resolved spec has it"
    peak, warmup = pretrain.learning_rate, round(pretrain.warmup * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2
