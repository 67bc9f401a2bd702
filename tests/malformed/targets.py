"""Bad calls of target modules, specs, the doctor, explain, and what it gives back."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from captum.attr import Saliency
from PIL import Image

import captum_vit as cv
from captum_vit import demo, viz
from tests.malformed.bad import BERT, CLIP, CONVNET, IDS, IMAGES, VIT, Bad, in_training, said, spoilt

BANK = torch.randn(2, 24)
BANKS = [None, "dogs", BANK.tolist(), BANK[0], BANK[:0], BANK[None], BANK / 0]


def target_modules() -> Iterator[Bad]:
    kinds = {
        "ConceptSimilarity": lambda model: cv.ConceptSimilarity(model, BANK),
        "Margin": lambda model: cv.Margin(model, 0, 1),
        "Direction": lambda model: cv.Direction(model, torch.ones(5)),
        "Scalar": lambda model: cv.Scalar(model, lambda said: said),
        "AnswerSpan": cv.AnswerSpan,
        "Answer": lambda model: cv.Answer(model, 3),
        "logits_of": cv.logits_of,
        "from_layer": lambda model: cv.from_layer(model, "blocks.0"),
        "TextSimilarity": lambda model: cv.TextSimilarity(model, BANK),
        "ImageSimilarity": lambda model: cv.ImageSimilarity(model, BANK),
        "SentenceSimilarity": lambda model: cv.SentenceSimilarity(model, BANK),
        "SentenceSimilarity.from_texts": lambda model: cv.SentenceSimilarity.from_texts(model, str, ["a"]),
    }
    for name, make in kinds.items():
        for model in (None, "vit", lambda x: x):
            yield Bad(f"{name}(model={said(model)})", lambda make=make, m=model: make(m))
    for name, kind in (("TextSimilarity", cv.TextSimilarity), ("ImageSimilarity", cv.ImageSimilarity)):
        yield Bad(f"{name}(a ViT)", lambda kind=kind: kind(VIT, BANK))
        yield Bad(f"{name}(contrast of another number)", lambda kind=kind: kind(CLIP, torch.randn(5, 16), BANK))
        for bank in BANKS:
            yield Bad(f"{name}(embeddings={said(bank)})", lambda kind=kind, b=bank: kind(CLIP, b))
    for bank in BANKS:
        yield Bad(f"ConceptSimilarity(embeddings={said(bank)})", lambda b=bank: cv.ConceptSimilarity(VIT, b))
        yield Bad(f"SentenceSimilarity(embeddings={said(bank)})", lambda b=bank: cv.SentenceSimilarity(BERT, b))
    for name in ("max", None, 2):
        yield Bad(f"SentenceSimilarity(pooling={name!r})", lambda n=name: cv.SentenceSimilarity(BERT, BANK, n))
    for name in ("l1", None, 2):
        yield Bad(f"ConceptSimilarity(similarity={name!r})", lambda n=name: cv.ConceptSimilarity(VIT, BANK, n))
    for n in (None, 0, -1, 2.5, "3", True):
        yield Bad(f"Answer(prompt_length={n!r})", lambda n=n: cv.Answer(VIT, n))
    for option in ({"foil": "nine"}, {"foil": -1}, {"foil": []}, {"foil": 1.5}, {"score": "prob"}, {"inputs": BANK}):
        yield Bad(f"Answer({said(option)})", lambda o=option: cv.Answer(VIT, 3, **o))
    for pair in ((0, 0), (0, 5), (-1, 0), ("a", 0), (0, 1.0), (True, 0), (None, 1)):
        yield Bad(f"Margin{pair}", lambda p=pair: cv.Margin(VIT, *p))
    for g in (None, "up", [1.0] * 5, torch.ones(1, 5), torch.zeros(0), torch.full((5,), torch.nan)):
        yield Bad(f"Direction({said(g)})", lambda g=g: cv.Direction(VIT, g))
    for function in (None, "max", 3):
        yield Bad(f"Scalar({function!r})", lambda f=function: cv.Scalar(VIT, f))
    for layer in ("blocks.99", "", None, 2, CONVNET):
        yield Bad(f"from_layer({said(layer)[:20]})", lambda layer=layer: cv.from_layer(VIT, layer))


def targets_under_a_method() -> Iterator[Bad]:
    """What only the model's answer can show."""
    for name, module in {
        "concepts of another width": cv.ConceptSimilarity(VIT, torch.randn(2, 7)),
        "a direction of another length": cv.Direction(VIT, torch.ones(3)),
        "a direction of one number": cv.Direction(VIT, torch.ones(1)),
        "texts of another width": cv.TextSimilarity(CLIP, torch.randn(2, 7)),
        "a margin behind another module": cv.Margin(cv.Scalar(VIT, lambda said: said[:, :2]), 0, 3),
        "a function that gives a number": cv.Scalar(VIT, lambda said: 3.0),
        "a function that sums the batch": cv.Scalar(VIT, lambda said: said.sum()),
        "no answers": cv.AnswerSpan(VIT),
        "no words": cv.Answer(VIT, 3),
    }.items():
        yield Bad(name, lambda m=module: cv.LayerCDAM(m).attribute(IMAGES, 0), asks=True)
    for x in (IMAGES[..., :9], "a", None):
        yield Bad(f"from_layer.activation({said(x)})", lambda x=x: cv.from_layer(VIT, "norm").activation(x), asks=True)
    unused = cv.from_layer(VIT, "blocks.0.attn.attn_drop")
    yield Bad("from_layer.activation of a layer that never runs", lambda: unused.activation(IMAGES), asks=True)


