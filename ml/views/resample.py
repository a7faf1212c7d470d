"""Resampling of whole batches, row by row and column by column, each sample in its own way."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def resized_boxes(
    images: Float[Tensor, "B C H W"],
    top: Float[Tensor, " B"],
    left: Float[Tensor, " B"],
    height: Float[Tensor, " B"],
    width: Float[Tensor, " B"],
    flip: Bool[Tensor, " B"] | None = None,
) -> Float[Tensor, "B C H W"]:
    """Cut a box out of each image, in pixels and not necessarily whole ones, and resize it bilinearly to the image's size.

    Where `flip` is true the result is mirrored left to right. On whole pixels it is torchvision's `resized_crop`: a box is never
    larger than its image, so antialiasing has nothing to do, and what lies outside the box is not looked at.
    """
    B, C, H, W = images.shape
    rows, columns = stretched(top, height, H), stretched(left, width, W)
    if flip is not None:
        columns = torch.where(flip[:, None], columns.flip(1), columns)
    pixels = torch.arange(W, device=images.device)
    weights = (columns[:, :, None] - pixels).abs_().neg_().add_(1).relu_()
    resized = torch.bmm(interpolated_rows(images, rows).view(B, C * H, W), weights.transpose(1, 2))
    return resized.view(B, C, H, W)


def stretched(start: Float[Tensor, " B"], length: Float[Tensor, " B"], size: int) -> Float[Tensor, "B size"]:
    """Where each of `size` pixels comes from, when [start, start + length) is stretched over them all."""
    pixels = torch.arange(size, device=start.device, dtype=start.dtype)
    places = start[:, None] + (pixels + 0.5) * (length / size)[:, None] - 0.5
    last = torch.maximum(start + length - 1, start)
    return places.clamp_(min=start[:, None], max=last[:, None]).clamp_(max=size - 1)


def interpolated_rows(images: Float[Tensor, "B C H W"], places: Float[Tensor, "B H"]) -> Float[Tensor, "B C H W"]:
    """Row i is taken from between two rows of the image: a weighted sum of rows, and so an `embedding_bag`, the fastest way."""
    B, C, H, W = images.shape
    above = places.floor()
    below_weight = places - above
    pairs = torch.stack((above, (above + 1).clamp_(max=H - 1)), dim=-1).long()
    weights = torch.stack((1 - below_weight, below_weight), dim=-1)
    of_image = H * torch.arange(B * C, device=images.device).view(B, C, 1, 1)
    bags = (pairs[:, None] + of_image).view(-1, 2)
    shares = weights[:, None].expand(-1, C, -1, -1).reshape(-1, 2)
    rows = F.embedding_bag(bags, images.reshape(-1, W), mode="sum", per_sample_weights=shares)
    return rows.view(B, C, H, W)


def apply_separable(
    images: Float[Tensor, "B C H W"], rows: Float[Tensor, "B H H"], columns: Float[Tensor, "B W W"]
) -> Float[Tensor, "B C H W"]:
    """rows @ image @ columns^T, channel by channel."""
    B, C, H, W = images.shape
    across = torch.bmm(images.reshape(B, C * H, W), columns.transpose(1, 2))
    if C == 1:
        return torch.bmm(rows, across).view(B, 1, H, W)
    return torch.matmul(rows[:, None], across.view(B, C, H, W))
