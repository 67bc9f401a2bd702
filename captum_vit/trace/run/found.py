"""What an explanation changes for a while, as it was found: put back in one place, whenever an interrupt comes.

Python may raise `KeyboardInterrupt` wherever it enters a function, and after most calls of C code: also on the way
into the `__exit__` of a context manager, or between the removal of one hook and the next. So nothing here relies on
what each hook or mode does at its own end. What this thread has put into the modules is found and taken out, the
modes of the process are set to what they were, and all that happens in two layers of `finally`: an interrupt that
breaks the first leaves the second.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import wraps
from io import IOBase
from threading import get_ident
from traceback import clear_frames
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

from captum_vit.sites.site import Forward, ThisThreadOnly, next_number

P = ParamSpec("P")
R = TypeVar("R")
Ends = Generator[None, None, None]
"""A generator that yields once, and tidies up when it goes on."""


class _Uninterrupted(IOBase):
    """A context manager made of a generator, whose end is reached also if an interrupt comes on the way to it.

    Python enters a function of its own, such as an `__exit__`, by a look for interrupts. The `__exit__` of `IOBase` is
    C code that calls `close`, here that of the generator, and a generator goes on inside of its `try`.
    """

    def __init__(self, generator: Ends) -> None:
        self._generator = generator
        vars(self)["close"] = generator.close

    def __enter__(self) -> _Uninterrupted:
        try:
            next(self._generator)
        except BaseException:
            self.close()
            raise
        return self


def uninterrupted(generator: Callable[P, Ends]) -> Callable[P, _Uninterrupted]:
    """As `contextlib.contextmanager`; what ends the context comes as the `__context__` of a `GeneratorExit`."""

    @wraps(generator)
    def made(*args: P.args, **kwargs: P.kwargs) -> _Uninterrupted:
        return _Uninterrupted(generator(*args, **kwargs))

    return made


def as_found(modules: Sequence[nn.Module]) -> _Uninterrupted:
    """At its end nothing that this thread put into these modules is left, and its modes are those of before."""
    return Found(modules).kept()


def without_gradients(function: Callable[P, R]) -> Callable[P, R]:
    """As the decorator `torch.no_grad()`, whose own end an interrupt may break off."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with as_found(()), torch.no_grad():
            return function(*args, **kwargs)

    return run


