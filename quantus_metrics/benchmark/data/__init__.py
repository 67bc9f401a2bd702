"""Data sets that a benchmark can run on, by the name that a spec gives them."""

from __future__ import annotations

from quantus_metrics.benchmark.data.digests import Digested, data_digest, digest_of
from quantus_metrics.benchmark.data.digits import DigitScenes, QuestionScenes
from quantus_metrics.benchmark.data.drawn import Drawn
from quantus_metrics.benchmark.data.folders import ImageFolder
from quantus_metrics.benchmark.data.libraries import Cifar, Hub
from quantus_metrics.benchmark.data.samples import Reader, Sample, Samples
from quantus_metrics.benchmark.data.segmented import ImageNetS, ImageNetSegmentation

READERS: dict[str, Reader] = {
    "digits": DigitScenes,
    "questions": QuestionScenes,
    "folder": ImageFolder,
    "imagenet-segmentation": ImageNetSegmentation,
    "imagenet-s": ImageNetS,
    "cifar": Cifar,
    "hub": Hub,
}
"""Name -> what makes the data set from the options of ``[data]``."""

__all__ = [
    "READERS",
    "Cifar",
    "DigitScenes",
    "Digested",
    "Drawn",
    "Hub",
    "ImageFolder",
    "ImageNetS",
    "ImageNetSegmentation",
    "QuestionScenes",
    "Reader",
    "Sample",
    "Samples",
    "data_digest",
    "digest_of",
]
