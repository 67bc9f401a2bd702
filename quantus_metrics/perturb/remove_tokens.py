"""How tokens go away: not painted over, but taken out of the sequence, hidden, or replaced by another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.errors import InputError
from captum_vit.models.modules import module_of
from captum_vit.models.per_sample import of_samples
from captum_vit.options import boolean, integer
from captum_vit.trace.removal.without import Without
from captum_vit.trace.run.state import checked_inputs, undisturbed, without_inference_mode

from .remove import Answer, Model, Remover


class TokenRemover(Remover):
    """Takes patches out of a picture, or words out of a text, inside the model: true token masking.

    Nothing is put in their place. Positions were added before, so what is left stays where it was. Where
    nothing is gone, the answer is the model's own, bit for bit.

    ``gone`` must have one place for each patch of the model's grid, so maps of pixels are ranked by patch
    (``patch_size`` in `curves`), or one for each token id. CLS and other tokens that are no patch stay. In a
    text, the row of a word that the head itself reads (CLS, say) goes on when the word is gone, hidden from
    all others; padding counts as gone.

    Costs     one forward pass per call, and another one where some inputs lose nothing; pictures that lose
              different numbers of patches are run in one pass for each number.
    """

    way: str
    of_tokens = True

    def bind(self, model: Model, inputs: Tensor, args: tuple[Any, ...] = ()) -> Answer:
        """See `Remover.bind`; the model must be an ``nn.Module`` in evaluation mode, with one transformer inside.

        Raises:
            UnsupportedModelError: no such model; or, at the first answer, one that allows no removal of this kind.
            ModelStateError: the model is in training mode.
            InputError: inputs that are not finite; at an answer, ``gone`` of another size, or nothing left.
        """
        module = _module(model)
        with undisturbed(module):
            without = Without(
                module, checked_inputs(inputs, module), tuple(map(without_inference_mode, args)), self.way
            )

        def answer(rows: Tensor, gone: Tensor) -> Tensor:
            with undisturbed(module):
                return without(rows, gone)

        return answer

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class DropTokens(TokenRemover):
    """What is gone leaves the sequence before the first block, so what is left costs less. SkipPLUS's choice.

    Some models need whole sequences (relative distances, as in DeBERTa; a mean over words). So dropping is tried
    first, on one input that loses one half and then the other, against hiding the same tokens as `MaskKeys`
    does: where both agree, tokens are dropped, and where they do not, hidden. The trial costs three passes of
    one input, at the first answer after `bind`, and one pass of the batch where it is a text.

    Args:
        fallback: False raises an error where tokens cannot be dropped, in place of hiding them.
    """

    def __init__(self, *, fallback: bool = True) -> None:
        self.fallback = boolean("fallback", fallback)
        self.way = "auto" if fallback else "drop"

    def __repr__(self) -> str:
        return f"DropTokens(fallback={self.fallback})"


class MaskKeys(TokenRemover):
    """What is gone has no share in any attention, and is not pooled: the same function of what is left as
    `DropTokens`, at the full price, for models that need whole sequences.
    """

    way = "mask"


class ReplaceTokens(Remover):
    """Words of a text replaced by another, such as the mask token.

    Args:
        token_id: what replaces them; ``tokenizer.mask_token_id``, for instance.
    """

    def __init__(self, token_id: int) -> None:
        self.token_id = integer("token_id", token_id, least=0, hint="token_id=tokenizer.mask_token_id.")

    def bind(self, model: Model, inputs: Tensor, args: tuple[Any, ...] = ()) -> Answer:
        """See `Remover.bind`.

        Raises:
            InputError: inputs that are no token ids.
        """
        if inputs.dim() != 2 or inputs.is_floating_point():
            raise InputError(
                "Token ids (B, T).", f"{inputs.dtype} of shape {tuple(inputs.shape)}", "a picture remover."
            )

        def answer(rows: Tensor, gone: Tensor) -> Any:
            return model(inputs[rows].masked_fill(gone, self.token_id), *of_samples(args, len(inputs), rows))

        return answer

    def __repr__(self) -> str:
        return f"ReplaceTokens({self.token_id})"


def _module(model: Any) -> nn.Module:
    """The module that the model is, or whose forward; tokens are taken out inside it."""
    return module_of(model)


def removable_words(
    ids: Tensor,  # shape: (B, T)
    attention_mask: Tensor | None = None,  # shape: (B, T), 0 at padding
    special_ids: tuple[int, ...] = (),
) -> Tensor:  # shape: (B, T) bool
    """Which words may leave: no padding, and no special tokens, if they are named.

    Args:
        special_ids: tokens that stay; ``tokenizer.all_special_ids`` keeps CLS, SEP and the like.
    """
    if attention_mask is not None and attention_mask.shape != ids.shape:
        got = f"shape {tuple(attention_mask.shape)}"
        hint = "the mask that the tokenizer gave with these ids."
        raise InputError(f"An attention mask of the ids' shape {tuple(ids.shape)}.", got, hint)
    real = torch.ones_like(ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    return real & ~torch.isin(ids, torch.tensor(special_ids, dtype=ids.dtype, device=ids.device))
