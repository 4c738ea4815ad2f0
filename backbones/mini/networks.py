"""The six mini networks: architectures from timm classes, what a card must know of each, and the shipped weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from timm.layers.hybrid_embed import HybridEmbed
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem
from torch import nn

from .grounds import COLOUR_NAMES, FAMILIES
from .scenes import NUMBERS

WEIGHTS = Path(__file__).parent / "weights"
WIDTH = 128  # of the ResNet's last maps
MEAN = STD = (0.5, 0.5, 0.5)
FRAME_WORDS = ("a", "and", "is", "large", "of", "on", "over", "photo", "picture", "small", "there")
# Exactly the words of the single-digit captions: a word never trained on would only add noise to a prompt.
VOCABULARY = tuple(sorted({*NUMBERS, *FRAME_WORDS, *COLOUR_NAMES, *FAMILIES}))


def resnet() -> ResNet:
    """A narrow ResNet (arXiv 1512.03385): (B, 3, H, W) to (B, 128); strides 4, 8, 16, 32, channels 24, 48, 96, 128."""
    return ResNet(
        block=BasicBlock,  # pyright: ignore[reportArgumentType]  # a class, whatever its annotation says
        layers=(1, 1, 1, 1),
        channels=(24, 48, 96, WIDTH),
        stem_type="deep",
        stem_width=12,
        num_classes=0,
        zero_init_last=False,  # with it, the residual branches of the untrained network would be silent
    )


def vit() -> VisionTransformer:
    """A small ViT (arXiv 2010.11929): (B, 3, H, W) to (B, 96), the mean of normalised tokens; stride 8.

    Patches are embedded by a few small convolutions (Xiao et al., arXiv 2106.14881), which learn much faster.
    """
    return VisionTransformer(
        img_size=64,
        embed_layer=partial(HybridEmbed, backbone=ConvStem(depth=2, channels=(16, 32), stride=(2, 2))),
        patch_size=2,  # of the stem's maps
        embed_dim=96,
        depth=5,
        num_heads=3,
        mlp_ratio=3,
        class_token=False,
        global_pool="avg",
        fc_norm=False,  # normalise tokens, then average: feature maps and embedding then live in one space
        num_classes=0,
        dynamic_img_size=True,
        weight_init="jax",  # the default's 0.02 is meant for far wider networks
    )


class TextTower(nn.Module):
    """Sentences to (N, D): words of VOCABULARY through one transformer layer, averaged; other words are ignored."""

    def __init__(self, dim: int = 96, width: int = 48, longest: int = 48):
        super().__init__()
        self.longest = longest
        self.index = {word: i + 1 for i, word in enumerate(VOCABULARY)}  # 0 pads
        self.words = nn.Embedding(len(VOCABULARY) + 1, width)
        self.places = nn.Parameter(torch.randn(longest, width) * 0.02)
        self.layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, dim)

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        """Word numbers (N, L), padded with 0; a sentence with no known word keeps one pad."""
        rows = [[self.index[w] for w in text.lower().split() if w in self.index][: self.longest] for text in texts]
        tokens = torch.zeros(len(rows), max(1, *map(len, rows)), dtype=torch.long)
        for row, line in zip(tokens, rows, strict=True):
            row[: len(line)] = torch.tensor(line, dtype=torch.long)
        return tokens

    def forward(self, texts: list[str]) -> torch.Tensor:
        return self.embed(self.tokenize(texts).to(self.places.device))

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, D) of word numbers (N, L)."""
        empty = tokens == 0
        empty[:, 0] = False  # attention over nothing would be NaN
        x = self.words(tokens) + self.places[: tokens.shape[1]]
        x = self.norm(self.layer(x, src_key_padding_mask=empty))
        seen = (~empty).to(x.dtype).unsqueeze(-1)
        return self.proj((x * seen).sum(1) / seen.sum(1))


class DualTower(nn.Module):
    """An image and a text tower with one embedding space (CLIP, arXiv 2103.00020); embeddings are not normalised."""

    def __init__(self, dim: int = 96):
        super().__init__()
        self.image = resnet()
        self.image_proj = nn.Linear(WIDTH, dim, bias=False)
        self.text = TextTower(dim)

    def encode_image(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) normalised pixels to (N, D)."""
        return self.image_proj(self.image(x))

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        """N sentences to (N, D)."""
        return self.text(texts)

    forward = encode_image


@dataclass(frozen=True)
class Spec:
    """What a backbone card says of a mini network."""

    make: Callable[[], nn.Module]
    family: str  # cnn | vit
    method: str  # supervised | self-supervised | vision-language | random
    objective: str  # the pretraining objective in a word or two
    seed: int
    pool: str = "mean"  # how maps become the embedding: both families average over places
    size: int = 64
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    interpolation: str = "bicubic"
    data: str = "digit-scenes (pretraining split)"


SPECS: dict[str, Spec] = {
    "cnn-supervised": Spec(resnet, "cnn", "supervised", "cross-entropy", 1),
    "vit-supervised": Spec(vit, "vit", "supervised", "cross-entropy", 2),
    "vit-contrastive": Spec(vit, "vit", "self-supervised", "InfoNCE", 3),
    "vit-masked": Spec(vit, "vit", "self-supervised", "masked autoencoding and InfoNCE", 4),
    "cnn-image-text": Spec(DualTower, "cnn", "vision-language", "image-text InfoNCE", 5),
    "cnn-random": Spec(resnet, "cnn", "random", "none", 6, data="none"),
}


def spec(name: str) -> Spec:
    """The Spec called `name`; an unknown name raises ValueError listing the six."""
    if name not in SPECS:
        raise ValueError(f"unknown mini backbone {name!r}; one of {', '.join(SPECS)}")
    return SPECS[name]


def build(name: str) -> nn.Module:
    """The untrained network, initialised from its own seed; the global random state stays as it was."""
    chosen = spec(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(chosen.seed)
        return chosen.make()


def load(name: str) -> nn.Module:
    """The network with its shipped weights, in float32 and eval mode."""
    network = build(name)
    weights = load_file(WEIGHTS / f"{name}.safetensors")
    network.load_state_dict({key: value.float() for key, value in weights.items()})
    return network.eval()
