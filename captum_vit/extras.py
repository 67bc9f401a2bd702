"""Libraries that come with the extras of this package, which attribution itself does not need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from captum_vit.errors import CaptumVitError, MissingLibraryError

_OWN = ("captum_vit", "quantus_metrics")


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import libraries inside; one that is not installed is refused with the command that installs it.

    Raises:
        MissingLibraryError: in the place of ``ModuleNotFoundError``, which it also is.

    Example:
        >>> with extra("timm"):  # doctest: +SKIP
        ...     import timm
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if isinstance(error, CaptumVitError) or not library or library in _OWN:
            raise
        hint = f'pip install "captum-vit[{name}]"'
        raise MissingLibraryError(f"The library {library}.", "none of that name is installed", hint) from error
