"""Tiny models with dense outputs, random weights."""

import torch
import transformers as tf
from torch import nn

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def random_weights(model: nn.Module) -> nn.Module:
    """Weights under which every part has a say, without zeros."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return model.eval()


def segformer() -> nn.Module:
    config = tf.SegformerConfig(
        num_labels=4,
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 2, 2, 4],
        depths=[1] * 4,
        decoder_hidden_size=16,
    )
    return random_weights(tf.SegformerForSemanticSegmentation(config))


def dpt(head: type[nn.Module] = tf.DPTForSemanticSegmentation) -> nn.Module:
    config = tf.DPTConfig(
        **{**SMALL, "num_hidden_layers": 4},
        image_size=64,
        num_labels=4,
        is_hybrid=False,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8,
        use_auxiliary_head=False,
    )
    model = random_weights(head(config))
    if head is tf.DPTForDepthEstimation:  # whose last step is a ReLU: depths above 0 have a gradient
        with torch.no_grad():
            [m for m in model.modules() if isinstance(m, nn.Conv2d)][-1].bias.add_(20)
    return model


def yolos() -> nn.Module:
    config = tf.YolosConfig(image_size=[64, 64], num_detection_tokens=5, num_labels=3, **SMALL)
    return random_weights(tf.YolosForObjectDetection(config))


def detr() -> nn.Module:
    backbone = tf.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1] * 4,
        layer_type="basic",
        out_features=["stage4"],
    )
    config = tf.DetrConfig(
        backbone=None,
        use_timm_backbone=False,
        backbone_config=backbone,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=5,
        num_labels=3,
    )
    return random_weights(tf.DetrForObjectDetection(config))


def wav2vec2() -> nn.Module:
    config = tf.Wav2Vec2Config(
        **SMALL,
        vocab_size=6,
        conv_dim=[16] * 3,
        conv_stride=[5, 2, 2],
        conv_kernel=[10, 3, 3],
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    return random_weights(tf.Wav2Vec2ForCTC(config))


class VolumeViT(nn.Module):
    """A volume in patches of 4, through a transformer, back to a score for each voxel and class, as UNETR has them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv3d(1, 16, 4, 4)
        self.layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, norm_first=True)
        self.head = nn.ConvTranspose3d(16, 3, 4, 4)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:  # shape: (B, 1, d, h, w) -> (B, 3, d, h, w)
        x = self.embed(volume)
        return self.head(self.layer(x.flatten(2).mT).mT.reshape(x.shape))


def volumes() -> nn.Module:
    return random_weights(VolumeViT())
