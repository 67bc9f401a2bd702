"""Digit scenes, which need no files."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from captum_vit.demo import digit_questions, digit_scenes
from captum_vit.errors import OptionError
from captum_vit.options import integer
from quantus_metrics.benchmark.data.digests import digest_of
from quantus_metrics.benchmark.data.samples import Sample


class DigitScenes:
    """Scenes of held-out handwritten digits, each explained for every digit in it.

    Args:
        scenes: how many scenes.
        n_digits: digits of a scene: 1, with one class to see (the paper's X_val), or more (its X_multi).
        seed: of the scenes.

    With one digit the wrong class is the next one, and absent; with more it is another digit of the scene.
    """

    def __init__(self, scenes: int = 100, n_digits: int = 2, seed: int = 0) -> None:
        integer("scenes", scenes, hint="scenes = 100")
        if integer("n_digits", n_digits, hint="n_digits = 2") > 4:
            raise OptionError("`n_digits` from 1 to 4.", repr(n_digits), "n_digits = 2")
        integer("seed", seed, least=0, hint="seed = 0")
        self.n_digits = n_digits
        self.scenes = digit_scenes(scenes, n_digits, "test", seed)

    def __len__(self) -> int:
        return len(self.scenes) * self.n_digits

    def name(self, index: int) -> str:
        """The scene and the place of its digit, counted from 0."""
        scene, place = divmod(index, self.n_digits)
        return f"scene-{scene:05d}/digit-{place}"

    def digest(self) -> str:
        """Of the scenes and their digits."""
        scenes = (self.scenes.pixels, self.scenes.masks, self.scenes.digits)
        return digest_of(x.contiguous().numpy().tobytes() for x in scenes)

    def __getitem__(self, index: int) -> Sample:
        scene, place = divmod(index, self.n_digits)
        digits = self.scenes.digits[scene]
        label = int(digits[place])
        wrong = int(digits[(place + 1) % self.n_digits]) if self.n_digits > 1 else (label + 1) % 10
        pixels, mask = self.scenes.pixels[scene], self.scenes.masks[scene, place]
        return Sample(self.name(index), _picture(pixels), label, wrong, _picture(mask[None].float()))


class QuestionScenes(DigitScenes):
    """Scenes of a low and a high digit of held-out handwriting: what ``demo:answers`` is asked about.

    Each is explained for both digits, as the answer to the question about its side; the other one is the wrong class.

    Args:
        scenes: how many scenes.
        seed: of the scenes.
    """

    def __init__(self, scenes: int = 100, seed: int = 0) -> None:
        super().__init__(scenes, 2, seed)
        digits = digit_questions(scenes, seed=seed).digits
        self.scenes = digit_scenes(scenes, 2, "test", seed, digits=digits)


def _picture(
    pixels: Tensor,  # shape: (C, H, W), in [0, 1]
) -> Image.Image:
    array = (255 * pixels).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
