"""What each head adds to the residual stream: its columns of the output projection."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as everywhere
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from captum_vit.errors import MISFITS, UnsupportedModelError
from captum_vit.models.transformer import Transformer
from captum_vit.sites.nests import tensors_in
from captum_vit.trace.record.record import Record

WITHOUT_HEADS = "a method that needs no per-head vectors, such as GenAtt or DecompX."
TRIED_AT = (0.1, 3.0)  # sizes of the vectors on which a layer is tried
FEW_BITS = 0.05  # what rounding may do to a layer with weights in a few bits


def written_by_heads(found: Record, layer: int) -> Tensor:  # shape: (H, d, D)
    """What each head's vector becomes in the residual stream of a pass; one row of it is compared.

    Raises:
        UnsupportedModelError: something else than a linear projection stands between the heads and the stream.
    """
    W, bias = output_map(found.transformer, layer, found.seen["values"][layer])
    seen = {kind: row[layer] for kind, row in found.seen.items() if layer in row}
    after = seen.get("before_mid" if found.transformer.post_norm else "mid")
    if after is not None and "tokens" in seen:
        _refuse_other_row(found, layer, W, bias, seen["tokens"][:, 0], after[:, 0])
    return W


def output_map(
    transformer: Transformer,
    layer: int,
    values: Tensor,  # shape: (B, H, N, d), what the heads hold
) -> tuple[Tensor, Tensor | None]:  # shapes: (H, d, D), (D,)
    """What each head's vector becomes in the residual stream, and what is added: the output projection, scaled."""
    block = transformer.blocks[layer]
    if block.between:
        raise UnsupportedModelError(
            "Heads that reach the residual stream through a linear projection alone.",
            f"{transformer.family} with {block.between} in between",
            WITHOUT_HEADS,
        )
    heads, width = values.shape[1], values.shape[-1]
    like = values.new_empty(len(values), values.shape[2], heads * width)
    W, bias = linear_map(transformer.part(layer, "out_proj"), like)
    if len(W) != heads * width:
        raise UnsupportedModelError(
            "An output projection of the merged heads and nothing else.",
            f"one of {len(W)} numbers in {transformer.family}, for {heads} heads of {width}",
            WITHOUT_HEADS,
        )
    if block.attn_scale is not None or "attn_scale" in block.missing:
        scale = transformer.part(layer, "attn_scale")().detach().flatten().to(W)
        W, bias = W * scale, None if bias is None else bias * scale
    return W.unflatten(0, (heads, width)), bias


def untouched(module: nn.Module) -> bool:
    """Whether a call of a module is one of its class's forward: no hooks, its own or everyone's, no other forward."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    all_of_them = (everywhere._global_forward_hooks, everywhere._global_forward_pre_hooks)
    return not any(hooks) and not any(all_of_them) and "forward" not in vars(module)


def linear_map(
    module: nn.Module,
    like: Tensor,  # shape: (B, N, in), as what it is given
) -> tuple[Tensor, Tensor | None]:  # shapes: (in, out), (out,)
    """The matrix of a linear layer and what it adds; one that is not plain (hooked, adapted, quantised) is tried.

    Raises:
        UnsupportedModelError: it is not linear, or not token by token.
    """
    # nn.MultiheadAttention never calls its output projection, but reads the weights past all hooks.
    plain = isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward and untouched(module)
    if plain or isinstance(module, NonDynamicallyQuantizableLinear):
        weights: Any = module
        return weights.weight.detach().T, None if weights.bias is None else weights.bias.detach()
    weight = getattr(module, "weight", None)
    fine = weight if isinstance(weight, Tensor) and weight.is_floating_point() else None
    eye = torch.eye(like.shape[-1], dtype=like.dtype if fine is None else fine.dtype, device=like.device)
    try:
        return _tried(module, eye, like.shape[:-1], coarse=fine is None)
    except MISFITS as error:
        raise UnsupportedModelError(
            "An output projection that takes any batch of tokens.",
            f"{type(module).__name__}, which refuses one with {type(error).__name__}: {error}",
            f"the model without hooks on it, or {WITHOUT_HEADS}",
        ) from error


@torch.no_grad()
def _tried(module: nn.Module, eye: Tensor, shape: torch.Size, coarse: bool) -> tuple[Tensor, Tensor]:
    """Zeros give what is added, the identity the matrix; others must then be what these two say.

    Rows are laid into batches of tokens as in a pass, since a user's hook may know no others.
    """

    def run(rows: Tensor) -> Tensor:  # (R, in) -> (R, out)
        size = shape.numel()
        laid = (F.pad(some, (0, 0, 0, size - len(some))).view(*shape, -1) for some in rows.split(size))
        return torch.cat([tensors_in(module(some))[0].flatten(0, 1) for some in laid])[: len(rows)]

    bias = run(torch.zeros_like(eye[:1]))[0]
    W = run(eye) - bias
    generator = torch.Generator().manual_seed(0)
    some = torch.randn(3, len(eye), generator=generator).to(eye)
    bound = max(4 * torch.finfo(eye.dtype).eps ** 0.5, FEW_BITS * coarse)
    for x in [size * rows for size in TRIED_AT for rows in (some, some[:1], some.flip(0))]:
        found, wanted = run(x), x @ W + bias
        if not (found - wanted).abs().max() <= bound * wanted.abs().max():
            raise UnsupportedModelError(
                "An output projection that is linear, token by token.",
                f"{type(module).__name__}, which is not as it is called, with its hooks",
                f"the model without these hooks, or {WITHOUT_HEADS}",
            )
    return W, bias


def _refuse_other_row(
    found: Record, layer: int, W: Tensor, bias: Tensor | None, before: Tensor, after: Tensor
) -> None:  # before, after: (B, D)
    """What the heads write into the first row must be what the stream gains there, up to rounding."""
    probs, values = found.attention(layer).probs(slice(0, 1)), found.seen["values"][layer]
    wide = torch.promote_types(W.dtype, torch.float32)
    probs, values, W, before, after = (x.to(wide) for x in (probs, values, W, before, after))
    written = (probs @ values).flatten(1) @ W.flatten(0, 1)
    written = written if bias is None else written + bias
    error = (written - (after - before)).abs().max()
    rounding = 4 * found.eps**0.5 * written.abs().max() + 16 * found.eps * (before.abs() + after.abs()).max()
    if error > rounding:
        raise UnsupportedModelError(
            "An attention branch that is what its heads write through the output projection, and nothing more.",
            f"block {layer} of {found.transformer.family}, in which the stream gains something else",
            f"the model without hooks on the modules around the attention, a spec that fits, or {WITHOUT_HEADS}",
        )
