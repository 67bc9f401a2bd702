"""Which patches of a picture and which words of a question made a word of the answer, by a small LLaVA.

python examples/image_question.py [FILE]
"""

from __future__ import annotations

import sys

from PIL import Image

import captum_vit as cv
from captum_vit.demo import demo_vlm, digit_questions

vlm = demo_vlm()  # AutoModelForImageTextToText.from_pretrained("llava-hf/llava-1.5-7b-hf").eval()
scene = (255 * digit_questions(1, seed=4).pixels[0]).round().byte().permute(1, 2, 0)
picture = Image.fromarray(scene.numpy())  # PIL.Image.open("street.jpg")

if __name__ == "__main__":
    explanation = cv.explain(vlm, (picture, "What digit is low?"), target="zero", foil="nine")
    print(explanation)
    explanation.save(sys.argv[1] if len(sys.argv) > 1 else "question.png")
