"""What the head computes from the tokens that leave each block, as if they left the last one."""

from __future__ import annotations

from typing import Any

import torch
from captum._utils.typing import TargetType
from torch import Tensor

from captum_vit.errors import UnsupportedModelError
from captum_vit.models.output import scores_of
from captum_vit.models.per_sample import is_of_each_sample
from captum_vit.tokens import TokenLayout
from captum_vit.trace.replay.gradient import gradient_of
from captum_vit.trace.replay.projections import alike
from captum_vit.trace.replay.replay import repeat_samples
from captum_vit.trace.replay.subnetwork import entering
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.score import repeat_target, select
from captum_vit.trace.run.watch import model_errors_as_ours

READOUTS = ("head", "mean")
AT_ONCE = 2**22  # outputs: a language model has one for each word of its vocabulary at every place


def read_by_head(
    call: Pass,
    out: list[Tensor],  # shape of each: (B, N, D), what leaves each block, the last one at the end
    output: Tensor,  # shape: (B, K), as the model returned it
    layout: TokenLayout,
    target: TargetType,
    readout: str,
) -> Tensor:  # shape: (B,)
    r"""A score whose gradient at each block's tokens is that of the block's own readout, :math:`s_l = f_c(x^{l + 1})`.

    The head is the model's own code behind the blocks. It is given the tokens as they are (``"head"``), or their mean
    over all but padding in the place of each (``"mean"``).

    Raises:
        UnsupportedModelError: what leaves the last block, given to the head again, has another output.
    """
    select(output, target)  # refuses a wrong one
    model, transformer = call.model, call.transformer
    batch, portion = len(output), max(1, AT_ONCE // output.numel())
    slopes: list[Tensor] = []
    for some in [out[i : i + portion] for i in range(0, len(out), portion)]:
        times = len(some)
        tokens = torch.cat([x.detach() for x in some]).requires_grad_()

        def repeated(x: Any, times: int = times) -> Any:
            return repeat_samples(x, 1, times) if is_of_each_sample(x, batch) else x

        given = [repeated(x) for x in (*call.inputs, *call.args)]
        with torch.enable_grad():
            # a model may write over what it is given
            read = tokens.clone() if readout == "head" else _means(tokens, layout, times)
            with model_errors_as_ours(model, *given), entering(transformer, len(transformer.blocks), read):
                scores = scores_of(model(*given))
            score = select(scores, repeat_target(target, 1, times))
        slopes += gradient_of(score, tokens).chunk(times)
    again, once = (x.detach().nan_to_num(posinf=0.0, neginf=0.0) for x in (scores[-batch:], output))
    if readout == "head" and not alike(again, once):
        raise UnsupportedModelError(
            "A head that reads what leaves the last block alone, so that it can read that of each other block.",
            f"{type(model).__name__}, whose output is another one when it is given these tokens again",
            "AttnGrad or GenAtt, which need no readout of each block.",
        )
    with torch.enable_grad():
        products = [(x * slope).flatten(1).sum(1) for x, slope in zip(out, slopes, strict=True)]
        return torch.stack(products).sum(0)


def _means(tokens: Tensor, layout: TokenLayout, times: int) -> Tensor:  # (times * B, N, D) -> the same
    by_block = tokens.unflatten(0, (times, -1))
    mean = torch.stack([layout.mean_row(x) @ x for x in by_block])
    return mean.expand_as(by_block).flatten(0, 1).contiguous()
