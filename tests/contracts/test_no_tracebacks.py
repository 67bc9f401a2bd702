"""Models that nobody described for us: every method gives a map, or refuses the model by name."""

import copy
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from timm.models.vision_transformer import Block
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.errors import CaptumVitError
from captum_vit.inputs.images import image_tensor
from tests.contracts.closeness import assert_close
from tests.models import OF_TOKENS, image, redrawn, timm_vit
from tests.models.timm import TIMM

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48, "num_labels": 5}
WORDS = {"vocab_size": 60, "pad_token_id": 0, "max_position_embeddings": 32}
DECODERS = ("Llama", "Qwen2", "Mistral", "Gemma", "GPTNeoX")


@cache
def text_model(family: str) -> nn.Module:
    sizes = SIZES | WORDS
    if family in DECODERS:
        sizes |= {"num_key_value_heads": 3, "head_dim": 8}
    if family == "OPT":
        sizes |= {"ffn_dim": 48, "word_embed_proj_dim": 24}
    config = getattr(transformers, f"{family}Config")(**sizes)
    return redrawn(getattr(transformers, f"{family}ForSequenceClassification")(config)).double()


def texts() -> tuple[Tensor, Tensor]:
    """Two texts, the second one shorter."""
    ids = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 0, 0]])
    return ids, (ids != 0).long()


def explained(method: str, model: nn.Module, *inputs: Any, target: Any) -> Tensor:
    args = inputs[1:] or None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cv.METHODS[method](model).attribute(inputs[0], target=target, additional_forward_args=args)


# -- decoders, and blocks that return more than their tokens -------------------------------------------------------


@pytest.mark.parametrize("family", DECODERS)
def test_a_word_is_taken_from_a_decoder(family: str):
    """By its attention mask, however the model hands that on."""
    model, (ids, mask) = text_model(family), texts()
    found = explained("TokenAblation", model, ids, mask, target=2)
    with torch.no_grad():
        whole = model(ids, mask).logits.softmax(-1)[:, 2]
        without = mask.clone()
        without[:, 1] = 0
        gone = model(ids, without).logits.softmax(-1)[:, 2]
    assert_close(found[:, 1], whole - gone, "float64")
    assert not found[1, 4:].any()


def test_what_a_block_returns_is_seen():
    """MPNet's blocks return tuples; its head reads the first token."""
    model, (ids, mask) = text_model("MPNet"), texts()
    method = cv.PredictionMap(model, score="logit")
    with torch.no_grad():
        tokens = model.mpnet(ids, mask).last_hidden_state
        wanted = model.classifier(tokens.flatten(0, 1).unsqueeze(1)).unflatten(0, tokens.shape[:2])
    found = method.attribute(ids, target=3, additional_forward_args=mask)
    assert_close(found, wanted[..., 3] * mask, "float64")


@pytest.mark.parametrize("family", ["Llama", "MPNet", "OPT"])
def test_every_method_explains_a_text_model(method: str, family: str):
    model, (ids, mask) = text_model(family), texts()
    found = explained(method, model, ids, mask, target=2)
    assert found.shape == ids.shape
    assert found.isfinite().all()


def test_samples_that_a_block_lays_end_to_end_keep_their_own():
    """OPT's feed-forward reads the tokens of all samples in one row."""
    model, (ids, _) = text_model("OPT"), texts()
    ids = ids.clamp_min(3)
    together = explained("ALTI", model, ids, target=2)
    for i in range(2):
        assert_close(together[i : i + 1], explained("ALTI", model, ids[i : i + 1], target=2), "float64")


def test_a_projection_of_more_than_the_heads_is_refused():
    """ConvBERT's reads convolutions beside them."""
    config = transformers.ConvBertConfig(**SIZES | WORDS, embedding_size=24)
    model, (ids, mask) = redrawn(transformers.ConvBertForSequenceClassification(config)), texts()
    for method in ("VTranM", "AttIN", "GlobEnc", "ALTI", "PLUS(ALTI)"):
        with pytest.raises(cv.UnsupportedModelError, match="1 places attend to 9, with a stream of 6 tokens"):
            explained(method, model, ids, mask, target=2)


# -- blocks that do not keep their tokens, and features instead of scores ------------------------------------------


