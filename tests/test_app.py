"""The page of examples/app.py: what it answers, and that it works in a browser."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captum_vit.demo import digit_scenes
from tests.chromium import Chromium, needs_browser

gradio_client = pytest.importorskip("gradio_client")

ROOT = Path(__file__).parents[1]
NASTY = "<script>document.title = 'broken into'</script>"
DIGITS, CAPTIONS, REVIEWS = "digit scenes: a ViT", "scenes and captions: a CLIP", "reviews: a BERT"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page is, started as a user would start it, in an empty folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("app")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "GRADIO_TEMP_DIR": str(folder)}
    command = [sys.executable, ROOT / "examples" / "app.py", "--port", str(port)]
    said = (folder / "said").open("w+")
    app = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=said, text=True)
    line = app.stdout.readline()  # its first line tells that it is there
    try:
        assert f"http://127.0.0.1:{port}" in line, line + Path(said.name).read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        app.terminate()
        app.wait(60)
        said.close()


@pytest.fixture(scope="module")
def client(address: str) -> Any:
    return gradio_client.Client(address, verbose=False)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A scene of a zero and a five, as a file that is sent."""
    pixels = digit_scenes(1, n_digits=2, seed=14).pixels[0]
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    Image.fromarray((255 * pixels).round().byte().permute(1, 2, 0).numpy()).save(path)
    return gradio_client.handle_file(path)


def ask(client: Any, *given: Any) -> str:
    return client.predict(*given, api_name="/explain")


def test_classes_by_several_methods(client: Any, scene: Any) -> None:
    page = ask(client, DIGITS, scene, "", ["zero", "5"], None, ["GenAtt", "LayerCDAM", "RawAttention"])
    assert page.count("data:image/png;base64,") == 3 * 2 and page.count(" ms</small>") == 3
    assert page.count("<figcaption>zero, p = ") == page.count("<figcaption>five, p = ") == 3


def test_pictures_are_read_as_everywhere(client: Any, tmp_path: Path) -> None:
    """Hidden pixels do not reach the model, and 16 bits are scaled; the page does not convert them before."""
    pixels = (255 * digit_scenes(1, n_digits=2, seed=14).pixels[0]).round().byte().permute(1, 2, 0).numpy()
    grey = pixels[..., 0]
    hidden = Image.fromarray(np.dstack([pixels, np.zeros_like(grey)]))
    twins = [(hidden, Image.new("RGB", hidden.size, "white"))]
    twins.append((Image.fromarray(grey.astype(np.uint16) * 257), Image.fromarray(grey)))
    for pair in twins:
        pages = []
        for place, image in enumerate(pair):
            image.save(path := tmp_path / f"{place}.png")
            pages.append(ask(client, DIGITS, gradio_client.handle_file(path), "", ["5"], None, ["GenAtt"]))
        one, two = (page.partition("data:image/png;base64,")[2].partition('"')[0] for page in pages)
        assert one == two != ""


def test_a_text_for_a_clip(client: Any, scene: Any) -> None:
    page = ask(client, CAPTIONS, scene, "", ["a zero", NASTY], None, ["VTranM"])
    assert page.count("data:image/png") == 2 and "a zero, " in page and "<script" not in page


def test_what_is_predicted_where_nothing_is_asked(client: Any, scene: Any) -> None:
    for model, names in ((DIGITS, ("zero", "five")), (CAPTIONS, ("a zero", "a five"))):
        page = ask(client, model, scene, "", [], None, ["GenAtt"])
        assert page.count("<figcaption>") == 1 and any(f"<figcaption>{name}, " in page for name in names)


def test_a_concept_by_pictures(client: Any, scene: Any) -> None:
    page = ask(client, DIGITS, scene, "", [], [scene, scene], ["LayerCDAM"])
    assert page.count("data:image/png") == 1 and "like your pictures" in page


def test_a_review(client: Any) -> None:
    page = ask(client, REVIEWS, None, f"The plot was charmless. {NASTY}", [], None, ["GenAtt", "VTranM"])
    assert page.count("charmless") >= 2 and "negative" in page and "<script" not in page


@pytest.mark.parametrize(
    ("model", "wanted", "said"),
    [
        (DIGITS, [NASTY], "One of the 10 class names."),
        (DIGITS, ["77"], "Got: "),
        ("timm:resnet18.nonsense", [], "refused"),
        (f"os:{NASTY}", [], "timm:NAME or hf:PATH"),
    ],
)
def test_what_is_refused_says_why_once(client: Any, scene: Any, model: str, wanted: list[str], said: str) -> None:
    page = ask(client, model, scene, "", wanted, None, ["GenAtt", "LayerCDAM"])
    assert said in page and "GenAtt, LayerCDAM" in page and page.count("<section>") == 1
    assert "data:image" not in page and "<script" not in page


def test_a_concept_is_refused_by_the_clip(client: Any, scene: Any) -> None:
    assert "shown by pictures" in ask(client, CAPTIONS, scene, "", [], [scene], ["GenAtt"])


def test_nothing_given_is_said(client: Any) -> None:
    assert "one of the examples" in ask(client, DIGITS, None, "", [], None, ["GenAtt"])
    assert "Choose a method" in ask(client, REVIEWS, None, "", [], None, [])


def press(label: str) -> str:
    return f"[...document.querySelectorAll('button')].find((b) => b.textContent.trim() === '{label}').click()"


def wait_and_explain(browser: Chromium) -> None:
    browser.wait_for("[...document.querySelectorAll('button')].some((b) => b.textContent.trim() === 'Explain')")
    browser.run(press("Explain"))
    browser.wait_for("[...document.querySelectorAll('.found img')].filter((i) => i.naturalWidth > 100).length >= 5")


@needs_browser
def test_it_works_in_a_browser_and_fits_a_phone(address: str) -> None:
    with Chromium(address) as browser:
        wait_and_explain(browser)
        assert browser.run("document.querySelectorAll('.found section').length") == 5
        browser.resize(390, 844)
        browser.wait_for("document.documentElement.scrollWidth <= window.innerWidth")
        elsewhere = "performance.getEntriesByType('resource').map((r) => r.name).filter((n) => !n.startsWith(origin))"
        assert browser.run(elsewhere) == []
        assert browser.errors() == []
