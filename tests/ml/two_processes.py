"""Started by torchrun, once for each process: the loss and the gradients of every method, as one training has them."""

import sys
from pathlib import Path

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ml import distributed, encoders, methods, spec
from ml.encoders import PixelEncoder, Standardise
from ml.methods import Setting

AUGMENT = {"kind": "augment"}
SPLIT = {"kind": "color_split", "space": "ydbdr"}
METHODS = {
    "simclr": ({"kind": "simclr"}, AUGMENT),
    "simclr of two kinds": ({"kind": "simclr"}, SPLIT),
    "moco": ({"kind": "moco", "queue": 16}, AUGMENT),
    "infomin": ({"kind": "infomin", "queue": 16}, AUGMENT),
    "inst_dis": ({"kind": "inst_dis", "negatives": 7}, AUGMENT),
    "cmc": ({"kind": "cmc", "negatives": 7}, SPLIT),
    "pirl": ({"kind": "pirl", "negatives": 7}, AUGMENT),
    "cpc": ({"kind": "cpc"}, {"kind": "patch_grid", "size": 12, "stride": 6}),
    "supervised": ({"kind": "supervised"}, AUGMENT),
}
ITEMS = 16
FACTS = spec.DatasetFacts(name="made", train=ITEMS, test=20, channels=3, image_size=24, classes=4)


def two_steps(name: str) -> dict[str, Tensor]:
    """Loss, gradients and what is remembered after the second of two steps by SGD."""
    method_asked, recipe = METHODS[name]
    document = {
        "dataset": {"name": "made"},
        "views": recipe,
        "method": method_asked,
        "encoder": {"kind": "small_conv", "width": 4},
        "pretrain": {"batch_size": 8, "steps": 3},
    }
    asked = spec.resolve(spec.ExperimentSpec.model_validate(document), lambda *_: FACTS)
    torch.manual_seed(0)
    # Each process of MoCo has a batch norm of its own; without one its numbers are those of one process too.
    norm: spec.Norm = "layer" if name in ("moco", "infomin") else asked.method.norm
    networks = [
        PixelEncoder(encoders.build(asked.encoder, channels, norm), Standardise(torch.zeros(channels), torch.ones(channels)))
        for channels in ((1, 2) if asked.views.two_kinds else (3,))
    ]
    setting = Setting(networks, [16] * len(networks), ITEMS, asked.views, {"label": torch.arange(ITEMS) % 4})
    method = methods.build(asked.method, setting)
    if method.synced:
        distributed.synced(method)
    several = distributed.processes() > 1
    loss_of = DistributedDataParallel(method, broadcast_buffers=False, find_unused_parameters=True) if several else method
    optimiser = torch.optim.SGD([weights for weights in method.parameters() if weights.requires_grad], lr=0.05)
    chances = Generator().manual_seed(1)
    for step in range(2):
        images = torch.rand(8, 3, 24, 24, generator=Generator().manual_seed(step))
        items = torch.randperm(ITEMS, generator=chances)[:8]
        loss = loss_of(method.draw(asked.views, images, chances), items, chances)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        method.update()
    found = {f"gradient of {where}": weights.grad for where, weights in method.named_parameters() if weights.grad is not None}
    return {"loss": loss.detach(), **found, **{where: buffer.float() for where, buffer in method.named_buffers()}}


def normalised() -> dict[str, Tensor]:
    """Maps by a synced batch norm: in training, in evaluation, and in bfloat16; with what it remembers and its gradients."""
    torch.manual_seed(0)
    norm = distributed.synced(nn.Sequential(nn.BatchNorm2d(3)))
    maps = (3 * torch.randn(8, 3, 5, 5) + 1).requires_grad_()
    trained = distributed.gather(norm(distributed.share(maps)))
    (trained * torch.arange(8.0)[:, None, None, None]).square().sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = distributed.gather(norm(distributed.share(maps.bfloat16())))
    norm.eval()
    evaluated = distributed.gather(norm(distributed.share(maps)))
    assert maps.grad is not None
    found = {"trained": trained, "rounded": rounded, "evaluated": evaluated, "gradient": _of_all(maps.grad)}
    return {what: value.detach().float() for what, value in found.items()} | dict(norm.named_buffers())


def _of_all(gradient: Tensor) -> Tensor:
    """Each process knows its own rows', of as many losses as there are processes."""
    return distributed.gather(distributed.share(gradient)) / distributed.processes()


def gathered_twice() -> dict[str, Tensor]:
    """The gradients of two parts that were gathered singly and meet in one sum, which autograd hands both the same gradient."""
    parts = [torch.zeros(4).requires_grad_() for _ in range(2)]
    both = sum(distributed.gather(distributed.share(part)) for part in parts)
    (both * torch.arange(4.0)).sum().backward()
    return {f"part {which}": _of_all(part.grad) for which, part in enumerate(parts) if part.grad is not None}


OTHERS = {"normalised": normalised, "gathered twice": gathered_twice}


def main() -> None:
    """Keep what the first process has."""
    dist.init_process_group("gloo")
    found = {f"{name}: {what}": value.contiguous() for name in METHODS for what, value in two_steps(name).items()}
    found |= {f"{name}: {what}": value.contiguous() for name, other in OTHERS.items() for what, value in other().items()}
    if dist.get_rank() == 0:
        safetensors.torch.save_file(found, Path(sys.argv[1]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
