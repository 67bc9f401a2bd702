"""The model card of the demo Swin: what was run, on what, and how well it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captum_vit.demo.digits.scenes import digit_split
from captum_vit.demo.weights import versions

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from timm.models.swin_transformer import SwinTransformer

    from captum_vit.demo.evaluation import Accuracy, Effect

CARD = """\
# {name}

A timm Swin transformer that names the digits in digit scenes. `captum_vit.demo.demo_swin()` loads it. It exists to be
explained: its inputs come with masks of what is where. It is of no other use.

| on scenes of held-out scans ({n} scenes each) | accuracy |
|---|---|
| one digit: the largest logit names it | {single:.1%} |
| two digits: the two largest logits name both | {both:.1%} |

Measured on the stored float16 weights, by `captum_vit.demo.digits.evaluation.evaluate(model, n={n})`.

| what a digit's logit loses, over {n} held-out scenes of two digits | logit |
|---|--:|
| when the digit itself is left unwritten | {own:+.2f} |
| when the other digit is | {other:+.2f} |

The other digit moves the logit {other_share:.0%} as much as the digit itself does (mean absolute changes). So the
masks of digits are close to a ground truth for maps on this model.
Measured by `captum_vit.demo.digits.evaluation.effect(model, n={n})`; no method of explanation takes part.

**Made by**

    {command}

which starts the patches and the blocks of the first stage from `digits_vit`; relative positions, the second stage and
the classifier start at random. All of it is trained. `digits_vit` was chosen with a look at maps, as its card says.

**Model.** {depths} blocks of width {widths} with {heads} heads on grids of {grids} tokens; patches of {patch} pixels,
windows of {window} x {window}, every second block of the first stage shifted; the classifier reads the mean of the last
tokens; {parameters:,} parameters.

**Data.** The 1,797 UCI digit scans bundled with scikit-learn (8 x 8 pixels; E. Alpaydin, C. Kaynak),
{training_scans:,} for training and {held_out} held out, stratified by class
(`captum_vit.demo.digits.scenes.digit_split`). Training scenes hold one to three digits and are drawn anew at every
step: {seen:,} in all, after those that `digits_vit` saw.

**Loss.** Of each class, whether it is in the scene: binary cross-entropy against all digits present; and {distil} times
the mean squared distance from the logits of `digits_vit` (distillation). Nothing else is supervised: no masks, no
patches.

**Recipe.** AdamW, peak rate {lr} and weight decay {decay} for the matrices of the blocks, {lr_rest} for the rest;
{warmup} steps of warm-up, cosine to zero; batch {batch}, {steps:,} steps, seed {seed}; running average of the weights
({ema}).

**Versions.** {versions}

Licence: BSD-3-Clause, as the code. The scans: UCI, Optical Recognition of Handwritten Digits, CC BY 4.0.
"""


def _then(values: Iterable[object]) -> str:
    """The values of the stages, first to last."""
    return " then ".join(map(str, values))


def card(model: SwinTransformer, args: argparse.Namespace, accuracy: Accuracy, effect: Effect, command: str) -> str:
    """The text of the card of ``model``, which ``command`` made with these ``args``."""
    stages = [stage.blocks for stage in model.layers]
    return CARD.format(
        **vars(args) | effect._asdict() | accuracy._asdict(),
        name=args.out.stem,
        command=command,
        depths=_then(len(blocks) for blocks in stages),
        widths=_then(blocks[0].dim for blocks in stages),
        heads=_then(blocks[0].attn.num_heads for blocks in stages),
        grids=_then("{} x {}".format(*blocks[0].input_resolution) for blocks in stages),
        patch=model.patch_embed.patch_size[0],
        window=stages[0][0].window_size[0],
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        training_scans=len(digit_split()["train"]),
        held_out=len(digit_split()["test"]),
        seen=args.batch * args.steps,
        versions=versions("torch", "timm", "scikit-learn"),
    )
