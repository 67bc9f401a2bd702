"""The model card of the demo image-text model: what was run, on what, and how well it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captum_vit.demo.captions.sentences import TEMPLATES
from captum_vit.demo.digits.scenes import digit_split
from captum_vit.demo.weights import versions

if TYPE_CHECKING:
    import argparse

    from transformers import CLIPModel

    from captum_vit.demo.captions.evaluation import Retrieval
    from captum_vit.demo.evaluation import Effect

CARD = """\
# The demo CLIP

A transformers CLIP for digit scenes and captions of them. `captum_vit.demo.demo_clip()` loads it, and
`demo_clip_tokenizer()` its tokenizer. It exists to be explained: its images come with masks of what is where. It is of
no other use.

| on scenes of held-out scans ({n} scenes each) | accuracy |
|---|---|
| one digit: of ten texts ("an eight") the most similar names it | {single:.1%} |
| two digits: of the same ten the two most similar name both | {both:.1%} |
| two digits: of 45 captions ("a three and an eight") the most similar is true | {pair:.1%} |

Each text is averaged over the templates below. Measured on the stored float16 weights, by
`captum_vit.demo.captions.evaluation.retrieval(model, n={n})`.

| what the similarity with "an eight" loses, over {n} held-out scenes of two digits, one of them an eight | cosine |
|---|--:|
| when the eight is left unwritten | {own:+.3f} |
| when the other digit is | {other:+.3f} |

(and so for each of the ten). The other digit moves the similarity {other_share:.0%} as much as the digit itself does
(mean absolute changes), so the masks of digits are close to a ground truth for maps on this model.
Measured by `captum_vit.demo.captions.evaluation.effect(model, n={n})`; no method of explanation takes part.

**Made by**

    {command}

which starts the vision tower from the demo classifier (`digits_vit`, trained to name all digits of a scene; its
card tells of its own two phases), and the text tower and the projections from random weights. CLIP has a norm before
its blocks, which the classifier lacks; everything else maps one to one. Both towers are trained.

**Model.** Vision: {blocks} blocks of width {width} with {heads} heads, patches of {patch} pixels, CLS token. Text:
{text_blocks} causal blocks of width {text_width}, {words} words and signs. GELU in both; {space} shared dimensions;
{parameters:,} parameters.

**Data.** The 1,797 UCI digit scans bundled with scikit-learn (8 x 8 pixels; E. Alpaydin, C. Kaynak),
{training_scans:,} for training and {held_out} held out, stratified by class
(`captum_vit.demo.digits.scenes.digit_split`). Training scenes hold one to three digits and are drawn anew at every
step: {seen:,} in all, after those that the classifier saw. The caption of a scene names one, several or all of its
digits, in any order, a quarter of the time without articles, in one of {n_templates} templates:
{templates}.
A word that no caption has (`<unk>`) keeps the weights that it began with.

**Loss.** Of each scene and each caption of a batch, whether the caption is true of the scene: the sigmoid loss of
SigLIP, in which a caption is true wherever the scene shows all the digits that it names, whichever scene it was drawn
for. Its threshold is not a part of CLIP and is left behind. Nothing else is supervised: no masks, no patches.
The recipe is that of the classifier's second phase. Retrieval and the effect above were watched on training scans;
no map had a part in it. But the classifier that it starts from was chosen with a look at maps, as its card says.

**Recipe.** Muon for the matrices of the blocks (peak rate {lr}, weight decay {decay}), AdamW for the rest
({lr_rest}), a short warm-up, cosine to zero; batch {batch}, {steps:,} steps, seed {seed}; running average of the
weights ({ema}).

**Versions.** {versions}

Licence: BSD-3-Clause, as the code. The scans: UCI, Optical Recognition of Handwritten Digits, CC BY 4.0.
"""


def card(model: CLIPModel, args: argparse.Namespace, found: Retrieval, effect: Effect, command: str) -> str:
    """The text of the card of ``model``, which ``command`` made with these ``args``."""
    vision, text = model.config.vision_config, model.config.text_config
    return CARD.format(
        **vars(args) | effect._asdict() | found._asdict(),
        command=command,
        blocks=vision.num_hidden_layers,
        width=vision.hidden_size,
        heads=vision.num_attention_heads,
        patch=vision.patch_size,
        text_blocks=text.num_hidden_layers,
        text_width=text.hidden_size,
        words=text.vocab_size,
        space=model.config.projection_dim,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        training_scans=len(digit_split()["train"]),
        held_out=len(digit_split()["test"]),
        seen=args.batch * args.steps,
        n_templates=len(TEMPLATES),
        templates=", ".join(f'"{template}"' for template in TEMPLATES),
        versions=versions("torch", "transformers", "tokenizers", "scikit-learn"),
    )
