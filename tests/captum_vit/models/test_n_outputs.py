"""How many classes a model has, without running it: right, or unknown."""

import pytest
import timm
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMultipleChoice,
    BertForSequenceClassification,
    CLIPConfig,
    CLIPModel,
    ViTConfig,
    ViTModel,
)

import captum_vit as cv
from captum_vit.models.library import n_outputs
from tests.models import redrawn

TINY = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture
def vit():
    return timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1, embed_dim=24, num_classes=5)


def test_the_head_is_read_and_not_the_configuration(vit):
    assert n_outputs(vit) == 5
    assert n_outputs(cv.logits_of(vit)) == 5
    vit.head = nn.Linear(24, 7)  # as people do, and num_classes stays 5
    assert n_outputs(vit) == 7 == vit(torch.randn(1, 3, 32, 32)).shape[1]


def test_hugging_face_and_torchvision():
    assert n_outputs(BertForSequenceClassification(BertConfig(**TINY, num_labels=3))) == 3
    torchvision = pytest.importorskip("torchvision.models")
    vit = torchvision.VisionTransformer(32, 8, 1, 2, 24, 48, num_classes=6)
    assert n_outputs(vit) == 6


def test_what_cannot_be_told_is_not_guessed(vit):
    assert n_outputs(nn.Linear(3, 4)) is None
    assert n_outputs(nn.Sequential(vit, nn.Linear(5, 2))) is None
    assert n_outputs(cv.Margin(vit, 0, 1)) is None
    assert n_outputs(ViTModel(ViTConfig(**TINY))) is None
    small = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    assert n_outputs(CLIPModel(CLIPConfig(text_config=small, vision_config=small))) is None


def test_choices_are_no_classes():
    """Its head has one output, and its answer one for every choice; of a choice alone every method has a map."""
    model = redrawn(BertForMultipleChoice(BertConfig(**TINY, vocab_size=60)))
    assert n_outputs(model) is None
    ids, mask = torch.randint(5, 60, (3, 4, 7)), torch.ones(3, 4, 7, dtype=torch.long)
    for make in cv.METHODS.values():
        with pytest.raises(cv.UnsupportedModelError, match="4 sequences for 1 samples") as refused:
            make(model).attribute(ids, target=2, additional_forward_args=(mask,))
        assert "ids[:, :1] and its masks, with target=0" in refused.value.hint
    alone = cv.GenAtt(model).attribute(ids[:, :1], target=0, additional_forward_args=(mask[:, :1],))
    assert alone.shape == (3, 7) and alone.any(1).all()
