"""Several processes at one training: each encodes a share of the batch, and all of them compare all of it.

Every process makes the views of the whole batch from the same chances, so that as many of them as one likes train as one would.
Without a process group all of this does nothing.
"""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


def processes() -> int:
    """That train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(batch: Tensor) -> Tensor:
    """This process's rows of a batch."""
    return batch.chunk(processes())[dist.get_rank()] if processes() > 1 else batch


def gather(rows: Float[Tensor, "b *D"]) -> Float[Tensor, "B *D"]:
    """The rows of all processes in the order of their shares; gradients go back to the process that made a row.

    Each process then computes the loss of the whole batch, and their mean gradient is that of one process.
    """
    return _Gather.apply(rows) if processes() > 1 else rows  # type: ignore[no-untyped-call]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(processes())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        whole = gradient.clone(memory_format=torch.contiguous_format)  # which may be another's gradient, too
        dist.all_reduce(whole)
        return share(whole)


class _Mean(torch.autograd.Function):
    """Of all processes; linear, and its own gradient."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        mean = values.clone()
        dist.all_reduce(mean)
        return mean / processes()

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        mean = gradient.clone()
        dist.all_reduce(mean)
        return mean / processes()


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch norm by the statistics of the whole batch; torch's own SyncBatchNorm refuses CPUs."""

    def forward(self, maps: Float[Tensor, "b C H W"]) -> Float[Tensor, "b C H W"]:
        """Normalised."""
        if not self.training or processes() == 1:
            return super().forward(maps)
        with torch.autocast(maps.device.type, enabled=False):
            exact = maps.float()
            mean: Tensor = _Mean.apply(exact.mean(dim=(0, 2, 3)))  # type: ignore[no-untyped-call]
            centred = exact - mean[:, None, None]
            variance: Tensor = _Mean.apply(centred.square().mean(dim=(0, 2, 3)))  # type: ignore[no-untyped-call]
            scale = self.weight * (variance + self.eps).rsqrt()
            self._remember(mean.detach(), variance.detach(), processes() * maps.numel() // maps.shape[1])
            return (centred * scale[:, None, None] + self.bias[:, None, None]).to(maps.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, pixels: int) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None, "as built"
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * pixels / (pixels - 1), self.momentum)
        assert self.num_batches_tracked is not None, "as built"
        self.num_batches_tracked += 1


def synced(network: nn.Module) -> nn.Module:
    """The network with batch norms that see the whole batch; weights and their names stay."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm
    return network


@torch.no_grad()
def as_the_first(network: nn.Module) -> None:
    """Let every process have the first one's weights: what all have computed for themselves may differ in its last bits."""
    if processes() > 1:
        for tensor in network.state_dict().values():
            dist.broadcast(tensor, src=0)


def apart(batch: Tensor, order: Tensor) -> Tensor:
    """This process's share of a batch that was shuffled: its batch norm meets strangers. He et al. 2020, section 3.3."""
    return share(batch[order]) if processes() > 1 else batch


def together(rows: Float[Tensor, "b D"], order: Tensor) -> Float[Tensor, "B D"]:
    """The rows of a batch that was shuffled by `apart`, of all processes, in their first order."""
    return gather(rows)[order.argsort()] if processes() > 1 else rows
