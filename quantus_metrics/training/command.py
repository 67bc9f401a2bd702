"""The command: check everything that can be checked, train, measure what was stored, and write its card."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from captum_vit.errors import InputError
from captum_vit.inputs.loading import device_named, load_model
from captum_vit.options import shown
from captum_vit.viz.files import check_target, write_whole
from quantus_metrics.benchmark.data import Samples, data_digest
from quantus_metrics.benchmark.factories import make_data
from quantus_metrics.benchmark.origin import weights_digest
from quantus_metrics.training.card import card
from quantus_metrics.training.head_spec import read_head_spec
from quantus_metrics.training.pictures import Pictures, divided, read_pictures
from quantus_metrics.training.run import Training, accuracy, give_head, model_of


def train_head(commands: Any) -> None:
    """Add ``captum-vit train-head``."""
    about = "train a linear head on a frozen backbone, or fine-tune all of it, from a TOML file"
    command = commands.add_parser("train-head", help=about, description=f"{about}. Stopped, it goes on where it was.")
    add = command.add_argument
    add("spec", type=Path, help="a TOML file; examples/heads holds those of the papers")
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="a .safetensors file; default: named after SPEC, here; a card beside it",
    )
    add("--device", default="cpu", help="where it runs; default: %(default)s")
    add("--workers", type=int, default=0, help="processes that read pictures; default: %(default)s")
    add("--overwrite", action="store_true", help="replace FILE, and an unfinished run of another spec")
    command.set_defaults(run=main)


def main(args: argparse.Namespace) -> None:
    """Train what the spec says; the weights and their card are written at the end, in one move each."""
    spec = read_head_spec(args.spec)
    out = check_target(args.out or f"{args.spec.stem}.safetensors", (".safetensors",), args.overwrite)
    page = check_target(out.with_suffix(".md"), (".md",), args.overwrite)
    device, data, model = device_named(args.device), make_data(spec.data), model_of(spec)
    digest = data_digest(data)
    if isinstance(spec.held_out, float):
        training, held_out = divided(read_pictures(data, args.workers), spec.held_out, spec.seed)
    else:
        other = make_data(spec.held_out)
        _refuse_other_classes(data, other)
        if data_digest(other) == digest:
            raise InputError(
                "Other pictures to hold out.", "the training data itself", "held_out = 0.1, a share of it."
            )
        training, held_out = (read_pictures(each, args.workers) for each in (data, other))
    classes = _classes_of(training, held_out)
    give_head(model, classes, spec.seed)
    facts = {"spec": spec.hash, "data": digest, "weights": weights_digest(model)}
    folder = _folder_of_run(out, facts, args.overwrite)
    model.to(device)
    Training(spec, model, training, folder, args.workers).run()

    draft = folder / "weights.safetensors"
    save_file({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, draft)
    stored = load_model(spec.load, checkpoint=draft).to(device)
    found = accuracy(stored, held_out, spec.batch_size, args.workers)
    draft.replace(out)
    text = card(spec, str(out), classes, (training, held_out), found, digest)
    write_whole(page, lambda path: path.write_text(text, "utf-8", "backslashreplace"))
    shutil.rmtree(folder)
    print(f"held-out accuracy {found:.2%} on {len(held_out.places)} pictures; saved {out} and {page}")


def _refuse_other_classes(data: Samples, other: Samples) -> None:
    """Where both know their classes, these are the same: else numbers would mean different things."""
    ours, theirs = (getattr(each, "classes", None) for each in (data, other))
    if ours is not None and theirs is not None and ours != theirs:
        got = f"{shown(theirs)} held out, {shown(ours)} to train on"
        raise InputError("The same classes to train on and held out.", got, "held_out with folders of the same names.")


def _classes_of(training: Pictures, held_out: Pictures) -> int:
    """How many there are.

    Raises:
        InputError: fewer than two, one without a picture, or a held-out one that is not trained.
    """
    present = training.labels.unique().tolist()
    n = max(present, default=0) + 1
    if n < 2 or len(present) < n:
        got = f"pictures of {len(present)} of {n} classes in the training data"
        raise InputError("Pictures that can be read of every class, two classes at least.", got, "more pictures.")
    if not held_out.places or int(held_out.labels.max()) >= n:
        got = f"class {held_out.labels.max()}" if held_out.places else "no picture that can be read"
        raise InputError(f"Held-out pictures of the {n} classes that are trained.", got, "other held-out data.")
    return n


def _folder_of_run(out: Path, facts: dict[str, str], overwrite: bool) -> Path:
    """Where the state of the run is kept, beside the weights.

    Raises:
        InputError: there is an unfinished run of another spec, other data or other weights.
    """
    folder, wanted = out.with_suffix(".run"), "No unfinished run, or one of this very spec, data and model."
    path = folder / "run.json"
    if folder.exists() and not path.is_file():
        raise InputError(wanted, f"{str(folder)!r}, which is something else", "another --out.")
    if folder.exists() and json.loads(path.read_text()) != facts:
        if not overwrite:
            got = f"{str(folder)!r}, of another spec, other data or other weights"
            hint = "the old ones, to go on; --overwrite, to begin anew; or another --out."
            raise InputError(wanted, got, hint)
        shutil.rmtree(folder)
    if not folder.exists():
        folder.mkdir()
        write_whole(path, lambda draft: draft.write_text(json.dumps(facts)))
    return folder
