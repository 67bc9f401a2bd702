"""The model card of the demo classifier of reviews: what was run, on what, and how well it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captum_vit.demo.reviews.frames import FELT, PLAIN, SAID
from captum_vit.demo.reviews.reviews import opinions
from captum_vit.demo.weights import versions

if TYPE_CHECKING:
    import argparse

    from transformers import BertForSequenceClassification

    from captum_vit.demo.reviews.evaluation import Accuracy, Effect

CARD = """\
# A BERT that reads reviews

A transformers `BertForSequenceClassification` that tells positive from negative reviews of films, meals and hotels.
`captum_vit.demo.demo_bert()` loads it, and so does `AutoModelForSequenceClassification.from_pretrained` from this
folder. It exists to be explained: of its inputs it is known which words decide. It is of no other use.

| on reviews of held-out sentences ({n} reviews each) | accuracy |
|---|---|
| opinions as they are: "charming", "a failure", "enjoyed" | {plain:.1%} |
| opinions behind a negator: "not charming", "hardly a failure", "did not enjoy" | {negated:.1%} |

Measured on the stored float16 weights, by `captum_vit.demo.reviews.evaluation.evaluate(model, n={n})`.

| what the logit of a review's label loses, over {n} held-out reviews | logit |
|---|--:|
| when plain words take the place of the rationale | {rationale:+.2f} |
| when all else is told otherwise | {rest:+.2f} |
| when negators alone are left out of negated opinions | {negator:+.2f} |

All other words together, {words_rest:.0f} in a review, move the logit {rest_share:.0%} as much as the rationale's
{words_rationale:.1f} words do (mean absolute changes). The rationale moves it more in {least:.1%} of the reviews. So
the rationale is close to a ground truth for maps on this model.
Measured by `captum_vit.demo.reviews.evaluation.effect(model, n={n})`; no method of explanation takes part.

**Made by**

    {command}

**Model.** {blocks} layers of width {width} with {heads} heads, {vocabulary} word pieces; {parameters:,} parameters.

**Data.** Reviews written by `captum_vit.demo.reviews.generated_reviews` from word lists and sentences with slots, in
this folder's parent. Training reviews are made of {train_frames} sentences and test reviews of {test_frames} others;
of the negated opinions {train_pairs} are met in training, and {test_pairs} in the test alone. Words are shared.
Training reviews are drawn anew at every step: {seen:,} in all. The test sentences had no part in training, but they had
one in a choice: a first model took negators in their plain sentences for negators of the opinion beside them (49%
right), and so training was given more plain sentences with negators. No method of explanation had a part in any choice.

**Loss.** Cross-entropy with the label of the whole review. {silent:.0%} of the reviews hold no opinion, and both labels
are to be equally probable for them: so either label needs evidence, and neither is what is left where there is none for
the other. Nothing else is supervised: no words.

**Recipe.** Muon for the matrices of the layers (peak rate {lr}, weight decay {decay}), AdamW for the rest
({lr_rest}), a short warm-up, cosine to zero; batch {batch}, {steps:,} steps, seed {seed}; for the first {grow} steps
every review holds an opinion and none is negated; no dropout; running average of the weights ({ema}).

**Versions.** {versions}

Licence: BSD-3-Clause, as the code.
"""


def card(
    model: BertForSequenceClassification, args: argparse.Namespace, accuracy: Accuracy, effect: Effect, command: str
) -> str:
    """The text of the card of ``model``, which ``command`` made with these ``args``."""
    facts = vars(args) | effect._asdict() | accuracy._asdict()
    return CARD.format(
        **facts,
        command=command,
        blocks=model.config.num_hidden_layers,
        width=model.config.hidden_size,
        heads=model.config.num_attention_heads,
        vocabulary=model.config.vocab_size,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        train_frames=len(frames("train")),
        test_frames=len(frames("test")),
        train_pairs=_pairs("train"),
        test_pairs=_pairs("test"),
        seen=args.batch * args.steps,
        versions=versions("torch", "transformers", "tokenizers"),
    )


def frames(split: str) -> list[str]:
    """Every sentence with slots that reviews of the split are made of."""
    return [*SAID[split], *FELT[split], *(frame for of_topic in PLAIN[split].values() for frame in of_topic)]


def _pairs(split: str) -> int:
    return sum(len(opinions(split, label, True, felt)) for label in (0, 1) for felt in (False, True))
