"""Which words, and which digit, made an answer: where maps of the demo language models lie.

    python -m tests.benchmarks.answers [--prompts 200] [--scenes 100] [--few 50] [--seed 1] [--only NAMES]

Of `demo_lm` two words of a prompt decide: that of the fact that is asked for, and the kind in the question. Of
`demo_vlm` it is the strokes of the digit that is asked for. Methods of Captum, and those that run the model once for
each word or patch, explain the first `--few` only. A method that refuses the model is printed with its reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from captum.attr import (
    FeatureAblation,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    LLMAttribution,
    LLMGradientAttribution,
    ShapleyValueSampling,
    TextTokenInput,
)
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.demo import (
    DigitQuestions,
    Facts,
    demo_lm,
    demo_lm_tokenizer,
    demo_vlm,
    demo_vlm_processor,
    digit_questions,
    stated_facts,
)
from captum_vit.demo.scene_questions.evaluation import prompt_ids
from captum_vit.demo.scene_questions.model import tokens_read
from captum_vit.errors import CaptumVitError
from quantus_metrics.metrics.pointing import pointing_hits

TOLERANCE = 4  # pixels beside a digit's strokes
BATCH = 50
SLOW = {"TokenAblation", "LRP", "TransAttr", "LayerSmoothCDAM", "LayerIntegratedCDAM", "SmoothGrad"}

Maps = Callable[[int], Tensor]
"""The maps of the first inputs, that many."""


def rows(names: dict[str, Maps], n: int, few: int, only: Collection[str], line: Callable[[Tensor], str]) -> None:
    """A line for each method."""
    for name, maps in names.items():
        if only and name not in only:
            continue
        try:
            found = maps(few if name in SLOW or name.startswith("Captum") else n)
        except CaptumVitError as error:
            print(f"| {name} | refused: {str(error).splitlines()[0]} |", flush=True)
        else:
            print(f"| {name} | {line(found)} |", flush=True)


def shares(*of: Tensor) -> str:
    """Cells of a table."""
    return " | ".join(f"{each.double().mean():.3f}" for each in of)


def batched(method: Any, n: int, *inputs: Tensor) -> Tensor:
    """Maps of the first n inputs, for the first token of the answer."""
    return torch.cat([method(*(x[:n][at] for x in inputs)) for at in torch.arange(n).split(BATCH)])


# Words of a prompt


def word_methods(facts: Facts) -> dict[str, Maps]:
    """Maps of words, without the start token."""
    model, tokenizer = demo_lm(), demo_lm_tokenizer()
    texts = [f"{prompt} {answer}" for prompt, answer in zip(facts.prompts, facts.answers, strict=True)]
    ids = tokenizer(texts, return_tensors="pt")["input_ids"]
    n_prompt = ids.shape[1] - 1
    answer = cv.Answer(model, n_prompt)

    def ours(make: Any, n: int) -> Tensor:
        method = make(answer)
        return batched(lambda x: method.attribute(x, target=0)[:, 1:n_prompt], n, ids)

    def captums(method: Any, n: int) -> Tensor:
        start = [tokenizer.bos_token_id]
        prompts = [TextTokenInput(prompt, tokenizer, skip_tokens=start) for prompt in facts.prompts[:n]]
        found = [
            method.attribute(prompt, target=f"{answer}").seq_attr
            for prompt, answer in zip(prompts, facts.answers, strict=False)
        ]
        return torch.stack(found)

    words = model.get_input_embeddings()
    others = {
        "DecompX, rule libra": partial(ours, partial(cv.DecompX, rule="libra")),
        "Captum LLMAttribution, FeatureAblation": partial(captums, LLMAttribution(FeatureAblation(model), tokenizer)),
        "Captum LLMAttribution, ShapleyValueSampling": partial(
            captums, LLMAttribution(ShapleyValueSampling(model), tokenizer)
        ),
        "Captum LLMGradientAttribution, gradient x activation": partial(
            captums, LLMGradientAttribution(LayerGradientXActivation(model, words), tokenizer)
        ),
        "Captum LLMGradientAttribution, integrated gradients": partial(
            captums, LLMGradientAttribution(LayerIntegratedGradients(model, words), tokenizer)
        ),
    }
    return {name: partial(ours, make) for name, make in cv.METHODS.items()} | others


def on_words(facts: Facts, maps: Tensor) -> str:
    """Where the most relevant word is; and which word of the facts is the most relevant of these."""
    fact, kind = facts.evidence[: len(maps)], facts.asked[: len(maps)]
    top = maps.argmax(1)
    last = top == maps.shape[1] - 1
    rest = ~((top == fact) | (top == kind) | last)
    return shares(top == fact, top == kind, last, rest, maps[:, : facts.in_facts].argmax(1) == fact)


# Digits of a scene


class Behind(nn.Module):
    """The language model of a LLaVA: tokens of words and pictures (B, N, D) to logits of the next word (B, V)."""

    def __init__(self, vlm: Any) -> None:
        super().__init__()
        self.reader, self.head = vlm.model.language_model, vlm.lm_head
        self.eval()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.reader(inputs_embeds=tokens, use_cache=False).last_hidden_state[:, -1])


def picture_methods(found: DigitQuestions) -> tuple[dict[str, Maps], dict[str, Maps]]:
    """Maps of patches (n, 8, 8): where pixels enter the model, and where the language model reads them."""
    model, pixels = demo_vlm(), found.images
    prompts = [f"{prompt} {answer}" for prompt, answer in zip(found.prompts, found.answers, strict=True)]
    ids = prompt_ids(prompts)
    n_prompt = ids.shape[1] - 1
    answer = cv.Answer(model, n_prompt)
    image = ids[0] == model.config.image_token_id

    def patches(make: Any, n: int) -> Tensor:
        method = make(answer)
        return batched(lambda *x: method.attribute(x, target=0)[1][:, 0], n, ids, pixels)

    def hidden(n: int) -> Tensor:
        cells = torch.arange(64).view(1, 1, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
        method = FeatureAblation(lambda x, ids: answer(ids, x))
        maps = batched(
            lambda ids, x: method.attribute(
                x, x.mean((2, 3), keepdim=True), 0, (ids,), cells, perturbations_per_eval=8
            ),
            n,
            ids,
            pixels,
        )
        return maps[:, 0, ::8, ::8]

    behind = Behind(model)
    words = torch.tensor(demo_vlm_processor().tokenizer.convert_tokens_to_ids(found.answers))
    with torch.no_grad():
        read = tokens_read(model, ids[:, None, :n_prompt], pixels)[:, 0]

    def tokens(make: Any, n: int) -> Tensor:
        method = make(behind)
        maps = batched(lambda x, target: method.attribute(x, target=target), n, read, words)
        return maps[:, image[:n_prompt]].view(-1, 8, 8)

    entering = {
        "DecompX": partial(patches, cv.DecompX),
        "DecompX, rule libra": partial(patches, partial(cv.DecompX, rule="libra")),
        "gradient x input": partial(patches, partial(cv.DecompX, rule="grad")),
        "Captum FeatureAblation, mean colour": hidden,
    }
    return entering, {name: partial(tokens, make) for name, make in cv.METHODS.items()}


def on_digits(found: DigitQuestions, maps: Tensor) -> str:
    """Where the maximum lies, and the positive relevance: on the digit that is asked for, and on the other.

    Net: of the relevance on the two digits, summed with its signs over all scenes, the share of the first.
    """
    masks = found.masks[: len(maps)]
    hits = (pointing_hits(maps[:, None], masks[:, place], TOLERANCE) for place in (0, 1))
    strokes = F.avg_pool2d(masks.double(), 8)  # of each patch, how much of it a digit covers
    own = (strokes > 0) & (strokes >= strokes.flip(1))
    positive, signed = maps.double().clamp(min=0)[:, None], maps.double()[:, None]
    mass = (positive * own).sum((2, 3)) / positive.sum((2, 3)).clamp(min=1e-12)
    net = (signed * own).sum((0, 2, 3))
    return f"{shares(*hits, *mass.unbind(1))} | {net[0] / net.abs().sum():.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--few", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="names of methods; all by default")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)  # some methods draw from the global generator
    only = options.only or ()
    if options.prompts:
        facts = stated_facts(options.prompts, seed=options.seed)
        print("\n| method | the fact's word | the kind | the asking position | elsewhere | of the facts |")
        print("|---|--:|--:|--:|--:|--:|")
        rows(word_methods(facts), len(facts), options.few, only, partial(on_words, facts))
    if options.scenes:
        scenes = digit_questions(options.scenes, seed=options.seed)
        places = "at the patches", "at the language model's tokens"
        for place, methods in zip(places, picture_methods(scenes), strict=True):
            print(f"\n{place}\n\n| method | points at the digit | at the other | on the digit | on the other | net |")
            print("|---|--:|--:|--:|--:|--:|")
            rows(methods, len(scenes), options.few, only, partial(on_digits, scenes))


if __name__ == "__main__":
    main()
