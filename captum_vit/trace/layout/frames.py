"""Whether tokens are the frames of a sound, in the order of time: found by changing some moments of it."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_vit.errors import UnsupportedModelError
from captum_vit.trace.layout.embedding import Embedding
from captum_vit.trace.layout.reach import moved

MOMENTS = 16  # that are changed, the first and the last among them
NEAR = 0.25  # of the farthest move of any token


def are_frames(
    embedding: Embedding,
    plain: Tensor,  # shape: (1, N, D), its tokens for the sample
) -> bool:
    """Whether tokens depend on this sound at all, (S,) samples or (F, S); refused where they are no frames in order.

    Each frame stands for as long a part of it. Frames overlap, and may read a little of all through a norm: where the
    part of frame i is changed, token i, or one beside it, must move about as far as any. Costs the embedding of at most
    18 rows.

    Raises:
        UnsupportedModelError: another token moves, or one stays where it is when all is changed.
    """
    x, n = embedding.sample, plain.shape[1]
    if x.shape[-1] < n:
        return False
    noise = torch.arange(x.numel(), device=x.device).mul(1.7).cos().view_as(x).to(x)
    other = x + noise * x.float().std().clamp_min(0.1).to(x)
    reads = moved(embedding.tokens(other) - plain, plain)[0]
    if not reads.any():
        return False
    if not reads.all():
        raise _no_frames(f"{int(reads.sum())} of {n} tokens that depend on it")
    frames = torch.linspace(0, n - 1, min(n, MOMENTS)).round().long().unique().to(x.device)
    of_frame = torch.arange(x.shape[-1], device=x.device) * n // x.shape[-1]
    rows = [torch.where(of_frame == frame, other, x) for frame in frames]
    far = (embedding.in_portions(rows) - plain).norm(dim=-1)  # shape: (M, N)
    beside = [far.gather(1, (frames + step).clamp(0, n - 1).unsqueeze(1)) for step in (-1, 0, 1)]
    own = torch.cat(beside, 1).amax(1)
    wrong = (own < NEAR * far.amax(1)).nonzero().flatten()
    if len(wrong):
        i = int(wrong[0])
        raise _no_frames(f"a change of frame {int(frames[i])} of {n} that moves token {int(far[i].argmax())} most")
    return True


def _no_frames(got: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        "A token for each frame of a sound, in the order of time.",
        got,
        'a model that reads its sound frame by frame; Captum\'s own methods on the samples; output="channels" at a '
        "layer.",
    )
