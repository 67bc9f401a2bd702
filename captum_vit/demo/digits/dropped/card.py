"""The model card of the demo classifier trained with patches missing: what was run, on what, and how well it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captum_vit.demo.digits.scenes import digit_split
from captum_vit.demo.weights import versions

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from timm.models.vision_transformer import VisionTransformer

    from captum_vit.demo.digits.dropped.evaluation import Thinned
    from captum_vit.demo.evaluation import Effect

CARD = """\
# {name}

`digits_vit` trained on with patches missing, so that an input without some of its patches is nothing new to it.
`captum_vit.demo.demo_vit(dropped_tokens=True)` loads it. It exists to be explained, by tests that take patches away:
`IDSDS`, `FFidelity`. It is of no other use.

| patches taken out of the sequence | one digit | two digits | `digits_vit`: one | two |
|---|--:|--:|--:|--:|
{rows}

How often the largest logit names the one digit, and the two largest both, of {n} held-out scenes each; patches are
drawn at random for each scene. Measured on the stored float16 weights, by
`captum_vit.demo.digits.dropped.evaluation.evaluate_thinned(model, n={n})`.

| what a digit's logit loses, over {n} held-out scenes of two digits | logit |
|---|--:|
| when the digit itself is left unwritten | {own:+.2f} |
| when the other digit is | {other:+.2f} |

The other digit moves the logit {other_share:.0%} as much as the digit itself does (mean absolute changes).
Measured by `captum_vit.demo.digits.evaluation.effect(model, n={n})`; no method of explanation takes part.

**Made by**

    {command}

which goes on from `digits_vit`. `digits_vit` was chosen with a look at maps, as its card says.

**Model.** {blocks} blocks of width {width} with {heads} heads, patches of {patch} pixels, CLS token; {parameters:,}
parameters, all of them trained.

**Data.** The 1,797 UCI digit scans bundled with scikit-learn (8 x 8 pixels; E. Alpaydin, C. Kaynak),
{training_scans:,} for training and {held_out} held out, stratified by class
(`captum_vit.demo.digits.scenes.digit_split`). Training scenes hold one to three digits and are drawn anew at every
step: {seen:,} in all. Of each batch a share of the patches, uniform between 0 and {most}, is missing, drawn for each
scene.

**Loss.** Of each class, whether it is in the scene: binary cross-entropy against all digits present. Nothing else is
supervised: no masks, no patches.

**Recipe.** AdamW, peak rate {lr} and weight decay {decay} for the matrices of the blocks, {lr_rest} for the rest;
{warmup} steps of warm-up, cosine to zero; batch {batch}, {steps:,} steps, seed {seed}; running average of the weights
({ema}).

**Versions.** {versions}

Licence: BSD-3-Clause, as the code. The scans: UCI, Optical Recognition of Handwritten Digits, CC BY 4.0.
"""


def card(
    model: VisionTransformer,
    args: argparse.Namespace,
    thinned: Sequence[Thinned],
    plain: Sequence[Thinned],
    effect: Effect,
    command: str,
) -> str:
    """The text of the card of ``model``, which ``command`` made with these ``args``."""
    rows = (
        f"| {gone:.0%} | {own.single:.1%} | {own.both:.1%} | {other.single:.1%} | {other.both:.1%} |"
        for (gone, own), (_, other) in zip(thinned, plain, strict=True)
    )
    return CARD.format(
        **vars(args) | effect._asdict(),
        name=args.out.stem,
        command=command,
        rows="\n".join(rows),
        blocks=len(model.blocks),
        width=model.embed_dim,
        heads=model.blocks[0].attn.num_heads,
        patch=model.patch_embed.patch_size[0],
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        training_scans=len(digit_split()["train"]),
        held_out=len(digit_split()["test"]),
        seen=args.batch * args.steps,
        versions=versions("torch", "timm", "scikit-learn"),
    )