def targets_from_examples() -> Iterator[Bad]:
    make = cv.ConceptSimilarity.from_images
    for images in (None, {}, IMAGES, [IMAGES], {"dog": IMAGES[:0]}, {"dog": spoilt(torch.nan)}, {"dog": "dog.jpg"}):
        yield Bad(f"ConceptSimilarity.from_images({said(images)})", lambda i=images: make(VIT, i))
    yield Bad("ConceptSimilarity.from_images(another size)", lambda: make(VIT, {"a": IMAGES[..., :9]}), asks=True)
    yield Bad("ConceptSimilarity.from_images(in training)", lambda: make(in_training(VIT), {"a": IMAGES}))
    search = cv.ImageSimilarity.from_images
    for images in (None, {}, [IMAGES], IMAGES[:0], spoilt(torch.nan), {"dog": "dog.jpg"}):
        yield Bad(f"ImageSimilarity.from_images({said(images)})", lambda i=images: search(CLIP, i))
    yield Bad("ImageSimilarity.from_images(another size)", lambda: search(CLIP, IMAGES[..., :9]), asks=True)
    yield Bad("ImageSimilarity.from_images(in training)", lambda: search(in_training(CLIP), IMAGES))
    read = lambda *args, **options: cv.TextSimilarity.from_texts(CLIP, *args, **options)  # noqa: E731
    for texts in (None, "a dog", [], [""], [3], ["a", None], {"a": "b"}):
        yield Bad(f"TextSimilarity.from_texts({texts!r})", lambda t=texts: read(str, t))
    yield Bad("TextSimilarity.from_texts(no tokenizer)", lambda: read(None, ["a"]))
    near = partial(cv.SentenceSimilarity.from_texts, BERT)
    for texts in (None, "a dog", [], [""], [3], ["a", None], {"a": "b"}):
        yield Bad(f"SentenceSimilarity.from_texts({texts!r})", lambda t=texts: near(str, t))
    yield Bad("SentenceSimilarity.from_texts(no tokenizer)", lambda: near(None, ["a"]))
    yield Bad("SentenceSimilarity.from_texts(pooling)", lambda: near(str, ["a"], pooling="max"))

    def only_ids(*_: object, **__: object) -> dict[str, object]:
        return {"input_ids": IDS}

    yield Bad("SentenceSimilarity.from_texts(no masks)", lambda: near(only_ids, ["a"]))
    for templates in (["a photo"], [3], "a photo"):
        yield Bad(
            f"TextSimilarity.from_texts(templates={templates!r})", lambda t=templates: read(str, ["a"], templates=t)
        )
    for contrast in ([], [""], 3, ["a", "b", "c"]):
        call = lambda c=contrast: read(str, ["a", "b"], contrast=c)  # noqa: E731
        yield Bad(f"TextSimilarity.from_texts(contrast={contrast!r})", call)


def specs() -> Iterator[Bad]:
    for model in (None, "vit", VIT.forward_features, CONVNET, CLIP):
        yield Bad(f"spec_of({said(model)[:20]})", lambda m=model: cv.spec_of(m))
    for classes in ((), (None,), ("",), (3,), ("MyViT", 3)):
        yield Bad(f"register_spec{classes}", lambda c=classes: cv.register_spec(*c, spec=cv.Spec()))
    for spec in ("blocks", 3, cv.Spec, {"blocks": "blocks"}):
        yield Bad(f"register_spec(spec={said(spec)})", lambda s=spec: cv.register_spec("NoSuchViT", spec=s))
        yield Bad(f"register_spec decorates {said(spec)}", lambda s=spec: cv.register_spec("NoSuchViT")(s))


PICTURE = Image.fromarray(np.zeros((40, 40, 3), np.uint8))


