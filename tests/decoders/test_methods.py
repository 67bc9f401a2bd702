"""Every method on language models: nothing of later words, rows and padding apart, the model's own place the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import captum_vit as cv
from tests.decoders.families import decoder

N = 6  # the prompt
IDS = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(0))
MAIN = ("LayerCDAM", "PredictionMap", "PredicAtt", "VTranM", "DecompX", "FullGrad", "GenAtt", "TokenAblation")
RANDOM = ("LayerSmoothCDAM", "SmoothGrad", "RandomAttribution")
READ_ALONE = ("PredictionMap", "TokenEigenCAM", "RandomAttribution")  # words as they are, whatever reads them
PROBABLE = ("PredictionMap", "PredicAtt", "VTranM", "TokenAblation")  # of the model itself they read probabilities
CASES = [("GPT-2", name) for name in MAIN] + [("Llama", name) for name in cv.METHODS]


@pytest.mark.parametrize(
    ("family", "name"),
    [pytest.param(*case, marks=[] if case[1] in MAIN else [pytest.mark.slow]) for case in CASES],
)
def test_a_method_on_a_language_model(family: str, name: str) -> None:
    model, make = decoder(family), cv.METHODS[name]

    def found(ids: Tensor, n: int = N, *mask: Tensor) -> Tensor:
        return make(cv.Answer(model, n)).attribute(ids, target=1, additional_forward_args=mask or None)

    S = found(IDS)
    assert S.shape == IDS.shape and S[:, : N + 1].any(1).all()
    if name not in READ_ALONE:  # the first generated token is read; the second is what is explained
        assert not S[:, N + 1 :].any()
    if name in RANDOM:
        return
    if name not in PROBABLE:
        pairs = [(N, int(word)) for word in IDS[:, N + 1]]
        torch.testing.assert_close(make(model).attribute(IDS, target=pairs), S, rtol=1e-6, atol=1e-7)
    mask = torch.ones_like(IDS[1:])
    for before, behind in ((0, 0), (2, 0), (0, 2)):
        sides = (before, behind)
        padded = found(F.pad(IDS[1:], sides), N + before, F.pad(mask, sides))
        torch.testing.assert_close(padded[:, before : before + 9], S[1:], rtol=1e-6, atol=2e-6)
        assert padded.count_nonzero() == S[1:].count_nonzero()
