"""What results were made of: the weights and the data. Results of others are not added to them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from captum_vit.errors import InputError
from quantus_metrics.benchmark.data.digests import DIGITS
from quantus_metrics.benchmark.rows import Row

HINT = "another --out folder, or the old weights and data again."


def weights_digest(model: nn.Module) -> str:
    """A digest of every weight and buffer that a model's state holds: names, types, shapes and values."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name} ".encode())
        if isinstance(value, Tensor):
            found.update(f"{value.dtype} {tuple(value.shape)} ".encode())
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        else:
            found.update(repr(value).encode())
    return found.hexdigest()[:DIGITS]


def check_data(rows: Iterable[Row], digest: str) -> None:
    """Results, if there are any, of the data that has this digest.

    Raises:
        InputError: pictures, labels or their order have changed since.
    """
    if others := {row.data for row in rows if row.error is None} - {digest}:
        got = f"data with the digest {digest}; the results are of {_listed(others)}"
        raise InputError("The data that the results in this folder were made of.", got, HINT)


def check_weights(rows: Iterable[Row], model: str, digest: str) -> None:
    """Results of a model, if there are any, of the weights that have this digest.

    Raises:
        InputError: the model's weights have changed since.
    """
    if others := {row.weights for row in rows if row.model == model and row.error is None} - {digest}:
        got = f"weights with the digest {digest}; the results are of {_listed(others)}"
        raise InputError(f"The weights of {model!r} that the results in this folder were made of.", got, HINT)


def check_one_origin(rows: Iterable[Row]) -> None:
    """All results are of the same data, and those of a model of the same weights.

    Raises:
        InputError: processes that saw different ones.
    """
    good = [row for row in rows if row.error is None]
    for row in good[:1]:
        check_data(good, row.data)
    for name, digest in {row.model: row.weights for row in good}.items():
        check_weights(good, name, digest)


def _listed(digests: set[str]) -> str:
    return ", ".join(sorted(digest or "unknown origin" for digest in digests))
