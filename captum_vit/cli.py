"""The command line: ``captum-vit explain | doctor | methods``, and what other packages add to it.

A package offers a command ``NAME`` by an entry point of that name in the group ``captum_vit.commands``: a function of
argparse's subparsers that adds a parser ``NAME`` and sets its default ``run``, a function of the parsed arguments.
It is loaded only when the command is called.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from inspect import getdoc, isclass
from os.path import isfile
from pathlib import Path
from typing import Any

from torch import nn

import captum_vit as cv
from captum_vit.errors import CaptumVitError, InputError
from captum_vit.explain import explain, open_picture
from captum_vit.inputs.loading import device_named, load_model
from captum_vit.inputs.prompts import generates
from captum_vit.named_method import method_named, options_of
from captum_vit.viz.explanation import PICTURES, SUFFIXES
from captum_vit.viz.files import check_target

GROUP = "captum_vit.commands"
METHOD = "with options: 'SmoothGrad(stdevs=0.15)'; default: LayerCDAM; DecompX for a language model"
REFUSED = 2  # argparse's exit status for a call that is refused


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status.

    What this package refuses is printed in a few lines on stderr, with status 2. Any other error is a bug or another
    package's, and keeps its traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parser(arguments).parse_args(arguments)
        return args.run(args) or 0
    except CaptumVitError as error:
        print(f"captum-vit: {error}", file=sys.stderr)
        return REFUSED


def parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands; those of other packages are filled in only where ``arguments`` call them."""
    top = argparse.ArgumentParser(prog="captum-vit", description="Explain transformers.", allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"captum-vit {cv.__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_explain(commands)
    _add_doctor(commands)
    _add_methods(commands)
    called = next((word for word in arguments if not word.startswith("-")), None)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        _add_foreign(commands, entry, called)
    return top


def _add_foreign(commands: Any, entry: EntryPoint, called: str | None) -> None:
    if entry.name == called:
        entry.load()(commands)
    elif entry.name not in commands.choices:
        commands.add_parser(entry.name, help=f"offered by {entry.module}")


def _add_explain(commands: Any) -> None:
    about = "draw the evidence for a class in a picture or a text"
    command = commands.add_parser("explain", help=about, description=about)
    command.add_argument("image", metavar="IMAGE", help="a picture file; for text models, a text")
    _add_model(command)
    command.add_argument("--method", metavar="NAME", help=METHOD)
    command.add_argument("--question", metavar="TEXT", help="to a vision-language model, about the picture")
    command.add_argument("--answer", metavar="TEXT", help="of a language model; default: what it generates")
    command.add_argument("--foil", metavar="WORD", help="explain the target rather than this word")
    command.add_argument(
        "--target",
        nargs="+",
        metavar="K|NAME",
        help="classes, by number or name, or a word of the answer; default: what the model predicts",
    )
    command.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=f"{', '.join(SUFFIXES)}; default: named after IMAGE and method, here",
    )
    command.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    command.set_defaults(run=_explain)


def _add_doctor(commands: Any) -> None:
    about = "print what was found in a model, which identities hold on it, and which methods work"
    command = commands.add_parser("doctor", help=about, description=about)
    _add_model(command)
    command.set_defaults(run=_doctor)


def _add_methods(commands: Any) -> None:
    about = "list the methods, or the options of one"
    command = commands.add_parser("methods", help=about, description=about)
    command.add_argument("name", nargs="?", metavar="NAME", help="which method's options; default: all methods")
    command.set_defaults(run=_methods)


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", required=True, metavar="timm:NAME|hf:PATH", help="which model")
    command.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="weights for a timm model: safetensors or .pth"
    )
    command.add_argument("--device", default="cpu", help="where it runs; default: %(default)s")


def _explain(args: argparse.Namespace) -> None:
    """Everything that can be refused is refused before the model is loaded."""
    if args.method is not None:
        method_named(args.method)
    given = open_picture(args.image) if args.model.startswith("timm:") or args.question is not None else args.image
    text = args.model.startswith("hf:") and not isfile(args.image)
    name = re.sub(r"\W+", "-", f"{'text' if text else Path(args.image).stem}-{args.method or 'map'}").strip("-")
    kinds = SUFFIXES if text or args.question is not None else (*PICTURES, ".npy")
    path = check_target(args.out or f"{name}{'.html' if text else '.png'}", kinds, args.overwrite)
    model = _model(args)
    if generates(model) and args.question is None and isfile(args.image):
        hint = 'captum-vit explain IMAGE --question "What is this?", with a model that reads pictures.'
        raise InputError("A text, or a picture and a question.", f"{args.image!r}, a file", hint)
    target = " ".join(args.target) if args.target and generates(model) else args.target
    asked = given if args.question is None else (given, args.question)
    explanation = explain(model, asked, target, args.method, answer=args.answer, foil=args.foil)
    print(explanation)
    print(f"saved {explanation.save(path, overwrite=args.overwrite)}")


def _doctor(args: argparse.Namespace) -> None:
    print(cv.doctor(_model(args)))


def _methods(args: argparse.Namespace) -> None:
    if args.name is not None:
        print("\n".join(options_of(args.name)))
        return
    width = max(map(len, cv.METHODS))
    for name, factory in cv.METHODS.items():
        print(f"{name:{width}}  {_summary(factory)}".rstrip())


def _summary(factory: Callable[[nn.Module], Any]) -> str:
    """The first line of a class's documentation; that of a composition is empty."""
    return (getdoc(factory) or "").partition("\n")[0] if isclass(factory) else ""


def _model(args: argparse.Namespace) -> nn.Module:
    device = device_named(args.device)
    return load_model(args.model, checkpoint=args.checkpoint).to(device)
