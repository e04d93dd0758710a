"""CutMix and intensity mixing of images: some functions draw boxes, others apply them.

Drawing and applying are separate, so that tests of applying need no seed, and images, labels, confidences and
masks can be mixed with the same boxes.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from ._common import check_same_shape, exact_float, no_autocast, to_size, upsample

_TRIES = 256
"""Number of draws per image for 'unimatch'; even its largest boxes fit after far fewer."""


def sample_boxes(
    num: int,
    size: int | tuple[int, int],
    *,
    style: str = 'imas',
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw boxes for CutMix in the style of a published method.

    The caller decides whether to mix; no probability is applied here.

    - 'imas' (iMAS's code): sides int(v H) and int(v W) with one v ~ U(0.1, 0.9) per batch. The center of each
      image is uniform over integer rows in [H // 16, H) and columns in [W // 16, W). The box extends side // 2
      to both sides of the center and is clipped to the image.
    - 'unimatch': an area ~ U(0.02, 0.4) H W; a ratio r ~ U(0.3, 1/0.3) and a corner, redrawn until the box with
      sides int(sqrt(area r)) and int(sqrt(area / r)) is inside the image. If the image is too elongated for any
      box, the box is clipped.
    - 'u2pl': half the image's area; a width uniform in (W/2, W), the height round(H W / 2 / width), placed
      uniformly.
    - 'cps' (CutMix-Seg's generator with CPS's settings): three boxes per image. Each has an area fraction a ~
      U(0.25, 0.5), a height fraction y = exp(U(0, 1) ln a) and a width fraction a / y, both times sqrt(1/3),
      rounded, placed uniformly. `paste` combines overlapping boxes by exclusive or.
    - 'cutmix_seg' (CutMix-Seg): the same with one box of half the image's area: a height fraction y = exp(U(0,
      1) ln 0.5) and a width fraction 0.5 / y.

    Args:
        num: Number of images.
        size: (H, W) of the images, an int for a square.
        style: 'imas', 'unimatch', 'u2pl', 'cps' or 'cutmix_seg'.
        generator: Source of randomness, which also sets the device of the boxes. Default: torch's on the CPU.

    Returns:
        (num, 4) int64, or (num, 3, 4) for 'cps': x1, y1, x2, y2 in pixels, with exclusive x2 and y2, inside the
        image. Nothing waits for the device.

    Raises:
        ValueError: if `style` is unknown, `num` negative or `size` not positive.
    """
    styles = {
        'imas': _imas_boxes,
        'unimatch': _unimatch_boxes,
        'u2pl': _u2pl_boxes,
        'cps': _cps_boxes,
        'cutmix_seg': _cutmix_seg_boxes,
    }
    if style not in styles:
        raise ValueError(f'style is {style!r}, but must be one of {", ".join(styles)}.')
    if num < 0:
        raise ValueError(f'num is {num}, but the number of images cannot be negative.')
    height, width = to_size(size)
    device = torch.device('cpu') if generator is None else generator.device

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64, device=device)

    return styles[style](num, height, width, draw)


def paste(base: Tensor, patch: Tensor, boxes: Tensor) -> Tensor:
    """Paste the boxes of each image from `patch` into `base` (CutMix; iMAS, Eq. 8).

    A pixel is taken from `patch` if an odd number of its image's boxes cover it. Parts of boxes outside the
    image are ignored. A box is empty if its end does not exceed its start.

    Args:
        base: (N, C, H, W) images or (N, H, W) maps, any dtype.
        patch: Same shape as `base`, in the order of the partners; cast to the dtype of `base`.
        boxes: (N, 4) or (N, K, 4) integers x1, y1, x2, y2, with exclusive ends. Boxes on the CPU are applied as
            slices, whatever the device of `base`; boxes on a device as a mask, so that nothing waits for it.

    Returns:
        A new tensor like `base`. Gradients flow to both inputs.

    Raises:
        ValueError: if the shapes do not fit or the boxes are not integers.
    """
    check_same_shape(patch, base, 'patch', 'base')
    if base.dim() not in (3, 4):
        raise ValueError(f'base has shape {tuple(base.shape)}, but must have 3 or 4 dimensions.')
    if boxes.dim() not in (2, 3) or boxes.shape[-1] != 4 or len(boxes) != len(base):
        raise ValueError(
            f'boxes has shape {tuple(boxes.shape)}, but {len(base)} images need '
            f'({len(base)}, 4) or ({len(base)}, K, 4).'
        )
    if boxes.is_floating_point() or boxes.dtype == torch.bool:
        raise ValueError(f'boxes is {boxes.dtype}, but must hold integer pixel positions.')
    boxes = boxes[:, None] if boxes.dim() == 2 else boxes
    if boxes.device.type != 'cpu':
        return _paste_by_mask(base, patch, boxes)
    height, width = base.shape[-2:]
    mixed = base.clone()
    for index, image_boxes in enumerate(boxes.tolist()):
        for x1, y1, x2, y2 in _odd_rectangles(image_boxes, height, width):
            mixed[index, ..., y1:y2, x1:x2] = patch[index, ..., y1:y2, x1:x2]
    return mixed


