"""The model card of the demo sound model: what was run, on what, and how well it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captum_vit.demo.sounds.clips import pitches
from captum_vit.demo.sounds.model import BANDS, FRAMES, KINDS
from captum_vit.demo.weights import versions

if TYPE_CHECKING:
    import argparse

    from transformers import ASTForAudioClassification

    from captum_vit.demo.evaluation import Accuracy, Effect

CARD = """\
# The demo AST

A transformers Audio Spectrogram Transformer that names the tones in clips of noise. `captum_vit.demo.demo_ast()` loads
it, and `demo_ast_extractor()` its feature extractor. It exists to be explained: its inputs come with masks of what
sounds when and how high. It is of no other use.

| on clips of held-out pitches ({n} clips each) | accuracy |
|---|---|
| one tone: the largest logit names its kind | {single:.1%} |
| two tones: the two largest logits name both | {both:.1%} |

Measured on the stored float16 weights, by `captum_vit.demo.sounds.evaluation.evaluate(model, n={n})`.

| what a tone's logit loses, over {n} held-out clips of two tones | logit |
|---|--:|
| when the tone itself is left out | {own:+.2f} |
| when the other tone is | {other:+.2f} |

The other tone moves the logit {other_share:.0%} as much as the tone itself does (mean absolute changes).
Measured by `captum_vit.demo.sounds.evaluation.effect(model, n={n})`; no method of explanation takes part.

**Made by**

    {command}

{earlier}

**Model.** {blocks} blocks of width {width} with {heads} heads; {parameters:,} parameters. Patches of {patch} frames x
{patch} bands that do not overlap, of log-mel spectrograms of {frames} frames x {bands} bands; two prefix tokens, whose
mean the classifier reads.

**Data.** Generated: {clips:,} training clips of one to three tones (`captum_vit.demo.tone_clips`), moved
at random by up to {shift} frames and bands. Tones are of six
kinds ({kinds}), each in a quarter of the clip of its own, in noise
with clicks. The middle of a tone is near a semitone, one of {training} for training and of {held_out} held out, and
nearer to it than to any other. When and how high a tone sounds is no part of the target. Kinds, pitches and noise were
fixed before the first training.

**Loss.** Of each kind, whether it is in the clip: binary cross-entropy against all tones present. Nothing else is
supervised: no masks, no patches. No map had a part in it.

**Recipe.** AdamW, peak rate {lr} and weight decay {decay} for the matrices of the blocks, {lr_rest} for the rest;
{warmup} steps of warm-up, cosine to zero; batch {batch}, {steps:,} steps, seed {seed}; running average of the weights
({ema}).

**Versions.** {versions}

Licence: BSD-3-Clause, as the code.
"""

FIRST = "from random weights."
SECOND = """which goes on from the weights of a first phase, with the defaults of the script:

    python -m captum_vit.demo.sounds.train --out {start}

After the first phase, in which no spectrogram was moved, the model named tones of training pitches much more often than
those of pitches between them: on 150 clips each with a seed of their own, 70 % of single tones of held-out pitches, and
both of two in 59 %. Hence the second. Moved by some bands, a training tone may have a held-out pitch. So no pitch is
new to these weights; the clips are. The 4,096 clips of the first phase are not counted below."""


def card(model: ASTForAudioClassification, args: argparse.Namespace, found: Accuracy, effect: Effect, by: str) -> str:
    """The text of the card of ``model``, which the command ``by`` made with these ``args``."""
    config = model.config
    return CARD.format(
        **vars(args) | effect._asdict() | found._asdict(),
        command=by,
        earlier=FIRST if args.start is None else SECOND.format(start=args.start.name),
        blocks=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        patch=config.patch_size,
        frames=FRAMES,
        bands=BANDS,
        kinds=", ".join(KINDS),
        training=sum(map(len, pitches("train"))),
        held_out=sum(map(len, pitches("test"))),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        versions=versions("torch", "transformers"),
    )
