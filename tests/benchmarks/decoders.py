"""What it costs to explain generated tokens: time as a ratio to one plain forward pass of prompt and answer.

    python -m tests.benchmarks.decoders [--width 384] [--depth 6] [--prompt 96] [--answer 8] [--slow]
    python -m tests.benchmarks.decoders --residuals

A Llama with random weights, one CPU thread, process time; for each row the median over pairs of (plain forward, row).
The last column is the cost of one explained token. With ``--slow`` Captum's LayerIntegratedGradients and its ablation
of every word of the prompt are there too, measured once. With ``--residuals`` the table of families in
docs/language-models.md is printed instead: by how much tokens and biases miss the score, or what refused.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import torch
import transformers as hf
from captum.attr import (
    FeatureAblation,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    LLMAttribution,
    LLMGradientAttribution,
    TextTokenInput,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn

import captum_vit as cv
from tests.benchmarks.cost import ratio
from tests.decoders.families import FAMILIES, IN_FLOAT32, decoder

STEPS = 50  # of integrated gradients, Captum's own default


def numbers(n: int = 4000) -> hf.PreTrainedTokenizerFast:
    """A tokenizer whose words are ids."""
    tokenizer = Tokenizer(WordLevel({str(i): i for i in range(n)}))
    tokenizer.pre_tokenizer = Whitespace()
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def llama(width: int, depth: int) -> nn.Module:
    """A language model of random weights."""
    sizes = {"hidden_size": width, "intermediate_size": 8 * width // 3, "num_hidden_layers": depth}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 4000, "bos_token_id": 1}
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(**sizes, **heads, eos_token_id=None)).eval()


def rows(model: nn.Module, ids: Tensor, n: int) -> dict[str, tuple[int, Callable[[Tensor], object]]]:
    """What is measured, by name, with the number of tokens that it explains."""
    answer, T = cv.Answer(model, n), ids.shape[1] - n
    decompx, full, gen_att = cv.DecompX(answer), cv.FullGrad(answer, rule="frozen"), cv.GenAtt(answer)
    span, gradient = cv.DecompX(answer.span()), captums(LLMGradientAttribution, LayerGradientXActivation, model)
    return {
        "DecompX, one token": (1, lambda x: decompx.attribute(x, target=T // 2)),
        "FullGrad(rule='frozen'), one token": (1, lambda x: full.attribute(x, target=T // 2)),
        "DecompX, the whole answer as one": (T, lambda x: span.attribute(x)),
        "DecompX, each token of the answer": (T, decompx.all_classes),
        "GenAtt, one token": (1, lambda x: gen_att.attribute(x, target=T // 2)),
        "Captum: gradient x activation, each token": (T, lambda x: gradient(x[:, :n], x[0, n:])),
    }


def slow_rows(model: nn.Module, ids: Tensor, n: int) -> dict[str, tuple[int, Callable[[Tensor], object]]]:
    """Those that take hundreds of passes, for one token."""
    integrated = captums(LLMGradientAttribution, LayerIntegratedGradients, model, n_steps=STEPS)
    ablation, ours = captums(LLMAttribution, FeatureAblation, model), cv.TokenAblation(cv.Answer(model, n))
    return {
        "TokenAblation, one token": (1, lambda x: ours.attribute(x, target=0)),
        "Captum: ablation, one token": (1, lambda x: ablation(x[:, :n], x[0, n : n + 1])),
        f"Captum: integrated gradients ({STEPS}), one token": (1, lambda x: integrated(x[:, :n], x[0, n : n + 1])),
    }


def captums(wrapper: type, method: type, model: nn.Module, **options: int) -> Callable[[Tensor, Tensor], object]:
    """Captum's attribution of a text, as a function of the ids of prompt and answer."""
    tokenizer = numbers()
    made = method(model) if method is FeatureAblation else method(model, model.get_input_embeddings())
    explainer = wrapper(made, tokenizer)

    def explain(prompt: Tensor, answer: Tensor) -> object:
        text = TextTokenInput(tokenizer.decode(prompt[0].tolist()), tokenizer)
        return explainer.attribute(text, target=answer, **options)

    return explain


def residuals(name: str) -> str:
    """A row of the table of families: by how much the sum misses the score under each rule, the worse of two texts."""
    model = decoder(name)
    ids = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(0))
    answer, cells = cv.Answer(model, 6), list[str]()
    with torch.no_grad():
        scores = answer(ids)[:, 1]
    for rule in ("frozen", "libra", "grad"):
        try:
            found = cv.FullGrad(answer, rule=rule).attribute(ids, target=1).sum(1)
            cells.append(f"{(found - scores).abs().max():.0e}")
        except cv.CaptumVitError as error:
            cells.append(f"refused: {error.got}" if rule == "frozen" else "refused")
    return f"| {name} | {scores.abs().max():.2f} | {' | '.join(cells)} | {'float32' if name in IN_FLOAT32 else ''} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"width": 384, "depth": 6, "prompt": 96, "answer": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("--residuals", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if options.residuals:
        print("\n".join(map(residuals, FAMILIES)))
        raise SystemExit
    lm = llama(options.width, options.depth)
    text = torch.randint(2, 4000, (1, options.prompt + options.answer))
    given = (lm, text, options.prompt)
    print(f"{'':50s} forwards  per token")
    for tables, repeats in ((rows(*given), 7), (slow_rows(*given) if options.slow else {}, 1)):
        for label, (tokens, explain) in tables.items():
            cost = ratio(lm, explain, text, repeats)
            print(f"{label:50s} {cost:8.2f} {cost / tokens:10.2f}", flush=True)
