"""Every model in a process of its own, so that none can hold up or disturb the others."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection

import torch
import transformers

from tests.families import dense, huggingface, others, own, timm
from tests.families.trial import Result, trial
from tests.models import Case

SECONDS = 60  # for one model
LIBRARIES = {
    "transformers": huggingface,
    "transformers, dense": dense,
    "timm": timm,
    "torchvision, open_clip, PyTorch": others,
    "own": own,
}


def everything() -> list[tuple[str, str]]:
    """Library and name of each model."""
    return [(library, name) for library, models in LIBRARIES.items() for name in models.names()]


def swept(models: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, Result]]:
    """The models, tried one after the other; each process starts from this one, which has loaded the libraries."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    loaded = transformers.BertForSequenceClassification, transformers.LlamaForSequenceClassification
    assert all(loaded)
    for library, name in models:
        yield library, name, isolated(LIBRARIES[library].build, name)


def isolated(build: Callable[[str], Case], name: str) -> Result:
    """A trial in a process that is ended when its time is over."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=tried, args=(there, build, name))
    process.start()
    there.close()
    try:
        if here.poll(SECONDS):
            return here.recv()
        return Result(failures={"all": f"still running after {SECONDS} s"})
    except EOFError:
        process.join()
        return Result(failures={"all": f"the process ended with {process.exitcode}"})
    finally:
        process.kill()
        process.join()


def tried(there: Connection, build: Callable[[str], Case], name: str) -> None:
    warnings.simplefilter("ignore")
    there.send(trial(build, name))