def upsample_and_paste(
    logits: Tensor,
    size: int | tuple[int, int],
    *,
    images: slice = slice(None),
    partner: Tensor | None = None,
    boxes: Tensor | None = None,
    align_corners: bool = False,
) -> Tensor:
    """Upsample the logits of selected images of a batch, and paste the boxes of their partners.

    Pixelwise operations, such as softmax, may follow the pasting. Call it for a few images at a time to avoid
    full-resolution tensors of the whole batch.

    Args:
        logits: (N, C, h, w) of the unmixed images, any floating dtype.
        size: (H, W) of the images, an int for a square.
        images: Slice of the images to return.
        partner: (N,) int64, the image pasted into each image; requires `boxes`.
        boxes: (N, 4) int64, see `paste`.
        align_corners: `align_corners` of the upsampling.

    Returns:
        (n, C, H, W), float32 (float64 for float64 logits).

    Raises:
        ValueError: if only one of `partner` and `boxes` is given.
    """
    if (partner is None) != (boxes is None):
        raise ValueError('Only one of partner and boxes is given. Give both, or neither.')
    with no_autocast(logits.device):
        logits = exact_float(logits)
        full = upsample(logits[images], size, align_corners)
        if partner is None or boxes is None:
            return full
        return paste(full, upsample(logits[partner[images]], size, align_corners), boxes[images])


def mix_intensity(strong: Tensor, weak: Tensor, hardness: Tensor) -> Tensor:
    """Blend the strong view with the weak view by hardness: (1 - γ) · strong + γ · weak (iMAS, Eq. 7).

    This follows the paper's text, in which harder images are distorted less. The printed equation has the two
    weights swapped.

    Args:
        strong: (N, C, H, W) normalized images.
        weak: The same images, undistorted.
        hardness: (N,) γ in [0, 1], 1 = hard.

    Returns:
        (N, C, H, W), float32 (float64 if an image is).

    Raises:
        ValueError: if the shapes do not fit or the images are not floating point.
    """
    check_same_shape(weak, strong, 'weak', 'strong')
    if not (strong.is_floating_point() and weak.is_floating_point()):
        raise ValueError(
            f'strong is {strong.dtype} and weak {weak.dtype}, but both must be normalized images.'
        )
    if hardness.shape != strong.shape[:1]:
        raise ValueError(
            f'hardness has shape {tuple(hardness.shape)}, but {len(strong)} images need '
            f'({len(strong)},).'
        )
    with no_autocast(strong.device):
        strong, weak = exact_float(strong), exact_float(weak)
        dtype = torch.promote_types(strong.dtype, weak.dtype)
        weight = hardness.to(dtype).view(-1, *[1] * (strong.dim() - 1))
        return torch.lerp(strong.to(dtype), weak.to(dtype), weight)


def hard_easy_partners(hardness: Tensor) -> Tensor:
    """Pair the k-th hardest image of a batch with the k-th easiest (iMAS, Sec. 3.3.1).

    The image of rank k is paired with the image of rank N - 1 - k. If N is odd, the median image is paired with
    itself.

    Args:
        hardness: (N,) γ of each image.

    Returns:
        (N,) int64: the index of each image's partner, an involution. Nothing waits for the device.

    Raises:
        ValueError: if `hardness` is not a vector.
    """
    if hardness.dim() != 1:
        raise ValueError(f'hardness has shape {tuple(hardness.shape)}, but must be (N,).')
    order = hardness.detach().argsort(stable=True)
    return torch.empty_like(order).scatter_(0, order, order.flip(0))


