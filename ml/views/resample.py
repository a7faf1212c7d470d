"""Resampling of whole batches: one small matrix a sample and an axis, applied by two batched matrix multiplications."""

import torch
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
    rows = linear_interpolation(top, height, images.shape[-2])
    columns = linear_interpolation(left, width, images.shape[-1], flip)
    return apply_separable(images, rows, columns)


def linear_interpolation(
    start: Float[Tensor, " B"], length: Float[Tensor, " B"], size: int, flip: Bool[Tensor, " B"] | None = None
) -> Float[Tensor, "B size size"]:
    """Row i holds the weights of the pixels in output pixel i, when [start, start + length) is stretched over `size` pixels."""
    pixels = torch.arange(size, device=start.device, dtype=start.dtype)
    centres = start[:, None] + (pixels + 0.5) * (length / size)[:, None] - 0.5
    last = torch.maximum(start + length - 1, start)
    centres = centres.clamp_(min=start[:, None], max=last[:, None]).clamp_(max=size - 1)
    if flip is not None:
        centres = torch.where(flip[:, None], centres.flip(1), centres)
    return (centres[:, :, None] - pixels).abs_().neg_().add_(1).relu_()


def apply_separable(
    images: Float[Tensor, "B C H W"], rows: Float[Tensor, "B H H"], columns: Float[Tensor, "B W W"]
) -> Float[Tensor, "B C H W"]:
    """rows @ image @ columns^T, channel by channel."""
    B, C, H, W = images.shape
    across = torch.bmm(images.reshape(B, C * H, W), columns.transpose(1, 2))
    if C == 1:
        return torch.bmm(rows, across).view(B, 1, H, W)
    return torch.matmul(rows[:, None], across.view(B, C, H, W))
