"""A page for the browser: pick a model, drop a picture or type a review, and compare the maps of several methods.

    python examples/app.py [--host 127.0.0.1] [--port 7860]

It starts on the models that ship with the package, so that nothing is downloaded: digit scenes for a ViT, the same with
any text for a CLIP, reviews for a BERT, prompts for a language model, and questions about scenes for a vision-language
model. `timm:NAME` and `hf:PATH` take any other classifier, as in `captum-vit
explain`. What is typed is only ever looked up or read by a model, and all names are escaped before they are shown.
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from typing import Any

import app_answers
import gradio as gr
from app_answers import CAPTIONS, DIGITS, EMBEDDED, PROMPTED, explain, loaded, names_of, no, sheet
from PIL import Image

import captum_vit as cv
from captum_vit.demo import digit_scenes, generated_reviews
from captum_vit.errors import CaptumVitError
from captum_vit.inputs.prompts import generates
from captum_vit.models.library import is_text_model

AT_FIRST = ["PLUS(DecompX)", "VTranM", "GenAtt", "LayerCDAM", "RawAttention"]
STYLE = """
.scene img { image-rendering: pixelated; object-fit: contain; width: 100%; height: 100% }
.shelf .grid-wrap { min-height: 0 !important; height: auto; padding: 8px }
.shelf .grid-container { grid-template: auto / repeat(6, 1fr); grid-auto-rows: 0; gap: 8px; padding: 0 }
.shelf .thumbnail-item { width: 100%; height: auto; aspect-ratio: 1 }
"""
WELCOME = "Choose an input, what is to be explained, and methods; then press <b>Explain</b>."


@lru_cache(maxsize=1)
def scenes() -> list[tuple[Image.Image, list[int]]]:
    """Pictures, and the digits in each of them."""
    some = digit_scenes(6, n_digits=2, seed=14)
    pixels = (255 * some.pixels).round().byte().permute(0, 2, 3, 1).numpy()
    return list(zip(map(Image.fromarray, pixels), some.digits.tolist(), strict=True))


def fitted(name: str) -> tuple[Any, ...]:
    """The page for a model: what it reads, its targets, and the methods that do not work."""
    try:
        writes, words = generates(loaded(name)), is_text_model(loaded(name))
    except CaptumVitError as refusal:
        return *[gr.skip()] * 5, sheet([no(name, str(refusal))])
    reads = gr.Column(visible=not words), gr.Column(visible=words and not writes), gr.Column(visible=writes)
    prompt = gr.Textbox(PROMPTED.get(name, ""))
    return *reads, prompt, gr.Dropdown(choices=[] if writes else names_of(name), value=[]), WELCOME


def picked(name: str, event: gr.SelectData) -> tuple[Any, ...]:
    """A scene, and both its digits to be explained where the model has these classes."""
    picture, digits = scenes()[event.index]
    return picture, [names_of(name)[digit] for digit in digits] if name in (DIGITS, CAPTIONS) else gr.skip()


def page() -> gr.Blocks:
    reviews, names = generated_reviews(4, seed=3).texts, names_of(DIGITS)
    first, digits = scenes()[0]
    with gr.Blocks(title="captum-vit", analytics_enabled=False) as blocks:
        gr.Markdown("## captum-vit\nThe evidence for an output of a transformer, by several methods side by side.")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                free: dict[str, Any] = {"allow_custom_value": True}
                hint = "or any classifier: timm:vit_tiny_patch16_224, hf:PATH"
                name = gr.Dropdown(list(EMBEDDED), value=DIGITS, label="Model", info=hint, **free)
                with gr.Column() as pictures:
                    look: dict[str, Any] = {"label": "Picture", "height": 230, "elem_classes": "scene"}
                    picture = gr.Image(first, type="pil", image_mode=None, sources=["upload", "clipboard"], **look)
                    look = {"show_label": False, "allow_preview": False, "buttons": [], "elem_classes": "shelf"}
                    shelf = gr.Gallery([one for one, _ in scenes()], **look)
                with gr.Column(visible=False) as texts:
                    review = gr.Textbox(reviews[0], lines=4, label="Review")
                    gr.Examples([[text] for text in reviews], review, label="Examples")
                with gr.Column(visible=False) as prompts:
                    prompt = gr.Textbox("", lines=4, label="Prompt, or question about the picture")
                    foil = gr.Textbox("", label="Rather than", info="a word that was not generated, or nothing")
                hint = "classes; for the CLIP any text; a word of a generated answer. None: what the model predicts"
                both = [names[digit] for digit in digits]
                wanted = gr.Dropdown(names, value=both, multiselect=True, label="Explain", info=hint, **free)
                with gr.Accordion("Instead, a concept shown by pictures", open=False):
                    concept = gr.Files(file_types=["image"], show_label=False)
                methods = gr.Dropdown(list(cv.METHODS), value=AT_FIRST, multiselect=True, label="Methods")
                button = gr.Button("Explain", variant="primary")
            with gr.Column(scale=5, min_width=320):
                shown = gr.HTML(WELCOME)
        shelf.select(picked, name, [picture, wanted], api_visibility="private")
        name.change(fitted, name, [pictures, texts, prompts, prompt, wanted, shown], api_visibility="private")
        given = [name, picture, review, wanted, concept, methods, prompt, foil]
        button.click(explain, given, shown, api_name="explain")
    return blocks


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="who may open the page; default: this machine, %(default)s")
    parser.add_argument("--port", type=int, default=7860, help="default: %(default)s")
    args = parser.parse_args()
    theme = gr.themes.Default(primary_hue="orange", font=["system-ui", "sans-serif"], font_mono=["monospace"])
    look = {"theme": theme, "css": STYLE + app_answers.STYLE, "footer_links": ["settings"]}
    page().launch(server_name=args.host, server_port=args.port, share=False, ssr_mode=False, **look)
