"""The command line: files out, clean refusals, foreign commands loaded only when called."""

import sys
from argparse import Namespace
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

import captum_vit as cv
from captum_vit import cli
from captum_vit.demo import facts


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a picture and the weights of timm's smallest ViT; the current one."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (80, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    save_file(timm.create_model("test_vit").state_dict(), "weights.safetensors")
    return tmp_path


MODEL = ["--model", "timm:test_vit", "--checkpoint", "weights.safetensors"]


def refused(capsys: pytest.CaptureFixture, *argv: str) -> str:
    """What stderr says when a call is refused: a few lines, no traceback."""
    assert cli.main(argv) == cli.REFUSED
    said = capsys.readouterr().err
    assert said.startswith("captum-vit: ") and "Traceback" not in said
    return said


@pytest.mark.slow
def test_explain_writes_a_picture(here: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["explain", "photo.png", *MODEL, "--target", "tabby", "7", "--out", "map.png"]) == 0
    assert "tabby" in capsys.readouterr().out
    assert Image.open("map.png").size[0] > 200


@pytest.mark.slow
def test_explain_names_its_file(here: Path):
    assert cli.main(["explain", "photo.png", *MODEL, "--method", "PLUS(DecompX)"]) == 0
    assert Path("photo-PLUS-DecompX.png").is_file()


def test_an_existing_file_is_refused_before_the_model_is_loaded(here: Path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "load_model", None)
    Path("map.png").write_text("mine")
    assert "overwrite" in refused(capsys, "explain", "photo.png", *MODEL, "--out", "map.png")
    assert Path("map.png").read_text() == "mine"


def test_a_wrong_option_is_refused_before_the_model_is_loaded(here: Path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "load_model", None)
    assert "at least 0" in refused(capsys, "explain", "photo.png", *MODEL, "--method", "SmoothGrad(stdevs=-1)")


@pytest.mark.slow
def test_options_reach_the_method(here: Path):
    for method in ("SmoothGrad(nt_samples=2)", "PLUS(DecompX(rule='libra'), layers=[0])"):
        assert cli.main(["explain", "photo.png", *MODEL, "--target", "0", "--method", method, "--out", "map.npy"]) == 0
        assert np.load("map.npy").any()
        Path("map.npy").unlink()


def test_overwrite_replaces(here: Path):
    Path("map.npy").write_text("old")
    assert cli.main(["explain", "photo.png", *MODEL, "--target", "0", "--out", "map.npy", "--overwrite"]) == 0
    assert np.load("map.npy").shape == (1, 10, 10)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["none.png", *MODEL], "none.png"),
        (["weights.safetensors", *MODEL], "PIL"),
        (["photo.png", *MODEL, "--method", "LayerCDM"], "LayerCDAM"),
        (["photo.png", *MODEL, "--target", "tabbi"], "tabby"),
        (["photo.png", *MODEL, "--target", "5000"], "5000"),
        (["photo.png", *MODEL, "--out", "none/map.png"], "folder"),
        (["photo.png", *MODEL, "--out", "map.gif"], ".png"),
        (["photo.png", *MODEL, "--out", "map.html"], ".png"),
        (["photo.png", *MODEL, "--device", "toaster"], "device"),
        (["photo.png", "--model", "timm:test_vit", "--checkpoint", "none.pth"], "none.pth"),
        (["photo.png", "--model", "timm:test_vit", "--checkpoint", "photo.png"], "weights"),
        (["photo.png", "--model", "timm:test_vitt"], "test_vit"),
        (["photo.png", "--model", "test_vit"], "timm:NAME"),
        (["photo.png", "--model", "hf:none"], "save_pretrained"),
    ],
)
def test_what_is_asked_in_vain_is_said_in_a_few_lines(here: Path, capsys, argv: list[str], words: str):
    assert words in refused(capsys, "explain", *argv)


FACTS = ["--model", f"hf:{Path(facts.__file__).parent / 'weights'}"]


def test_a_word_of_a_language_model_is_explained(here: Path, capsys: pytest.CaptureFixture):
    prompt = "It is tart. " * 30 + "Its taste is"  # longer than a file's name may be
    assert cli.main(["explain", prompt, *FACTS, "--target", "sour", "--foil", "sweet", "--out", "a.html"]) == 0
    assert "sour rather than sweet" in capsys.readouterr().out and Path("a.html").is_file()


@pytest.mark.parametrize(("more", "words"), [([], "--question"), (["--question", ""], "a question that is ''")])
def test_a_picture_without_a_question_is_no_prompt(here: Path, capsys, more: list[str], words: str):
    assert cli.main(["explain", "photo.png", *FACTS, *more, "--out", "a.png"]) == cli.REFUSED
    assert words in capsys.readouterr().err and not Path("a.png").exists()


def test_doctor_prints_the_report(here: Path, capsys: pytest.CaptureFixture, monkeypatch):
    monkeypatch.setattr(cv, "doctor", lambda model: type(model).__name__, raising=False)
    assert cli.main(["doctor", *MODEL]) == 0
    assert capsys.readouterr().out == "VisionTransformer\n"


def test_methods_are_listed(capsys: pytest.CaptureFixture):
    assert cli.main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(cv.METHODS)
    assert cli.main(["methods", "SmoothGrad"]) == 0
    assert "stdevs" in capsys.readouterr().out.split()


@pytest.mark.parametrize("argv", [[], ["unknown"], ["explain", "photo.png"], ["--help"], ["explain", "--help"]])
def test_usage_is_argparses(capsys: pytest.CaptureFixture, argv: list[str]):
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == (0 if "--help" in argv else 2)
    assert "usage: captum-vit" in "".join(capsys.readouterr())


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch):
    def fail(args: Namespace) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_methods", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["methods"])


def add_greet(commands) -> None:
    """A command of another package."""
    command = commands.add_parser("greet")
    command.add_argument("name")
    command.set_defaults(run=lambda args: print(f"hello {args.name}"))


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two foreign commands: one that works, one that cannot be imported."""
    entries = [
        EntryPoint("greet", "greeting:add_greet", cli.GROUP),
        EntryPoint("lost", "no_such_package:add", cli.GROUP),
    ]
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry for entry in entries if entry.group == group])
    monkeypatch.setitem(sys.modules, "greeting", sys.modules[__name__] if __name__ in sys.modules else Namespace())
    monkeypatch.setattr(sys.modules["greeting"], "add_greet", add_greet, raising=False)


def test_a_foreign_command_runs(foreign: None, capsys: pytest.CaptureFixture):
    assert cli.main(["greet", "world"]) == 0
    assert capsys.readouterr().out == "hello world\n"


def test_foreign_commands_are_listed_without_being_loaded(foreign: None, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = capsys.readouterr().out
    assert "greet" in listed and "offered by no_such_package" in listed


def test_a_foreign_command_that_cannot_load_says_why(foreign: None):
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        cli.main(["lost"])


@pytest.mark.slow
def test_help_loads_no_model_library():
    """In a process of its own: what `captum-vit --help` imports."""
    import subprocess

    code = (
        "import sys; from captum_vit.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(sorted({'timm', 'transformers', 'quantus', 'open_clip'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
