"""How many classes a model has, without running it: right, or unknown."""

import pytest
import timm
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, CLIPConfig, CLIPModel, ViTConfig, ViTModel

import captum_vit as cv
from captum_vit.models.naming import n_outputs

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