class Found:
    """The modes of this thread as they are now, and the time from which on modules hold what is to go."""

    def __init__(
        self, modules: Sequence[nn.Module], parameters: Sequence[nn.Parameter] = (), devices: Iterable[str] = ()
    ) -> None:
        self.modules, self.parameters = modules, parameters
        self.thread, self.number = get_ident(), next_number()
        self.function_modes = _function_modes()
        self.autocast = {device: torch.is_autocast_enabled(device) for device in devices}
        self.grad = torch.is_grad_enabled()
        self.fast_path = False  # whether one is to be switched on again
        self.no_inference = torch._C._InferenceMode(False)  # a guard, not entered yet
        self.stance: Any = None
        self.checkpointing: list[nn.Module] = []
        self.trainable: list[nn.Parameter] = []
        self.quiet = self.done = False

    @uninterrupted
    def kept(self) -> Ends:
        """At its end all is put back."""
        handled = sys.exc_info()[1]
        try:
            try:
                yield
            except GeneratorExit as end:
                errors = errors_of(end, handled)
                if not errors and not self.quiet:
                    self.grad = torch.is_grad_enabled()  # a hook may have begun a graph, which goes on behind this
                _let_go(errors)
            finally:
                self.put_back()
        finally:
            self.put_back()

    def quieten(self, compiled: bool) -> None:
        """No graph until a hook asks for one; no autocast, checkpoints, packed layers; nothing runs compiled.

        Parameters are constants: a graph that knows them saves what enters every layer, for gradients of its weights.
        """
        self.quiet = True
        # timm recomputes activations in eval mode too; hooks and modes must see one pass only
        self.checkpointing = [m for m in self.modules if m.__dict__.get("grad_checkpointing") is True]
        if compiled:
            self.stance = torch._dynamo.eval_frame._stance
            torch.compiler.set_stance("force_eager")
        self.no_inference.__enter__()
        torch.set_grad_enabled(False)
        self.fast_path = torch.backends.mha.get_fastpath_enabled()  # of nn.TransformerEncoder, past modules and hooks
        torch.backends.mha.set_fastpath_enabled(False)
        for device, enabled in self.autocast.items():
            if enabled:
                torch.set_autocast_enabled(device, False)
        for module in self.checkpointing:
            vars(module)["grad_checkpointing"] = False
        self.trainable = [p for p in self.parameters if p.requires_grad and not p.is_inference()]
        for parameter in self.trainable:
            parameter.requires_grad_(False)

    def put_back(self) -> None:
        """May be broken off anywhere and called again; the second call to a finished one does nothing."""
        if self.done:
            return
        if list(map(id, _function_modes())) != list(map(id, self.function_modes)):
            while torch._C._len_torch_function_stack():
                torch._C._pop_torch_function_stack()
            for mode in self.function_modes:
                torch._C._push_on_torch_function_stack(mode)
        self.no_inference.__exit__(None, None, None)
        torch.set_grad_enabled(self.grad)
        if self.fast_path:
            torch.backends.mha.set_fastpath_enabled(True)
        for device, enabled in self.autocast.items():
            torch.set_autocast_enabled(device, enabled)
        if self.stance is not None:
            torch._dynamo.eval_frame._set_stance(self.stance)
        for module in self.checkpointing:
            vars(module)["grad_checkpointing"] = True
        for parameter in self.trainable:
            parameter.requires_grad_()
        for module in self.modules:
            state = module.__dict__  # a look at every module: several times as quick as by attributes
            after = state["_forward_hooks"] or state["_forward_hooks_with_kwargs"]
            if after or state["_forward_pre_hooks"] or state["_forward_pre_hooks_with_kwargs"] or "forward" in state:
                self._take_out(module)
        self.done = True

    def _take_out(self, module: nn.Module) -> None:
        self._take_from(module._forward_hooks, module._forward_hooks_with_kwargs, module._forward_hooks_always_called)
        self._take_from(module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs)
        while isinstance(forward := vars(module).get("forward"), Forward) and self._is_late(forward):
            forward.remove()

    def _take_from(self, hooks: dict[int, Any], *notes: dict[int, bool]) -> None:
        """What torch notes about a hook goes before the hook, by which it is found."""
        late = [key for key, hook in hooks.items() if isinstance(hook, ThisThreadOnly) and self._is_late(hook)]
        for note in notes:
            for key in [*late, *(note.keys() - hooks.keys())]:
                note.pop(key, None)
        for key in late:
            del hooks[key]

    def _is_late(self, mine: ThisThreadOnly) -> bool:
        return mine.number > self.number and mine.thread == self.thread


def _function_modes() -> list[Any]:
    return [torch._C._get_function_stack_at(i) for i in range(torch._C._len_torch_function_stack())]


def errors_of(end: GeneratorExit, handled: BaseException | None) -> list[BaseException]:
    """What left a context, and that during whose handling it was raised; not what was handled already before."""
    errors, error = [], end.__context__
    while error is not None and error is not handled:
        errors.append(error)
        error = None if error.__suppress_context__ else error.__context__
    return [error for error in errors if not isinstance(error, GeneratorExit)]


def _let_go(errors: list[BaseException]) -> None:
    """Ends at once what an interrupt left half done, and lets no error of the tidying hide the interrupt.

    Contexts written as generators, torch's own among them, would end whenever the traceback is forgotten, and push
    or pop modes then.
    """
    interrupt = next((error for error in errors if not isinstance(error, Exception)), None)
    if interrupt is not None:
        for error in errors:
            clear_frames(error.__traceback__)
        if errors[0] is not interrupt:
            raise interrupt
