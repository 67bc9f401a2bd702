"""The two architectures on which twins and package must agree: a pre-norm ViT and a post-norm BERT.

Both are tiny, in float64 and eval mode, and every weight is drawn anew: a freshly built model has zero biases and unit
LayerNorms, so that a method which forgets one of them would pass unseen.
"""

import math

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

DEPTH, WIDTH, HEADS, CLASSES = 3, 24, 3, 5


def reference_vit(seed: int = 0, layer_scale: bool = False) -> VisionTransformer:
    """A CLS-pooled pre-norm ViT: 32 pixels in patches of 8, so N = 1 + 16 tokens of width D = 24."""
    with torch.random.fork_rng(devices=[]):
        model = VisionTransformer(
            img_size=32,
            patch_size=8,
            embed_dim=WIDTH,
            depth=DEPTH,
            num_heads=HEADS,
            num_classes=CLASSES,
            init_values=1.0 if layer_scale else None,
        )
    return _redrawn(model, seed)


def reference_bert(seed: int = 0) -> BertForSequenceClassification:
    """A post-norm BERT with pooler and classifier: up to 16 tokens of width D = 24; token 0 is the padding."""
    config = BertConfig(
        vocab_size=40,
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=16,
        num_labels=CLASSES,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        model = BertForSequenceClassification(config)
    return _redrawn(model, seed)


def reference_images(n: int = 2, seed: int = 1) -> torch.Tensor:
    """Images (n, 3, 32, 32) for `reference_vit`."""
    return torch.randn(n, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def reference_sentences(lengths: tuple[int, ...] = (9, 6), seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """A padded batch for `reference_bert`: input_ids (n, T) and attention_mask (n, T), T the longest length."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(3, 40, (len(lengths), max(lengths)), generator=generator)
    attention_mask = torch.zeros_like(input_ids)
    for row, length in enumerate(lengths):
        input_ids[row, 0], input_ids[row, length - 1], input_ids[row, length:] = 1, 2, 0  # CLS ... SEP, padding
        attention_mask[row, :length] = 1
    return input_ids, attention_mask


def _redrawn(model: nn.Module, seed: int) -> nn.Module:
    """Every parameter from its own generator: the global random state is neither read nor moved."""
    generator = torch.Generator().manual_seed(seed)
    norms = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters(recurse=False)}
    for name, parameter in model.double().named_parameters():
        noise = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        if id(parameter) in norms:
            value = 0.3 * noise + (1.0 if name.endswith("weight") else 0.0)
        elif name.endswith("gamma"):  # LayerScale
            value = 0.7 + 0.3 * noise
        elif name.endswith("bias") or "embed" in name:
            value = 0.5 * noise
        else:
            value = 1.5 * noise / math.sqrt(parameter[0].numel())  # by the number of inputs
        parameter.data = value
    return model.eval()
