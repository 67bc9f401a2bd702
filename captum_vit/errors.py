"""One family of errors. Every message holds what was wanted, what was got, and what to try.

Each class is also the built-in error that Captum raises in the same place, so code written against
Captum keeps catching it.
"""

from __future__ import annotations


class CaptumVitError(Exception):
    """Any error that this package raises on purpose."""

    def __init__(self, wanted: str, got: str, hint: str) -> None:
        self.wanted, self.got, self.hint = wanted, got, hint
        super().__init__(f"{wanted}\nGot: {got}\nTry: {hint}")

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:  # of a pickle and a copy, which have no traceback
        return type(self), (self.wanted, self.got, self.hint)


class InputError(CaptumVitError, ValueError, AssertionError):
    """The inputs cannot be explained: empty, not a tensor, not finite, of a size the model refuses, or so large that
    the model overflows."""


class OptionError(CaptumVitError, ValueError):
    """An argument of a method has an unknown value."""


class TargetError(CaptumVitError, AssertionError, IndexError):
    """The target is missing, out of range, or of a form that the output does not have."""


class LayerError(CaptumVitError, ValueError, AssertionError):
    """The layer is not part of the model, or nothing can be read there."""


class UnsupportedModelError(CaptumVitError, TypeError):
    """No transformer that can be described was found in the model."""


class ModelStateError(CaptumVitError, RuntimeError):
    """The model cannot be explained in the state it is in (training mode, for example)."""


class TraceError(CaptumVitError, RuntimeError):
    """A tensor or a gradient that the method needs was not seen during the pass."""


class MethodError(CaptumVitError, NotImplementedError):
    """A method of one's own lacks a part that it must supply."""


class MissingLibraryError(CaptumVitError, ModuleNotFoundError):
    """A library that comes with an extra of this package is not installed."""


class PaddingWarning(UserWarning):
    """Token ids are filled up with the model's padding token, and no mask hides it: it is read as text."""


class ZeroMapWarning(UserWarning):
    """Every relevance of some samples is exactly zero; the message names them, and the reasons that there may be."""


class PartialMapWarning(UserWarning):
    """The head reads tokens of earlier blocks too, which the method leaves out: it follows those of the last block."""


class UnrepeatableWarning(UserWarning):
    """A second pass over the same input gives other scores: the model is random."""


MISFITS = (AssertionError, LookupError, RuntimeError, TypeError, ValueError)
"""What a model's own code raises where it is given sequences, or samples, of another number than it expects."""

MODEL_ERRORS = (AttributeError, *MISFITS)
"""What a model's own code raises where it is given something else than it expects."""
