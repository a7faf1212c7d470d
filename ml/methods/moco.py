"""Momentum contrast. He, Fan, Wu, Xie, Girshick 2020; version 2: Chen, Fan, Girshick, He 2020."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from ml import distributed, methods, spec
from ml.distributed import gather, share
from ml.methods import Projecting, Setting
from ml.methods.bank import first_of
from ml.views import Inputs


class Queue(nn.Module):
    """The last keys, first in, first out, with the items that they are of; random directions, of no item, to begin with."""

    keys: Tensor
    items: Tensor
    oldest: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(length, width), dim=1))
        self.register_buffer("items", torch.full((length,), -1))
        self.register_buffer("oldest", torch.tensor(0))

    def scores(self, queries: Float[Tensor, "B D"], items: Int64[Tensor, " B"]) -> Float[Tensor, "B K"]:
        """Cosines with all keys; -inf with those of the query's own item, which is no stranger."""
        return (queries @ self.keys.T).masked_fill(self.items == items[:, None], -torch.inf)

    def push(self, keys: Float[Tensor, "B D"], items: Int64[Tensor, " B"]) -> None:
        """The new keys take the places of the oldest."""
        places = (self.oldest + torch.arange(len(keys), device=keys.device)) % len(self.keys)
        self.keys[places] = keys
        self.items[places] = items
        self.oldest.copy_((self.oldest + len(keys)) % len(self.keys))


class KeyNetwork(nn.Module):
    """An encoder and its projection, which follow the trained ones slowly and are not trained themselves."""

    def __init__(self, followed: Sequence[nn.Module], momentum: float) -> None:
        super().__init__()
        self._followed: list[Tensor] = [parameter for module in followed for parameter in module.parameters()]
        self.momentum = momentum
        self.network = nn.Sequential(*(copy.deepcopy(module) for module in followed)).requires_grad_(False)

    @torch.no_grad()
    def forward(self, view: Float[Tensor, "B ..."]) -> Float[Tensor, "B D"]:
        """Keys on the unit sphere."""
        return F.normalize(self.network(view), dim=1)

    @torch.no_grad()
    def follow(self) -> None:
        """One step towards the trained weights. He et al. 2020, eq. 2."""
        torch._foreach_lerp_(list(self.network.parameters()), self._followed, 1 - self.momentum)  # all in one launch on a GPU


@methods.implements(spec.MoCo)
class MoCo(Projecting):
    """A query of v1 against the key of v2 and a queue of past keys; of views of two kinds also the other way round.

    Several processes have a batch norm each, and encode keys in another order than queries: else it would tell which is whose.
    """

    synced = False

    def __init__(self, method: spec.MoCo | spec.InfoMin, setting: Setting) -> None:
        super().__init__(method, setting)
        assert method.queue is not None and method.temperature is not None, "a resolved spec has them"
        self.temperature = method.temperature
        self.ways = ((0, 1), (1, 0)) if self.two_kinds else ((0, 1),)
        followed = [
            (self.encoders[key % len(self.encoders)], self.projections[key % len(self.projections)]) for _, key in self.ways
        ]
        self.key_networks = nn.ModuleList(KeyNetwork(modules, method.momentum) for modules in followed)
        self.queues = nn.ModuleList(Queue(method.queue, method.projection) for _ in self.ways)
        self._seen: list[tuple[Queue, Tensor, Tensor]] = []

    def loss(self, drawn: Inputs, items: Int64[Tensor, " B"], chances: Generator) -> Float[Tensor, ""]:
        """InfoNCE of finding the key among the queue; the mean of both ways where there are two."""
        self._seen = []
        losses = []
        for (query, key), network, queue in zip(self.ways, self.key_networks, self.queues, strict=True):
            queries = gather(self.project(share(drawn[query]), query))
            losses.append(self._find(queries, self._keys(drawn[key], items, network, queue, chances), items, queue))
        return torch.stack(losses).mean()

    def update(self) -> None:
        """The key networks follow, and the queues take in this step's keys."""
        for network in self.key_networks:
            network.follow()  # type: ignore[operator]
        for queue, keys, items in self._seen:
            queue.push(keys, items)
        self._seen = []

    def _keys(
        self, view: Float[Tensor, "B ..."], items: Int64[Tensor, " B"], network: nn.Module, queue: nn.Module, chances: Generator
    ) -> Float[Tensor, "B D"]:
        order = torch.randperm(len(view), generator=chances, device=view.device)
        keys = distributed.together(network(distributed.apart(view, order)), order)
        assert isinstance(queue, Queue), "as built"
        self._seen.append((queue, keys, items))
        return keys

    def _find(
        self, queries: Float[Tensor, "B D"], keys: Float[Tensor, "B D"], items: Int64[Tensor, " B"], queue: nn.Module
    ) -> Float[Tensor, ""]:
        assert isinstance(queue, Queue), "as built"
        own = (queries * keys).sum(dim=1, keepdim=True)
        return first_of(torch.cat((own, queue.scores(queries, items)), dim=1) / self.temperature)
