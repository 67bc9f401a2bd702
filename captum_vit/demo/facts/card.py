"""The model card of the demo language model: what was run, on what, and how well it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captum_vit.demo.facts.words import HELD_OUT, KINDS, MEANING
from captum_vit.demo.weights import versions

if TYPE_CHECKING:
    import argparse

    from transformers import LlamaForCausalLM

    from captum_vit.demo.evaluation import Effect
    from captum_vit.demo.facts.evaluation import Answers, Follows

CARD = """\
# The demo language model

A transformers Llama that answers questions about facts. `captum_vit.demo.demo_lm()` loads it, and
`demo_lm_tokenizer()` its tokenizer. It exists to be explained: the words that decide each answer are known. It is of
no other use.

    It is tart. It is huge. It is irate. It is ruby. Its taste is -> sour

| the likeliest next word is the answer, over {n} held-out prompts each | share |
|---|--:|
| of the only question | {first:.1%} |
| of the last of four questions | {last:.1%} |

| the same where a part of the prompt is written anew, {n} held-out prompts | share |
|---|--:|
| a word of another value in the fact that is asked for: the answer is that value | {evidence:.1%} |
| another word of the same value in its place: the answer stays | {synonym:.1%} |
| words of other values in the three other facts: the answer stays | {rest:.1%} |
| the question for another kind: the answer is the value of that | {question:.1%} |

| what the logit of the answer loses | logit |
|---|--:|
| when the fact that is asked for has a word of another value | {own:+.2f} |
| when the three other facts have | {other:+.2f} |

The three other facts together move the logit {other_share:.0%} as much as the one that is asked for (mean absolute
changes). So two words decide, that of the fact and the kind in the question, and they are close to a ground truth for
maps on this model. Measured on the stored float16 weights, by
`evaluate`, `follows` and `moved` of `captum_vit.demo.facts.evaluation`; no method of explanation takes part.

**Made by**

    {command}

from random weights.

**Model.** {blocks} layers of width {width} with {heads} heads for queries and {groups} for keys and values, rotary
positions, RMS norms, gated SiLU; {words} words and signs; {parameters:,} parameters.

**Data.** Generated: {seen:,} training texts (`captum_vit.demo.stated_facts`) of two to four facts in any order, each
of another kind ({kinds}), and as many questions with their answers. A kind has four values, and
three words state each: {n_words} words. The value itself is never stated. Of the pairs of words of two kinds one in
{held_out} is held out: none is in a training text, and in each test text the word of the fact that is asked for and
another word are such a pair. Kinds, words, sentences and the split were fixed before the first training.

**Loss.** Of the next token, at the answers and the full stops behind them. Nothing else is supervised: no word is
marked as one that decides. No map had a part in it.

**Recipe.** Muon for the matrices of the layers (peak rate {lr}, weight decay {decay}), AdamW for the rest
({lr_rest}), {warmup} steps of warm-up, cosine to zero; batch {batch}, {steps:,} steps, seed {seed}; running average
of the weights ({ema}).

**Tried before.** In a trial, key-value pairs as facts, which were not learnt in as many steps, and facts as bare words
with animals in the place of moods. A first run on these sentences was planned for 900 steps and broken off at 467,
since from step 150 on all answers on the training split were right.

**Versions.** {versions}

Licence: BSD-3-Clause, as the code.
"""


def card(
    model: LlamaForCausalLM, args: argparse.Namespace, found: Answers, follows: Follows, effect: Effect, command: str
) -> str:
    """The text of the card of ``model``, which ``command`` made with these ``args``."""
    config = model.config
    return CARD.format(
        **vars(args) | effect._asdict() | follows._asdict() | found._asdict(),
        command=command,
        blocks=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        groups=config.num_key_value_heads,
        words=config.vocab_size,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        seen=args.batch * args.steps,
        kinds=", ".join(KINDS),
        n_words=len(MEANING),
        held_out=HELD_OUT,
        versions=versions("torch", "transformers", "tokenizers"),
    )