class Merging(Block):
    """A block that merges its tokens by pairs."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        x = super().forward(x, *args, **kwargs)
        return torch.cat([x[:, :1], (x[:, 1::2] + x[:, 2::2]) / 2], 1)


def merged() -> nn.Module:
    return redrawn(timm_vit(**TIMM, block_fn=Merging))


def restored() -> nn.Module:
    """Merged by one block, and doubled by the next."""
    model = redrawn(timm_vit(**TIMM))
    model.blocks[0].__class__ = Merging
    forward = model.blocks[1].forward
    model.blocks[1].forward = lambda x, **kwargs: torch.cat([(y := forward(x))[:, :1], y[:, 1:], y[:, 1:]], 1)
    return model


def queries() -> nn.Module:
    sizes = SIZES | {"num_hidden_layers": 3, "image_size": 32, "patch_size": 8, "num_blocks": 1, "num_queries": 4}
    return redrawn(transformers.EomtForUniversalSegmentation(transformers.EomtConfig(**sizes, num_upscale_blocks=1)))


def windows() -> nn.Module:
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "mlp_dim": 48, "image_size": 32}
    config = transformers.SamVisionConfig(
        **sizes, patch_size=8, output_channels=8, window_size=2, global_attn_indexes=[1], num_pos_feats=4
    )
    return redrawn(transformers.SamVisionModel(config))


def features() -> nn.Module:
    sizes = {name: value for name, value in TIMM.items() if name != "num_classes"}
    return timm.create_model("vit_tiny_patch16_224", features_only=True, **sizes).eval()


@cache
def once(build: Callable[[], nn.Module]) -> nn.Module:
    """One model for all methods: what is found in it is found once."""
    return build()


@pytest.mark.parametrize("build", [queries, features])
def test_every_method_refuses_by_name(method: str, build: Callable[[], nn.Module]):
    with pytest.raises(CaptumVitError):
        explained(method, once(build), image(), target=(1, 2, 3) if build is queries else 1)


@pytest.mark.parametrize("build", [merged, windows])
def test_methods_that_follow_attention_refuse_by_name(method: str, build: Callable[[], nn.Module]):
    """Methods that need only tokens and gradients are right there, on the grid that the tokens have."""
    target = (1, 2, 3) if build is windows else 1
    if method in OF_TOKENS:
        found = explained(method, once(build), image(), target=target)
        assert found.isfinite().all() and found.any() and found.shape[-2] == 4
        return
    with pytest.raises(CaptumVitError):
        explained(method, once(build), image(), target=target)


class ByContent(Block):
    """A block that sorts its tokens by their length."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        x = super().forward(x, *args, **kwargs)
        order = x[:, 1:].norm(dim=-1).argsort(1).unsqueeze(-1).expand(-1, -1, x.shape[-1])
        return torch.cat([x[:, :1], x[:, 1:].gather(1, order)], 1)


def test_behind_tokens_that_are_sorted_by_content_no_method_makes_a_map():
    model = redrawn(timm_vit(**TIMM, block_fn=ByContent))
    for name in ("LayerCDAM", "SkipPLUS(DecompX)", "CAT", "PLUS(DecompX)"):
        with pytest.raises(cv.UnsupportedModelError, match="order that does not depend on the picture"):
            explained(name, model, image(), target=1)
    with pytest.raises(cv.UnsupportedModelError, match="put in anew"):
        explained("GenAtt", model, image(), target=1)
    assert explained("DecompX", model, image(), target=1).any()  # in front of them


def test_tokens_of_which_two_stand_for_one_place_have_no_map():
    model = restored()
    for name in ("CAT", "PLUS(DecompX)"):
        with pytest.raises(cv.UnsupportedModelError, match="16 tokens that read 8 places"):
            explained(name, model, image(), target=1)
    with pytest.raises(cv.UnsupportedModelError, match="with 2 transformers"):
        explained("GenAtt", model, image(), target=1)


def test_merged_tokens_are_counted():
    with pytest.raises(cv.UnsupportedModelError, match="changes its size on the way") as refused:
        cv.GenAtt(merged()).attribute(image(), target=1)
    assert "(1, 17, 24), 1 blocks on a stream of (1, 9, 24)" in refused.value.got


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_tokens_that_are_merged_behind_the_last_block_are_explained(method: str, pool: str):
    """What follows the last feed-forward belongs to the head: means of pairs have the mean of the patches."""
    plain = redrawn(timm_vit(**TIMM | {"global_pool": pool}))
    model = copy.deepcopy(plain)
    model.blocks[-1].__class__ = Merging
    one_token = method in ("PredictionMap", "PredicAtt") and pool == "avg"  # makes no pair
    if one_token or method == "TokenAblation":  # nor does an odd number of them
        with pytest.raises(cv.UnsupportedModelError, match="NaN" if one_token else "fewer tokens: RuntimeError"):
            explained(method, model, image(), target=1)
        return
    torch.manual_seed(0)
    found = explained(method, model, image(), target=1)
    torch.manual_seed(0)
    wanted = explained(method, plain, image(), target=1)
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


# -- pictures for a model of timm inside one of Hugging Face -------------------------------------------------------


def test_a_picture_for_a_model_of_timm_inside_one_of_hugging_face():
    """It is read as the stored configuration of timm says, by either library's processor."""
    inner = {name: value for name, value in TIMM.items() if name != "num_classes"}
    config = transformers.TimmWrapperConfig(architecture="vit_tiny_patch16_224", num_labels=5, model_args=inner)
    model = redrawn(transformers.TimmWrapperForImageClassification(config))
    picture = Image.fromarray(np.arange(60 * 50 * 3, dtype=np.uint8).reshape(60, 50, 3))
    processor = transformers.TimmWrapperImageProcessor(model.timm_model.pretrained_cfg | {"input_size": (3, 32, 32)})
    wanted = processor(picture)["pixel_values"]
    assert torch.equal(image_tensor(model, picture), wanted)
    assert torch.equal(image_tensor(model, picture, processor), wanted)
    assert cv.explain(model, picture, 1).map.shape == (4, 4)

    config.pretrained_cfg = model.timm_model.pretrained_cfg | {"mean": (0.1, 0.2, 0.3)}  # as a checkpoint has it
    assert not torch.equal(image_tensor(model, picture), wanted)
