"""The model card of the demo classifier: what was run, on what, and how well it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captum_vit.demo.digits.scenes import digit_split
from captum_vit.demo.weights import versions

if TYPE_CHECKING:
    import argparse

    from timm.models.vision_transformer import VisionTransformer

    from captum_vit.demo.evaluation import Accuracy, Effect

CARD = """\
# {name}

A timm vision transformer that names the digits in digit scenes. `captum_vit.demo.demo_vit({loading})`
loads it. It exists to be explained: its inputs come with masks of what is where. It is of no other use.

| on scenes of held-out scans ({n} scenes each) | accuracy |
|---|---|
| one digit: the largest logit names it | {single:.1%} |
| two digits: the two largest logits name both | {both:.1%} |

Measured on the stored float16 weights, by `captum_vit.demo.digits.evaluation.evaluate(model, n={n})`.

| what a digit's logit loses, over {n} held-out scenes of two digits | logit |
|---|--:|
| when the digit itself is left unwritten | {own:+.2f} |
| when the other digit is | {other:+.2f} |

The other digit moves the logit {other_share:.0%} as much as the digit itself does (mean absolute changes). {meaning}
Measured by `captum_vit.demo.digits.evaluation.effect(model, n={n})`; no method of explanation takes part.

**Made by**

    {command}
{earlier}
**Model.** {blocks} blocks of width {width} with {heads} heads, patches of {patch} pixels, {reads};
{parameters:,} parameters.

**Data.** The 1,797 UCI digit scans bundled with scikit-learn (8 x 8 pixels; E. Alpaydin, C. Kaynak),
{training_scans:,} for training and {held_out} held out, stratified by class
(`captum_vit.demo.digits.scenes.digit_split`). Training scenes hold one to three digits and are drawn anew at every
step: {seen:,} in all.

**Loss.** {loss_text} Nothing else is supervised: no masks, no patches.

**Recipe.** {inside} for the matrices of the blocks (peak rate {lr}, weight decay {decay}), AdamW for the rest
({lr_rest}), a short warm-up, cosine to zero; batch {batch}, {steps:,} steps, seed {seed}; two-digit scenes
join after {grow} steps, three-digit ones after as many again; running average of the weights ({ema}).

**Versions.** {versions}

Licence: BSD-3-Clause, as the code. The scans: UCI, Optical Recognition of Handwritten Digits, CC BY 4.0.
"""


LOSS = {
    "label": """A scene's label is one of its digits at random. Cross-entropy is taken in expectation over that draw,
that is against the uniform distribution over the digits present.""",
    "digits": """Of each class, whether it is in the scene: binary cross-entropy against all digits present. The first
phase asked for one label, a digit of the scene at random (softmax cross-entropy, in expectation over that draw).
The maps led to this second phase: after the first they often lay on the neighbour. What justifies it is the table
above, beside that of `label_vit`. Still, pointing scores on this model are no forecast for models not chosen so.""",
}

LOSS_OF_PATCHES = "Of each class, whether it is in the scene: binary cross-entropy against all digits present."

READS = {
    "cls": "CLS token",
    "mean": "CLS token; the\nclassifier reads the normalised mean of the patches",
    "attention": "CLS token; the\nclassifier reads what one learned query attends to among the normalised patches",
}

MEANING = {
    "label": "So a map for a digit that lies on its neighbour may be right: masks of digits are no ground truth here.",
    "digits": "So the masks of digits are close to a ground truth for maps on this model.",
}

EARLIER = {
    "cls": """
which goes on from the weights of a first phase, with the defaults of the script:

    python -m captum_vit.demo.digits.train --out {start}
""",
    "mean": """
which goes on from the weights of `{start}`, whose classifier reads the CLS token. Its norm is where
the one behind the mean begins.
""",
    "attention": """
which goes on from the weights of `{start}`, whose classifier reads the CLS token. The attention
pooling begins at random.
""",
}


def card(model: VisionTransformer, args: argparse.Namespace, accuracy: Accuracy, effect: Effect, command: str) -> str:
    """The text of the card of ``model``, which ``command`` made with these ``args``."""
    facts = vars(args) | effect._asdict() | accuracy._asdict()
    return CARD.format(
        **facts,
        name=args.out.stem,
        command=command,
        loading=f'objective="{args.loss}"' + (f', pooling="{args.pooling}"' if args.pooling != "cls" else ""),
        loss_text=LOSS[args.loss] if args.pooling == "cls" else LOSS_OF_PATCHES,
        reads=READS[args.pooling],
        inside="Muon" if args.muon else "AdamW",
        meaning=MEANING[args.loss],
        earlier=EARLIER[args.pooling].format(start=args.start.name) if args.start is not None else "",
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
