"""Gradient x input with constants held, beside LXT's on torchvision's ViT: an optional test.

LXT patches classes of torch for good and wants transformers before its release 5. So ``lxt_maps.py`` runs in a process
of its own, by the Python that ``LXT_PYTHON`` names: one with ``lxt``, ``torchvision`` and ``transformers<5``.

In torchvision's ViT it holds attention, the deviation of norms and the slope of GELU: our rule ``"frozen"``, and so
DecompX. (For that slope it adds 1e-10 to what it divides by; that is set to zero here.) With GELU left as it is, the
rule is that of Ali et al.: ConservativeLRP.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

import captum_vit as cv
from tests.models import redrawn

PYTHON = os.environ.get("LXT_PYTHON", sys.executable)
HOW = 'pip install lxt torchvision "transformers<5" elsewhere, and let LXT_PYTHON name that Python, to compare with it'
SHAPE = {"image_size": 32, "patch_size": 8, "num_layers": 4, "num_heads": 3, "hidden_dim": 24, "mlp_dim": 48}
SHAPE |= {"num_classes": 5}
TARGETS = [1, 4]
TOKENS = {"output": "tokens"}

Make = Callable[[nn.Module], cv.TokenAttribution]
CONSERVATIVE: dict[str, tuple[Make, slice]] = {  # its blocks, whose maps are summed
    "ConservativeLRP": (lambda m: cv.ConservativeLRP(m, **TOKENS), slice(1)),
    "ConservativeLRP from block 2": (lambda m: cv.ConservativeLRP(m, 2, **TOKENS), slice(2, 3)),
    "CAT under the conservative rule": (lambda m: cv.CAT(m, rule="conservative", **TOKENS), slice(None)),
}
FROZEN: dict[str, tuple[Make, slice]] = {
    "DecompX": (lambda m: cv.DecompX(m, **TOKENS), slice(1)),
    "PLUS(DecompX)": (lambda m: cv.PLUS(cv.DecompX(m, **TOKENS)), slice(None)),
    "SkipPLUS(DecompX)": (lambda m: cv.SkipPLUS(cv.DecompX(m, **TOKENS)), slice(2, None)),
}
AGREE = 1e-12  # of the largest value, in float64

Case = tuple[nn.Module, Tensor, Path]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    found = subprocess.run([PYTHON, "-c", "import lxt.efficient"], capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"{found.stderr.strip().splitlines()[-1]}; {HOW}")
    torch.manual_seed(0)
    model = redrawn(VisionTransformer(**SHAPE)).double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    folder = tmp_path_factory.mktemp("lxt")
    told = {"shape": SHAPE, "weights": model.state_dict(), "images": images, "targets": torch.tensor(TARGETS)}
    torch.save(told, folder / "case.pt")
    return model, images, folder


@pytest.fixture(scope="module")
def conservative(case: Case) -> Tensor:
    return theirs(case, "GELU")


@pytest.fixture(scope="module")
def frozen(case: Case) -> Tensor:
    return theirs(case)


def theirs(case: Case, *unpatched: str) -> Tensor:  # shape: (L, B, N)
    folder = case[-1]
    script = Path(__file__).with_name("lxt_maps.py")
    subprocess.run([PYTHON, str(script), str(folder), *unpatched], check=True)
    return torch.load(folder / "maps.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONSERVATIVE)
def test_cp_lrp_is_conservative(name: str, case: Case, conservative: Tensor, measured: Callable) -> None:
    make, blocks = CONSERVATIVE[name]
    model, images, _ = case
    assert measured(make(model).attribute(images, target=TARGETS), conservative[blocks].sum(0)) < AGREE


@pytest.mark.slow
@pytest.mark.parametrize("name", FROZEN)
def test_cp_lrp_with_a_slope_for_gelu_is_decompx(name: str, case: Case, frozen: Tensor, measured: Callable) -> None:
    make, blocks = FROZEN[name]
    model, images, _ = case
    assert measured(make(model).attribute(images, target=TARGETS), frozen[blocks].sum(0)) < AGREE
