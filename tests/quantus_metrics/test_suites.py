"""Whole suites of Quantus: our metrics and its own, three methods, on models that it rejects as they come."""

import math

import numpy as np
import pytest
import quantus
import torch
import transformers

import captum_vit as cv
import quantus_metrics as qm
from captum_vit import demo

METHODS = {
    **{name: qm.explain_func(cv.METHODS[name]) for name in ("LayerCDAM", "VTranM")},
    "Random": qm.explain_func(lambda m: cv.RandomAttribution(m, generator=torch.Generator().manual_seed(0))),
}


def brighter(arr, **kwargs):
    """A small change of images that draws no random numbers."""
    return arr + 0.02 * np.sign(arr)


def metrics(n_classes: int, size: int) -> dict[str, quantus.Metric]:
    ours = {
        "Fidelity": qm.Fidelity(patch_size=8, fractions=(0, 0.5, 1)),
        "Deletion": qm.Deletion(patch_size=8, score="aopc", fractions=(0.25, 0.5)),
        "BoxSensitivity": qm.BoxSensitivity(patch_size=8, sizes=(1, 2), n_boxes=4),
        "Segmentation": qm.Segmentation(),
    }
    quiet = {"disable_warnings": True}
    theirs = {
        "PixelFlipping": quantus.PixelFlipping(features_in_step=size * size // 4, **quiet),
        "RegionPerturbation": quantus.RegionPerturbation(patch_size=8, regions_evaluation=3, **quiet),
        "Sparseness": quantus.Sparseness(**quiet),
        "RelevanceRankAccuracy": quantus.RelevanceRankAccuracy(**quiet),
        "RandomLogit": quantus.RandomLogit(num_classes=n_classes, **quiet),
        "MaxSensitivity": quantus.MaxSensitivity(nr_samples=2, perturb_func=brighter, **quiet),
    }
    return ours | theirs


def demo_model():
    return demo.demo_vit(), 10, 64


def hugging_face_in_half_precision():
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=5, initializer_range=0.3, **sizes)
    return transformers.ViTForImageClassification(config).eval().bfloat16(), 5, 32


def clip_and_texts():
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {"image_size": 32, "patch_size": 8, "initializer_range": 0.3, **sizes}
    text = {"vocab_size": 40, "max_position_embeddings": 16, "eos_token_id": 2, **sizes}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    return cv.TextSimilarity(transformers.CLIPModel(config).eval(), torch.randn(4, 16)), 4, 32


def flat(scores) -> list[float]:
    return [float(one) for each in scores for one in np.ravel(each)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [demo_model, hugging_face_in_half_precision, clip_and_texts])
def test_a_suite_says_what_direct_calls_say(make):
    model, n_classes, size = make()
    wrapped, chosen = qm.wrap(model), metrics(n_classes, size)
    scenes = demo.digit_scenes(3, n_digits=1, seed=5)
    x, s = scenes.images[..., :size, :size].numpy().copy(), np.zeros((3, 1, size, size))
    s[:, :, 8:24, 8:24] = 1
    y = np.arange(3) % n_classes
    found = quantus.evaluate(chosen, METHODS, wrapped, x, y, s_batch=s, agg_func=list, explain_func_kwargs={})

    differ = {name: set() for name in chosen}
    for method, explain in METHODS.items():
        assert found[method].keys() == chosen.keys()
        maps = explain(wrapped, x, y)
        assert maps.shape == (3, 1, size, size)
        for name, metric in chosen.items():
            arrays = {"x_batch": x, "y_batch": y, "a_batch": maps.copy(), "s_batch": s}
            direct = metric(model=wrapped, **arrays, explain_func=explain, explain_func_kwargs={})
            assert flat(found[method][name]) == pytest.approx(flat(direct), rel=1e-6, abs=1e-9)
            assert all(map(math.isfinite, flat(direct)))
            differ[name].add(tuple(flat(direct)))
    assert all(len(scores) > 1 for scores in differ.values())  # no metric is blind to the methods


def test_as_it_comes_quantus_refuses_the_hugging_face_model():
    """The day this fails, `wrap` is needed for half precision only."""
    model, _, size = hugging_face_in_half_precision()
    x = np.random.default_rng(0).standard_normal((2, 3, size, size), dtype=np.float32)
    metric = quantus.PixelFlipping(features_in_step=size * size // 4, disable_warnings=True)
    with pytest.raises(ValueError, match="Hugging"):
        metric(model, x, np.array([0, 1]), x.sum(1, keepdims=True))
