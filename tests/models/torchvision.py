"""torchvision's one."""

from __future__ import annotations

import torchvision

from tests.models.table import CLASSES, Case, case, image, redrawn


@case("torchvision ViT")
def torchvision_vit() -> Case:
    return Case(redrawn(torchvision.models.VisionTransformer(32, 8, 3, 3, 24, 48, num_classes=CLASSES)), image())