def _imas_boxes(num: int, height: int, width: int, draw) -> Tensor:
    share = 0.1 + 0.8 * draw(1)
    reach_y, reach_x = (share * height).long() // 2, (share * width).long() // 2
    y, x = draw(2, num)
    y, x = _integer(y, height // 16, height), _integer(x, width // 16, width)
    corners = (x - reach_x).clamp(min=0), (y - reach_y).clamp(min=0)
    ends = (x + reach_x).clamp(max=width), (y + reach_y).clamp(max=height)
    return torch.stack(corners + ends, dim=-1)


def _unimatch_boxes(num: int, height: int, width: int, draw) -> Tensor:
    # Make all draws at once and keep the first that fits, since a loop would wait for the device.
    area = (0.02 + 0.38 * draw(num, 1)) * (height * width)
    ratio, x, y = draw(3, num, _TRIES)
    ratio = 0.3 + (1 / 0.3 - 0.3) * ratio
    box_h, box_w = (area * ratio).sqrt().long(), (area / ratio).sqrt().long()
    x, y = _integer(x, 0, width), _integer(y, 0, height)
    fits = (x + box_w <= width) & (y + box_h <= height)
    first = fits.int().argmax(dim=1, keepdim=True)
    x, y, box_w, box_h = (t.gather(1, first).squeeze(1) for t in (x, y, box_w, box_h))
    return torch.stack([x, y, (x + box_w).clamp(max=width), (y + box_h).clamp(max=height)], dim=-1)


def _u2pl_boxes(num: int, height: int, width: int, draw) -> Tensor:
    box_w, x, y = draw(3, num)
    box_w = _integer(box_w, width // 2 + 1, width).clamp(min=1)
    box_h = (height * width / 2 / box_w).round().long().clamp(max=height)
    x, y = _integer(x, 0, width - box_w + 1), _integer(y, 0, height - box_h + 1)
    return torch.stack([x, y, x + box_w, y + box_h], dim=-1)


def _cps_boxes(num: int, height: int, width: int, draw) -> Tensor:
    area, exponent, x, y = draw(4, num, 3)
    area = 0.25 + 0.25 * area
    return _log_uniform_boxes(area, exponent, x, y, height, width, math.sqrt(1 / 3))


def _cutmix_seg_boxes(num: int, height: int, width: int, draw) -> Tensor:
    exponent, x, y = draw(3, num)
    return _log_uniform_boxes(torch.full_like(x, 0.5), exponent, x, y, height, width)


def _log_uniform_boxes(
    area: Tensor,
    exponent: Tensor,
    x: Tensor,
    y: Tensor,
    height: int,
    width: int,
    scale: float = 1.0,
) -> Tensor:
    """Boxes with an area fraction and a log-uniform height fraction, times a scale."""
    share_y = area**exponent
    share_x = area / share_y
    box_h = (share_y * scale * height).round()
    box_w = (share_x * scale * width).round()
    x, y = (x * (width - box_w)).round(), (y * (height - box_h)).round()
    return torch.stack([x, y, x + box_w, y + box_h], dim=-1).long()


def _integer(uniform: Tensor, low: int, high: int | Tensor) -> Tensor:
    """Map draws of U[0, 1) to integers, uniform in [low, high).

    For images of one or two pixels the range can be empty; the result is then high - 1.
    """
    if not isinstance(high, Tensor):
        low = min(low, high - 1)
    return low + (uniform * (high - low)).long()


def _paste_by_mask(base: Tensor, patch: Tensor, boxes: Tensor) -> Tensor:
    """`paste` for (N, K, 4) boxes on a device, without reading their values."""
    inside = _box_mask(boxes, *base.shape[-2:])
    inside = inside if base.dim() == 3 else inside[:, None]
    return torch.where(inside, patch.to(base.dtype), base)


def _box_mask(boxes: Tensor, height: int, width: int) -> Tensor:
    """(N, H, W) bool, True if an odd number of the image's (N, K, 4) boxes cover the pixel."""
    x1, y1, x2, y2 = boxes[..., None].unbind(dim=-2)
    column = torch.arange(width, device=boxes.device)
    row = torch.arange(height, device=boxes.device)
    in_x, in_y = (column >= x1) & (column < x2), (row >= y1) & (row < y2)
    mask = in_y.new_zeros((len(boxes), height, width))
    for k in range(boxes.shape[1]):
        mask = mask ^ (in_y[:, k, :, None] & in_x[:, k, None, :])
    return mask


def _odd_rectangles(
    boxes: list[list[int]], height: int, width: int
) -> list[tuple[int, int, int, int]]:
    """Split the exclusive or of boxes into disjoint rectangles."""
    clipped = [
        (max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)) for x1, y1, x2, y2 in boxes
    ]
    clipped = [box for box in clipped if box[0] < box[2] and box[1] < box[3]]
    if len(clipped) <= 1:
        return clipped
    columns = sorted({x for x1, _, x2, _ in clipped for x in (x1, x2)})
    rows = sorted({y for _, y1, _, y2 in clipped for y in (y1, y2)})
    rectangles = []
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            cover = sum(x1 <= left < x2 and y1 <= top < y2 for x1, y1, x2, y2 in clipped)
            if cover % 2:
                rectangles.append((left, top, right, bottom))
    return rectangles
