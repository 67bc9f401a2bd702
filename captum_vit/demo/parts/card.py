"""The model card of the demo model of parts: what was run, on what, and how well it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captum_vit.demo.weights import versions

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from timm.models.vision_transformer import VisionTransformer

    from captum_vit.demo.parts.evaluation import Losses, Named

CARD = """\
# The demo model of parts

A timm vision transformer that names the class of a figure made of five parts. `captum_vit.demo.demo_parts()` loads it.
It exists to be explained: what each part counts for is known, since a scene can be drawn without it. It is of no other
use.

| parts left, drawn for each scene | accuracy | the best that is possible |
|--:|--:|--:|
{rows}

Over {n} held-out scenes, measured on the stored float16 weights by
`captum_vit.demo.parts.evaluation.evaluate(model, n={n})`. It was decided before the training that whole scenes have to
be named in 98 % at least, and before any map was made of this model. The best that is possible: where two classes have
the parts that are left, one of them is right.

| what the logit of the class loses, over {n} held-out scenes | logit |
|---|--:|
| without one of the parts | {part:+.2f} |
| without one of the objects beside the figure | {object:+.2f} |

Measured by `captum_vit.demo.parts.evaluation.losses_of(model, n={n})`; no method of explanation takes part.

**Made by**

    {command}

**Model.** {blocks} blocks of width {width} with {heads} heads, patches of {patch} pixels, CLS token; {parameters:,}
parameters.

**Data.** Drawn scenes (`captum_vit.demo.parts.scenes.part_scenes`): ten classes, each a conjunction of five parts of
four kinds; place, colours and ground vary, and three objects stand beside the figure. Training and held-out scenes have
different seeds. They are drawn anew at every step: {seen:,} in all. {thinned:.0%} of them lack parts, each part with a
chance that is uniform from scene to scene; each object is left out with a chance of {fewer}.

**Loss.** Cross-entropy of the class. Nothing else is supervised: no masks, no parts.

**Recipe.** AdamW, peak rate {lr} and weight decay {decay} for the matrices of the blocks, {lr_rest} for the rest;
{warmup} steps of warm-up, cosine to zero; batch {batch}, {steps:,} steps, seed {seed}; running average of the weights
({ema}).

**Versions.** {versions}

Licence: BSD-3-Clause, as the code.
"""


def card(
    model: VisionTransformer, args: argparse.Namespace, named: Sequence[Named], losses: Losses, command: str
) -> str:
    """The text of the card of ``model``, which ``command`` made with these ``args``."""
    return CARD.format(
        **vars(args) | losses._asdict(),
        command=command,
        rows="\n".join(f"| {left} | {accuracy:.1%} | {best:.1%} |" for left, accuracy, best, _ in named),
        blocks=len(model.blocks),
        width=model.embed_dim,
        heads=model.blocks[0].attn.num_heads,
        patch=model.patch_embed.patch_size[0],
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        seen=args.batch * args.steps,
        versions=versions("torch", "timm"),
    )
