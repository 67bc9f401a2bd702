"""A method of your own: the tensors that it needs, and what it computes from them. The base class does the rest.

    python examples/your_own_method.py [FILE]

The tests of all methods run on whatever is in ``METHODS``: batches, dtypes, targets, models left as found, on every
family of models. From a checkout:

    python -m pytest -p examples.your_own_method tests/contracts -k ValueGrad
"""

from __future__ import annotations

import sys
from pathlib import Path

from torch import Tensor

import captum_vit as cv
from captum_vit import viz
from captum_vit.demo import demo_vit, digit_scenes


class ValueGrad(cv.TokenAttribution):
    r"""How much the target would gain from each token's values, in the last block, if they grew.

    .. math:: S_j = \sum_h \sum_d V^h_{jd}\,\partial f_c / \partial V^h_{jd}

    Signed; uses the target. Costs one forward and one backward pass.

    Args:
        forward_func: the model, or a target module around it.
        output: see :class:`TokenAttribution`.
    """

    def want(self, transformer: cv.Transformer) -> cv.Want:
        return cv.Want(grads=["values"])

    def relevance(self, found: cv.Record) -> Tensor:  # shape: (B, N)
        return self.layer_maps(found)[-1]

    def layer_maps(self, found: cv.Record) -> list[Tensor]:
        """One map for each block: with it, PLUS and SkipPLUS run over the method."""
        V, G = found.seen["values"], found.grads["values"]  # shape of each block's: (B, H, N, d)
        return [(V[layer] * G[layer]).sum((1, 3)) for layer in found.layers]


cv.METHODS["ValueGrad"] = ValueGrad


def main(out: Path) -> None:
    model, scenes = demo_vit(), digit_scenes(2, n_digits=2, seed=14)
    images, targets = scenes.images.repeat_interleave(2, 0), scenes.digits.flatten()
    columns = {"ValueGrad": ValueGrad(model), "PLUS(ValueGrad)": cv.PLUS(ValueGrad(model))}
    figure = viz.panels(
        list(scenes.pixels.repeat_interleave(2, 0)),
        {name: method.attribute(images, target=targets) for name, method in columns.items()},
        rows=[model.pretrained_cfg["label_names"][target] for target in targets.tolist()],
    )
    figure.savefig(out, dpi=110)
    print(f"{len(columns)} columns, {len(images)} rows: {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("your_own_method.png"))
