"""The model card of the demo vision-language model: what was run, on what, and how well it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captum_vit.demo.digits.scenes import digit_split
from captum_vit.demo.scene_questions.start import KEPT
from captum_vit.demo.weights import versions

if TYPE_CHECKING:
    import argparse

    from transformers import LlavaForConditionalGeneration

    from captum_vit.demo.evaluation import Effect
    from captum_vit.demo.scene_questions.evaluation import Answers, Follows

CARD = """\
# The demo vision-language model

A transformers LLaVA that answers questions about digit scenes. `captum_vit.demo.demo_vlm()` loads it, and
`demo_vlm_processor()` its processor. It exists to be explained: the pixels that decide each answer are known. It is of
no other use.

    <image> What digit is low? -> two

| the likeliest next word is the answer, over {n} scenes of held-out handwriting | share |
|---|--:|
| to "What digit is low?" | {low:.1%} |
| to "What digit is high?", of the same scenes | {high:.1%} |

| the same where one digit of a scene is replaced, a low one by a low one and a high one by a high one | share |
|---|--:|
| the digit that is asked for: the answer is the new one | {digit:.1%} |
| the other digit: the answer stays | {other_digit:.1%} |

| what the logit of the answer loses | logit |
|---|--:|
| when the digit that is asked for is left unwritten | {own:+.2f} |
| when the other digit is | {other:+.2f} |

The other digit moves the logit {other_share:.0%} as much as the one that is asked for (mean absolute changes).
Measured on the stored float16 weights, by `evaluate`, `follows` and `moved` of
`captum_vit.demo.scene_questions.evaluation`; no method of explanation takes part.

**Made by**

    {command}

which starts the vision tower from the demo classifier (`digits_vit`, trained to name all digits of a scene; its card
describes its own two phases) and the projector and the language model from random weights. The first {kept} layers of
the tower stay as they are.

**Model.** Vision: {blocks} layers of width {width} with {heads} heads, patches of {patch} pixels; the last layer's
patches, without the CLS token, before the last norm, are read by a projector of two layers. Text: a Llama of
{text_blocks} layers of width {text_width}, {words} words and signs. {parameters:,} parameters.

**Data.** Scenes of the 1,797 UCI digit scans bundled with scikit-learn (8 x 8 pixels; E. Alpaydin, C. Kaynak),
{training_scans:,} for training and {held_out} held out (`captum_vit.demo.digits.scenes.digit_split`). Each holds a low
digit, zero to four, and a high one, five to nine, drawn independently. Training scenes are drawn anew at every step:
{seen:,} in all, after those that the classifier saw. Questions and scenes were fixed before the first training.

**Loss.** Of the next token, at the answer and the full stop behind it, of both questions about each scene. Nothing else
is supervised: no masks, no patches. No map had a part in it. But the classifier that it starts from was chosen with a
look at maps, as its card says.

**Recipe.** AdamW for the matrices of the language model's layers (peak rate {lr}, weight decay {decay}) and for
the rest ({lr_rest}), {warmup} steps of warm-up, cosine to zero; batch {batch}, {steps:,} steps, seed {seed}; running
average of the weights ({ema}).

**Tried before.** In a trial, questions for the left or the right digit; they were not learnt in as many steps. Then a
model like this one, for which five of the 25 pairs of digits were held out. It answered 96.3 % of the questions about
other pairs and 83.7 % about those five, and there the other digit moved the logit 33 % as much as the one that is asked
for: where a pair never occurs, each of its digits is evidence against the other. So all pairs occur now. No map is
needed to see this, but maps of that model had been looked at too.

**Versions.** {versions}

Licence: BSD-3-Clause, as the code. The scans: UCI, Optical Recognition of Handwritten Digits, CC BY 4.0.
"""


def card(
    model: LlavaForConditionalGeneration,
    args: argparse.Namespace,
    found: Answers,
    follows: Follows,
    effect: Effect,
    command: str,
) -> str:
    """The text of the card of ``model``, which ``command`` made with these ``args``."""
    vision, text = model.config.vision_config, model.config.text_config
    return CARD.format(
        **vars(args) | effect._asdict() | found._asdict(),
        digit=follows.digit,
        other_digit=follows.other,
        command=command,
        kept=KEPT,
        blocks=vision.num_hidden_layers,
        width=vision.hidden_size,
        heads=vision.num_attention_heads,
        patch=vision.patch_size,
        text_blocks=text.num_hidden_layers,
        text_width=text.hidden_size,
        words=text.vocab_size,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        training_scans=len(digit_split()["train"]),
        held_out=len(digit_split()["test"]),
        seen=args.batch * args.steps,
        versions=versions("torch", "transformers", "tokenizers", "scikit-learn"),
    )
