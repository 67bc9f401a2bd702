"""The embedded default: digit scenes with known answers, and a small transformer trained on them.

Scenes      digit_scenes, Scenes
Model       demo_vit

Nothing is downloaded: the digits come with scikit-learn, the weights with this package.
``python -m captum_vit.demo.train --help`` shows how the weights were made.
"""

from captum_vit.demo.model import demo_vit
from captum_vit.demo.scenes import Scenes, digit_scenes

__all__ = ["Scenes", "demo_vit", "digit_scenes"]
