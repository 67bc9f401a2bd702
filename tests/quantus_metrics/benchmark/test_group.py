"""Pictures and masks as a model reads them, by its own configuration or squashed."""

import numpy as np
import timm
import torch
from PIL import Image

from captum_vit.inputs.images import image_tensor
from quantus_metrics.benchmark.data import Sample
from quantus_metrics.benchmark.group import read_group


class Wide:
    """One picture twice as wide as high, whose right half is the object."""

    def __len__(self) -> int:
        return 1

    def name(self, index: int) -> str:
        return f"wide-{index}"

    def __getitem__(self, index: int) -> Sample:
        pixels = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
        mask = np.zeros((40, 80), dtype=np.uint8)
        mask[:, 40:] = 255
        return Sample(self.name(index), Image.fromarray(pixels), 0, mask=Image.fromarray(mask))


def test_a_squashed_picture_is_the_whole_of_it() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=2)
    data = Wide()
    own, squashed = (read_group(data, [0], model, resize)[0] for resize in ("model", "squash"))
    assert own is not None and squashed is not None and own.masks is not None and squashed.masks is not None
    whole = np.asarray(data[0].picture.resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    by_hand = torch.tensor((whole - 0.5) / 0.5).permute(2, 0, 1)
    torch.testing.assert_close(squashed.inputs[0], by_hand)
    assert (squashed.masks == (np.arange(32) >= 16)).all()  # of the nearest pixel: nothing is half covered
    torch.testing.assert_close(own.inputs, image_tensor(model, data[0].picture))
    assert own.inputs.shape == squashed.inputs.shape and not torch.allclose(own.inputs, squashed.inputs, atol=0.1)
