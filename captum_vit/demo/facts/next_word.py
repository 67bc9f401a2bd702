"""The word that goes on with a prompt, as classes: what metrics for texts can read."""

from __future__ import annotations

from torch import Tensor

from captum_vit.targets.scores import TargetModule


class NextWord(TargetModule):
    """Prompts (B, N) to the logits of the next word (B, V), one class for each word of the vocabulary.

    Prompts end in the last column: they are padded on the left. Costs the model's forward.

    Args:
        model: :func:`captum_vit.demo.demo_lm`, or another causal language model.

    Example::

        >>> found = stated_facts(4, seed=3)
        >>> ids = demo_lm_tokenizer()(found.prompts, return_tensors="pt")["input_ids"]
        >>> NextWord(demo_lm())(ids).shape
        torch.Size([4, 75])
    """

    raw_scores = False

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:  # shape: (B, V)
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, logits_to_keep=1)
        return output.logits[:, -1]