def explanations() -> Iterator[Bad]:
    given = [
        None, 3, "no-such.jpg", "", ".", b"bytes", {"image": 1}, [PICTURE, PICTURE], IMAGES, IMAGES[:0], IMAGES[0, 0],
        IMAGES[:1].double() / 0, torch.zeros(2, 9, dtype=torch.long), np.zeros((4, 4, 3)),
    ]  # fmt: skip
    for picture in given:
        yield Bad(f"explain({said(picture)})", lambda p=picture: cv.explain(VIT, p, 0), asks=True)
    for target in ("a cat", "", 99, -99, 1.5, True, [], [0, "a cat"], (), {"a": 1}, torch.tensor(0.5)):
        yield Bad(f"explain(target={said(target)})", lambda t=target: cv.explain(VIT, IMAGES[:1], t), asks=True)
    for method in ("LayerCAM", "", 3, cv.LayerCDAM(BERT), Saliency(CONVNET), lambda model: None, VIT):
        yield Bad(
            f"explain(method={said(method)[:40]})",
            lambda m=method: cv.explain(VIT, IMAGES[:1], 0, m),
            asks=method is VIT,
        )
    for model in (None, "vit", CONVNET, in_training(VIT)):
        yield Bad(f"explain({said(model)[:12]}, ...)", lambda m=model: cv.explain(m, IMAGES[:1], 0))
    for text in ("", " ", ("a", "b", "c"), [], (1, 2)):
        yield Bad(f"explain(a text model, {text!r})", lambda t=text: cv.explain(BERT, t, 0))
    yield Bad("explain(a text without a tokenizer)", lambda: cv.explain(BERT, "a good film", 0))
    yield Bad("explain(tokens of another number)", lambda: cv.explain(BERT, IDS[0], 0, tokens=["a"]))
    yield Bad("explain(processor=3)", lambda: cv.explain(VIT, PICTURE, 0, processor=3))
    yield Bad("explain(n_sampels=3)", lambda: cv.explain(VIT, IMAGES[:1], 0, "LayerSmoothCDAM", n_sampels=3))
    yield Bad("explain(n_samples=0)", lambda: cv.explain(VIT, IMAGES[:1], 0, "LayerSmoothCDAM", n_samples=0), asks=True)


PATHS = [None, 3, "map", "map.jpg", "map.html", "no-such-folder/map.png", ".png/"]
MAP, TOKENS = torch.rand(4, 4), ["a", "good", "film"]


def pictures() -> Iterator[Bad]:
    image, text = cv.explain(VIT, IMAGES[:1], 0), cv.explain(BERT, IDS[:1], 0)
    for path in PATHS:
        yield Bad(f"Explanation.save({path!r})", lambda p=path: image.save(p))
        if path != "map.html":
            yield Bad(f"Explanation.save({path!r}) of a text", lambda p=path: text.save(p))
    for percentile in (0, -1, 101, "99", None, float("nan")):
        yield Bad(f"Explanation.show(percentile={percentile!r})", lambda p=percentile: image.show(percentile=p))
        yield Bad(f"Explanation.text(percentile={percentile!r})", lambda p=percentile: text.text(percentile=p))
    for alpha in (-0.1, 2, "dense", float("nan")):
        yield Bad(f"Explanation.show(alpha={alpha!r})", lambda a=alpha: image.show(alpha=a))
    for width in (0, -1.0, "wide", float("inf")):
        yield Bad(f"Explanation.show(width={width!r})", lambda w=width: text.show(width=w))
    for relevance in (None, "map", MAP[0], MAP[:0], MAP / 0, torch.rand(2, 4, 4), [[1, 2], [3]]):
        yield Bad(f"overlay({said(relevance)})", lambda r=relevance: viz.overlay(IMAGES[0].sigmoid(), r))
    for picture in (None, "cat.jpg", 9 * IMAGES[0], spoilt(torch.nan)[1], IMAGES, MAP):
        yield Bad(f"overlay(of {said(picture)})", lambda p=picture: viz.overlay(p, MAP))
    for columns in ({}, {"a": []}, {"a": MAP[None], "b": []}):
        yield Bad(f"panels({said(columns)})", lambda c=columns: viz.panels(IMAGES[0].sigmoid(), c))
    for tokens in ([], "a good film", [1, 2, 3], TOKENS[:2], [None] * 3):
        yield Bad(f"text({tokens!r})", lambda t=tokens: viz.text(t, torch.rand(3)))
    for scores in (None, "high", torch.rand(3) / 0, torch.rand(2, 2, 3), torch.rand(4)):
        yield Bad(f"text(scores={said(scores)})", lambda s=scores: viz.text(TOKENS, s))
    for option in ({"rows": ["a", "b"]}, {"rows": [1]}, {"segments": [0, 1]}, {"signed": "yes"}):
        yield Bad(f"text({option})", lambda o=option: viz.text(TOKENS, torch.rand(3), **o))


def demonstrations() -> Iterator[Bad]:
    bad: dict[str, list[Any]] = {
        "n_scenes": [0, -1, 1.5, "8"], "n_digits": [0, 5, (3, 2), "2", None, 1.5, (1, 2, 3)],
        "split": ["validation", None], "without": [-1, 2, "first"], "seed": ["a", 1.5],
    }  # fmt: skip
    for option, values in bad.items():
        for value in values:
            given = {"n_scenes": 2, "without": None} | {option: value}
            yield Bad(f"digit_scenes({option}={value!r})", lambda g=given: demo.digit_scenes(**g))
    for option, values in {"n": [0, 1.5, "8"], "split": ["dev"], "swap": ["all", 1]}.items():
        for value in values:
            yield Bad(
                f"generated_reviews({option}={value!r})", lambda g={"n": 2, option: value}: demo.generated_reviews(**g)
            )
    yield Bad("demo_vit(objective)", lambda: demo.demo_vit(objective="speed"))


TARGET_CALLS = [
    *target_modules(), *targets_under_a_method(), *targets_from_examples(), *specs(), *explanations(), *pictures(),
    *demonstrations(),
]  # fmt: skip
