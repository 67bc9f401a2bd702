"""Without the libraries of an extra, what needs one names the command that installs it."""

import json
import pickle
import subprocess
import sys
from textwrap import dedent

import pytest

from captum_vit.errors import CaptumVitError, MissingLibraryError
from captum_vit.extras import extra

CALLS = {
    "timm": ("load_model('timm:test_vit')", "main(['doctor', '--model', 'timm:test_vit'])"),
    "hf": ("load_model('hf:here')", "main(['explain', 'a film', '--model', 'hf:here'])"),
    "demo": (
        "demo.demo_vit()", "demo.demo_bert()", "demo.demo_clip()", "demo.demo_bert_tokenizer()",
        "demo.demo_clip_tokenizer()", "demo.digit_scenes(1)", "demo.demo_swin()", "demo.demo_ast()",
        "demo.demo_ast_extractor()", "demo.demo_lm()", "demo.demo_lm_tokenizer()",
        "demo.demo_vlm()", "demo.demo_vlm_processor()", "demo.demo_parts()",
    ),
    "quantus": ("__import__('quantus_metrics')", "main(['demo'])", "main(['benchmark', 'spec.toml'])"),
}  # fmt: skip
BLOCKED = ("timm", "transformers", "sklearn", "quantus", "datasets", "safetensors", "torchvision", "open_clip")


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    """What each call answers in a process without the libraries."""
    script = f"""
        import contextlib, io, json, sys
        sys.modules.update(dict.fromkeys({BLOCKED}))
        import captum_vit
        from captum_vit import demo
        from captum_vit.cli import main
        from captum_vit.inputs.loading import load_model
        answers = {{}}
        for call in {[call for calls in CALLS.values() for call in calls]}:
            with contextlib.redirect_stderr(io.StringIO()) as said:
                try:
                    answers[call] = f"{{eval(call)}} {{said.getvalue()}}"
                except captum_vit.MissingLibraryError as error:
                    answers[call] = f"MissingLibraryError: {{error}}"
        print(json.dumps(answers))
    """
    done = subprocess.run([sys.executable, "-c", dedent(script)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "call"), [(name, call) for name, calls in CALLS.items() for call in calls])
def test_the_command_that_installs_it_is_named(answers: dict[str, str], name: str, call: str):
    """By an error, or by the command line on stderr, with status 2."""
    assert answers[call].startswith("2 captum-vit: " if call.startswith("main") else "MissingLibraryError")
    assert f'pip install "captum-vit[{name}]"' in answers[call]


def test_the_error_is_what_python_raises_too():
    with pytest.raises(MissingLibraryError, match="no_such_library") as caught, extra("timm"):
        import no_such_library.part  # noqa: F401
    assert isinstance(caught.value, CaptumVitError) and isinstance(caught.value, ModuleNotFoundError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)


def test_a_fault_of_our_own_is_not_blamed_on_an_extra():
    with pytest.raises(ModuleNotFoundError) as caught, extra("timm"):
        import captum_vit.no_such_file  # noqa: F401
    assert not isinstance(caught.value, MissingLibraryError)
