"""Which patches match a text, and which words match an image: a CLIP explained in both directions.

    python examples/clip_text_to_image.py [FILE]

The model is the small CLIP that ships with the package, trained on scenes of handwritten digits and their captions, so
that nothing is downloaded. All that follows is the same for a large one; from Hugging Face (CLIP, SigLIP):

    model = AutoModel.from_pretrained("openai/clip-vit-base-patch16").eval()
    tokenizer = AutoTokenizer.from_pretrained("openai/clip-vit-base-patch16")
    processor = AutoImageProcessor.from_pretrained("openai/clip-vit-base-patch16")
    images = processor(photos, return_tensors="pt").pixel_values

and of open_clip:

    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-16", pretrained="laion2b_s34b_b88k")
    model, tokenizer = model.eval(), open_clip.get_tokenizer("ViT-B-16")
    images = torch.stack([preprocess(photo) for photo in photos])
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image

import captum_vit as cv
from captum_vit import viz
from captum_vit.demo import demo_clip, demo_clip_tokenizer, digit_scenes

TEMPLATES = ["a photo of {}.", "a drawing of {}.", "there is {} here."]
METHODS = ["PLUS(DecompX)", "VTranM", "GenAtt", "LayerCDAM", "TokenGradCAM", "RawAttention"]


def main(out: Path) -> None:
    model, tokenizer = demo_clip(), demo_clip_tokenizer()
    scenes = digit_scenes(2, n_digits=2, seed=118)  # a two and an eight; a six and a four
    scene, other = scenes.images[:1], scenes.images[1:]

    # Which patches match a text? Each text is a target. Templates are averaged, as the authors of CLIP advise. A
    # contrast explains one text rather than another; evidence for both cancels.
    texts = cv.TextSimilarity.from_texts(model, tokenizer, ["an eight", "a two"], templates=TEMPLATES)
    rather = cv.TextSimilarity.from_texts(model, tokenizer, ["an eight"], contrast="a two", templates=TEMPLATES)
    asked = [(texts, 0), (texts, 1), (rather, 0)]
    columns = {
        name: torch.cat([cv.METHODS[name](similarity).attribute(scene, target=k) for similarity, k in asked])
        for name in METHODS
    }
    rows = [similarity.names[k].replace(" rather", "\nrather") for similarity, k in asked]
    patches = viz.panels(scenes.pixels[0], columns, rows=rows)

    # Which words match an image? Each image is a target, or each group of images; here, too, there may be a contrast.
    caption = "a photo of an eight and a four."
    images = cv.ImageSimilarity.from_images(model, {"the scene above": scene})
    rather = cv.ImageSimilarity.from_images(model, {"rather than a scene of a six and a four": scene}, contrast=other)
    found = [
        cv.explain(similarity, caption, [0], "PLUS(DecompX)", tokenizer=tokenizer, special=False)
        for similarity in (images, rather)
    ]
    relevance = torch.cat([one.maps for one in found])
    words = viz.text(found[0].tokens, relevance, rows=[one.labels[0] for one in found], special=False).figure()

    stacked(patches, words).save(out)
    for one in found:
        print(one)
    print(f"patches that match texts, words that match the scene: {out}")


def stacked(*figures: Figure) -> Image.Image:
    """Figures one below the other."""
    pictures = [picture(figure) for figure in figures]
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    depth = 0
    for one in pictures:
        sheet.paste(one, (0, depth))
        depth += one.height
    return sheet


def picture(figure: Figure) -> Image.Image:
    """What a figure looks like."""
    buffer = BytesIO()
    figure.savefig(buffer, dpi=110, bbox_inches="tight", pad_inches=0.08)
    return Image.open(buffer).convert("RGB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("clip.png"))
