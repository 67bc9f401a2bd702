"""What an explanation costs: process time as a ratio to one plain forward pass of the same batch.

    python -m tests.benchmarks.cost [--model vit_small_patch16_224] [--batch 4] [--repeats 7]

One torch thread; for every method pairs of (plain forward, method), the median of their ratios. Captum's own
methods are measured in the same run. Process time, since wall time on shared cores measures the neighbours.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import timm
import torch
from captum.attr import InputXGradient, LayerGradCam, LayerIntegratedGradients, Saliency
from torch import Tensor, nn

import captum_vit as cv

AIMS = {
    "PredictionMap": 1.03,
    "PredictionMap.all_classes": 1.03,
    "PredicAtt": 1.08,
    "LayerCDAM": 1.0,
    "SkipPLUS(DecompX)": 1.7,
    "PLUS(DecompX)": 2.2,
    "CAT": 2.25,
    "FullGrad": 2.3,
    "FullGradPlus": 2.3,
    "FullGradPlus, frozen": 2.3,
    "GenAtt": 2.3,
    "VTranM": 2.45,
}
Explain = Callable[[Tensor], object]


def process_time(work: Callable[[], object]) -> float:
    """Seconds of this process's CPU time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def ratio(model: nn.Module, explain: Explain, x: Tensor, repeats: int) -> float:
    """Median over pairs of the method's time by the plain forward's."""
    explain(x)

    def plain() -> None:
        with torch.inference_mode():
            model(x)

    return statistics.median(
        (lambda base: process_time(lambda: explain(x)) / base)(process_time(plain)) for _ in range(repeats)
    )


def candidates(model: nn.Module, target: int) -> dict[str, Explain]:
    """Our methods, and Captum's for comparison, each as a function of the batch."""
    made = {name: make(model) for name, make in cv.METHODS.items()}
    ours: dict[str, Explain] = {
        name: (lambda x, method=method: method.attribute(x, target=target)) for name, method in made.items()
    }
    ours["FullGradPlus, frozen"] = lambda x: cv.FullGradPlus(model, rule="frozen").attribute(x, target=target)
    ours["PredictionMap.all_classes"] = cv.PredictionMap(model).all_classes
    norm = model.blocks[-1].norm1
    captum: dict[str, Explain] = {
        "captum LayerGradCam": lambda x: LayerGradCam(model, norm).attribute(x, target=target),
        "captum Saliency": lambda x: Saliency(model).attribute(x, target=target),
        "captum InputXGradient": lambda x: InputXGradient(model).attribute(x, target=target),
        "captum LayerIntegratedGradients, 50 steps": lambda x: LayerIntegratedGradients(model, norm).attribute(
            x, target=target, n_steps=50, internal_batch_size=len(x)
        ),
    }
    return ours | captum


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16_224", help="a timm model with CLS pooling")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", nargs="*", help="names of methods; all by default")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore", UserWarning)  # Captum says each time that it sets requires_grad
    model = timm.create_model(options.model).eval()
    x = torch.randn(options.batch, 3, *model.patch_embed.img_size)
    print(f"{options.model}, batch {options.batch}, one thread, torch {torch.__version__}: ratio to the plain forward")
    print("| method | ratio | aim |\n|---|---|---|")
    for name, explain in candidates(model, target=3).items():
        if not options.only or name in options.only:
            found = ratio(model, explain, x, 1 if "50 steps" in name else options.repeats)
            print(f"| {name} | {found:.2f} | {AIMS.get(name, '')} |", flush=True)


if __name__ == "__main__":
    main()
