"""Twin of DAVE: every movement as the matrix that it is, every linear map carried through the layers by hand.

For each sample k, A (H W, H W) is filled pixel by pixel with bilinear weights, and
z = (1 - t) A x + sqrt(1 - (1 - t)^2) noise. w is the row of the class in the network that is linear once everything is
frozen at z, which DecompX's twin carries. The sample's map is x times (1 - t) A^T w. Draws come in the order: flip,
turn, size, shift right, shift down, noise.
"""

import math

import torch
from torch import Tensor, nn

from tests.references.decompx import carried
from tests.references.forward import embed, read, run
from tests.references.input_gradient import tokens


def dave(model: nn.Module, image: Tensor, target: int, n: int = 3, noise: float = 0.3) -> Tensor:  # (N,)
    return tokens(model, image, torch.stack(samples(model, image, target, n, noise)).mean(0))


def samples(model: nn.Module, image: Tensor, target: int, n: int, noise: float) -> list[Tensor]:  # (3, H, W) each
    generator = torch.Generator().manual_seed(0)
    maps = []
    for k in range(n):
        t = noise * k / (n - 1) if n > 1 else 0.0
        u = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
        e = torch.randn(image.shape, generator=generator, dtype=torch.float64)
        flip, turn, size = u[0] < 0.5, math.radians(20 * (2 * u[1] - 1)), 1 + 0.1 * (2 * u[2] - 1)
        A = moved(image.shape[1:], flip, turn, size, 0.1 * (2 * u[3] - 1), 0.1 * (2 * u[4] - 1))
        z = (1 - t) * (image.flatten(1) @ A.T).view_as(image) + math.sqrt(1 - (1 - t) ** 2) * e
        w = effective_row(model, z, target)
        maps.append(image * (1 - t) * (w.flatten(1) @ A).view_as(image))
    return maps


def moved(
    shape: torch.Size, flip: bool, turn: float, size: float, right: float, down: float
) -> Tensor:  # (H W, H W): rows are written, columns are read
    height, width = shape
    A = torch.zeros(height * width, height * width, dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            y = row - (height - 1) / 2 - down * height
            x = column - (width - 1) / 2 - right * width
            x, y = (
                (math.cos(turn) * x + math.sin(turn) * y) / size + (width - 1) / 2,
                (-math.sin(turn) * x + math.cos(turn) * y) / size + (height - 1) / 2,
            )
            for i in (math.floor(y), math.floor(y) + 1):
                for j in (math.floor(x), math.floor(x) + 1):
                    if 0 <= i < height and 0 <= j < width:
                        read_at = i * width + (width - 1 - j if flip else j)
                        A[row * width + column, read_at] += (1 - abs(y - i)) * (1 - abs(x - j))
    return A


def effective_row(model: nn.Module, z: Tensor, target: int) -> Tensor:  # (3, H, W)
    """The gradient of the class in the linear network that is frozen at z."""
    with torch.no_grad():
        at = run(read(model), *embed(model, z))
    conv = model.patch_embed.proj
    p = conv.kernel_size[0]
    pixels = torch.zeros_like(z).requires_grad_()
    c = [torch.zeros_like(at.tokens[0])]
    for top in range(0, z.shape[1], p):
        for left in range(0, z.shape[2], p):
            c.append(conv.weight.detach().flatten(1) @ pixels[:, top : top + p, left : left + p].flatten())
    part = carried(at, torch.stack(c), torch.zeros_like(at.tokens[:, :1]))
    return torch.autograd.grad(part[target], pixels)[0].detach()
