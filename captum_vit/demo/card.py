"""The model card of the demo classifier: what was run, on what, and how well it does."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from captum_vit.demo.scenes import digit_split

if TYPE_CHECKING:
    import argparse

    from timm.models.vision_transformer import VisionTransformer

    from captum_vit.demo.train import Accuracy

CARD = """\
# digit_vit

A timm vision transformer that names the digits in digit scenes; `captum_vit.demo.demo_vit()` loads it.
It exists to be explained: its inputs come with masks of what is where. It is of no other use.

| on scenes of held-out scans ({n} scenes each) | accuracy |
|---|---|
| one digit: the largest logit names it | {single:.1%} |
| two digits: the two largest logits name both | {both:.1%} |

Measured on the stored float16 weights, by `captum_vit.demo.train.evaluate(demo_vit(), n={n})`.

**Made by**

    {command}
{earlier}
**Model.** {blocks} blocks of width {width} with {heads} heads, patches of {patch} pixels, CLS token;
{parameters:,} parameters.

**Data.** The 1,797 UCI digit scans bundled with scikit-learn (8 x 8 pixels; E. Alpaydin, C. Kaynak),
{training_scans:,} for training and {held_out} held out, stratified by class
(`captum_vit.demo.scenes.digit_split`). Training scenes hold one to three digits and are drawn anew at every
step: {seen:,} in all.

**Loss.** {asked} Nothing else is supervised: no masks, no patches.

**Recipe.** Muon for the matrices of the blocks (peak rate {lr}, weight decay {decay}), AdamW for the rest
({lr_rest}), a short warm-up, cosine to zero; batch {batch}, {steps:,} steps, seed {seed}; two-digit scenes
join after {grow} steps, three-digit ones after as many again; running average of the weights ({ema}).

**Versions.** {versions}

Licence: BSD-3-Clause, as the code. The scans: UCI, Optical Recognition of Handwritten Digits, CC BY 4.0.
"""


ASKED = {
    "label": """A scene's label is one of its digits at random. Cross-entropy is taken in expectation over that draw,
that is against the uniform distribution over the digits present.""",
    "digits": """Of each class, whether it is in the scene: binary cross-entropy against all digits present. The first
phase asked for one label, a digit of the scene at random (softmax cross-entropy, in expectation over that draw).
This second phase was kept, among the losses tried, because maps then point at the right digit; so pointing
scores on this model favour the methods, and only their order on it can be compared.""",
}

EARLIER = """
which goes on from the weights of a first phase, with the defaults of the script:

    python -m captum_vit.demo.train --out {start}
"""


def card(model: VisionTransformer, args: argparse.Namespace, accuracy: Accuracy, command: str) -> str:
    """The text of the card of ``model``, which ``command`` made with these ``args``."""
    facts = vars(args) | accuracy._asdict()
    return CARD.format(
        **facts,
        command=command,
        asked=ASKED[args.loss],
        earlier=EARLIER.format(start=args.start.name) if args.start is not None else "",
        blocks=len(model.blocks),
        width=model.embed_dim,
        heads=model.blocks[0].attn.num_heads,
        patch=model.patch_embed.patch_size[0],
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        training_scans=len(digit_split()["train"]),
        held_out=len(digit_split()["test"]),
        seen=args.batch * args.steps,
        versions=_versions(),
    )


def _versions() -> str:
    import sklearn
    import timm
    import torch

    known = {"torch": torch, "timm": timm, "scikit-learn": sklearn}
    parts = [f"{name} {module.__version__}" for name, module in known.items()]
    return ", ".join([f"Python {platform.python_version()}", *parts])
