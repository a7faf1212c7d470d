"""I_alpha, between InfoNCE and TUBA."""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ml.mi.strangers import LARGEST, as_rows, without_pairs

ALPHA = 0.01


def contributions(scores: Float[Tensor, "B B"], log_baseline: Float[Tensor, " B"], alpha: float = ALPHA) -> Float64[Tensor, " B"]:
    """Lower bound in nats as the mean over items, below 1 + log K - log alpha: I_alpha of Poole et al. 2019, section 2.4.

    TUBA with the baseline alpha m(y) + (1 - alpha) a(y), where m(y) is the mean of exp f(x, y) over K = B - 1 items. For every
    alpha in [0, 1] and every a it is a bound, because with all of the K items but one held fixed the critic
    f - log(alpha m + (1 - alpha) a) is one that TUBA bounds. That needs as many of them, and as independent of y, where y is a
    partner as where it is a stranger. So a pair's K items are its own x and all strangers but one, which may be any: it is the
    next; and a stranger's are all x but that of y. Each of these takes its turn as the stranger, and the mean of exp f over them
    is m(y) again.

    `log_baseline` is log a(y_j) of each column. alpha = 1 is InfoNCE in one direction with K candidates, whatever a;
    alpha = 0 is TUBA.
    """
    relative = scores.double() - log_baseline.double()
    next_one = torch.eye(len(relative), dtype=torch.bool, device=relative.device).roll(1, dims=0)
    of_pairs, of_strangers = relative.masked_fill(next_one, -math.inf), without_pairs(relative, -math.inf)
    log_k = math.log(len(relative) - 1)
    log_alpha, log_rest = relative.new_tensor([alpha, 1 - alpha]).log()

    def log_baselines(candidates: Float64[Tensor, "B B"]) -> Float64[Tensor, " B"]:
        return torch.logaddexp(log_alpha + candidates.logsumexp(dim=0) - log_k, log_rest)

    with_pairs, with_strangers = log_baselines(of_pairs), log_baselines(of_strangers)
    strangers = (of_strangers.logsumexp(dim=0) - log_k - with_strangers).clamp(max=LARGEST).exp()
    rows = (without_pairs(of_pairs, -math.inf) - log_k + log_alpha - with_pairs).exp()
    rows = rows + (of_strangers - log_k + log_rest - 2 * with_strangers).clamp(max=LARGEST).exp()
    return 1 + relative.diagonal() - with_pairs - strangers - as_rows(rows)
