"""Which words of a prompt made a word of the answer, by a small language model; any causal model of a hub does.

python examples/language_model.py [FILE]
"""

from __future__ import annotations

import sys

import captum_vit as cv
from captum_vit.demo import demo_lm

lm = demo_lm()  # AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-0.5B").eval()
prompt = "It is tart. It is huge. It is irate. It is ruby. Its taste is"

if __name__ == "__main__":
    explanation = cv.explain(lm, prompt, target="sour", foil="sweet")
    print(explanation)
    for word, relevance in explanation.words:
        print(f"{relevance:+6.2f}  {word}")
    explanation.save(sys.argv[1] if len(sys.argv) > 1 else "answer.png")
