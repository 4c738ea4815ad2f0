"""What each mini network learns from: how a batch is drawn and the loss on it. The heads here are thrown away after."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from .grounds import LUMA
from .networks import MEAN, STD, DualTower
from .scenes import NUMBERS, DigitPool, Scenes, compose


def pixels(scenes: Scenes) -> torch.Tensor:
    """Scenes as the networks see them: float32 (N, 3, S, S), normalised with MEAN and STD."""
    images = torch.from_numpy(scenes.images).permute(0, 3, 1, 2).float().div_(255)
    return images.sub_(torch.tensor(MEAN).view(3, 1, 1)).div_(torch.tensor(STD).view(3, 1, 1))


class Objective(nn.Module):
    """What a step sees, `views` times `batch` single-digit scenes drawn from its number; a subclass gives the loss."""

    network: Any
    batch = 64
    views = 1

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def draw(self, pool: DigitPool, seed: int, step: int) -> list[Scenes]:
        """`views` lists of scenes that show the same handwritten digits, no two alike within a view."""
        rng = np.random.Generator(np.random.PCG64([seed, step]))
        shown = rng.permutation(len(pool.ids))[: self.batch]
        seeds = rng.integers(2**32, size=self.views)
        return [compose(pool, len(shown), seed=int(s), samples=shown) for s in seeds]

    def loss(self, views: list[Scenes]) -> torch.Tensor:
        """The scalar to be made small."""
        raise NotImplementedError


class Supervised(Objective):
    """Cross-entropy on the ten digit classes."""

    def __init__(self, network: nn.Module):
        super().__init__(network)
        self.head = nn.Linear(self.network.num_features, 10)

    def loss(self, views: list[Scenes]) -> torch.Tensor:
        (scenes,) = views
        logits = self.head(self.network(pixels(scenes)))
        return F.cross_entropy(logits.float(), torch.from_numpy(scenes.labels[:, 0]), label_smoothing=0.1)


def info_nce(a: torch.Tensor, b: torch.Tensor, temperature: float) -> torch.Tensor:
    """Each row of a (N, D) must find its own partner among all rows of b, and the other way round."""
    logits = F.normalize(a.float(), dim=1) @ F.normalize(b.float(), dim=1).T / temperature
    partner = torch.arange(len(a))
    return (F.cross_entropy(logits, partner) + F.cross_entropy(logits.T, partner)) / 2


class Contrastive(Objective):
    """InfoNCE with SimCLR's projection head (arXiv 2002.05709).

    The two views are one handwritten digit composed into two unrelated scenes. That is a stronger hint than two crops
    of one image: the composition says what stays (the handwriting) and what varies (colour, ground, place, slant).
    """

    batch = 128
    views = 2

    def __init__(self, network: nn.Module):
        super().__init__(network)
        width = self.network.num_features
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 64))

    def loss(self, views: list[Scenes]) -> torch.Tensor:
        a, b = self.head(self.network(torch.cat([pixels(v) for v in views]))).chunk(2)
        return info_nce(a, b, 0.1)


class Masked(Objective):
    """Masked autoencoding (arXiv 2111.06377) beside InfoNCE, as in CAN (arXiv 2210.16870).

    Half of a scene's patches are hidden and rebuilt from the rest. Alone, that left the mean of the tokens, which is
    what others use, with little but texture; so the mean over the visible patches must also find the other scene of the
    same handwritten digit, seen whole. Targets are luminance in units of the image's own spread: colour is drawn at
    random, so that predicting it teaches nothing, and normalising each patch would lose where the strokes are. The stem
    sees 11 px around an 8 px patch, so that a visible patch knows the rim of a hidden neighbour, and no more.
    """

    views = 2
    visible_share = 0.5
    patch = 8

    def __init__(self, network: VisionTransformer, width: int = 64):
        super().__init__(network)
        features = network.num_features
        self.embed = nn.Linear(features, width)
        self.blank = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, network.patch_embed.num_patches, width) * 0.02)
        self.decoder = nn.Sequential(Block(width, 4, 2), nn.LayerNorm(width))
        self.predict = nn.Linear(width, self.patch**2)
        self.head = nn.Sequential(nn.Linear(features, 2 * features), nn.ReLU(), nn.Linear(2 * features, 64))

    def targets(self, images: torch.Tensor) -> torch.Tensor:
        """Luminance (N, patches, patch * patch) of images (N, 3, S, S), standardised over each image."""
        grey = (images * torch.from_numpy(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
        grey = (grey - grey.mean((2, 3), keepdim=True)) / grey.std((2, 3), keepdim=True)
        return F.unfold(grey, self.patch, stride=self.patch).transpose(1, 2)

    def loss(self, views: list[Scenes]) -> torch.Tensor:
        images, others = map(pixels, views)
        tokens = self.network._pos_embed(self.network.patch_embed(images))
        count, places, width = tokens.shape
        order = torch.rand(count, places).argsort(1)
        visible, hidden = order.tensor_split([round(self.visible_share * places)], 1)
        seen = tokens.gather(1, visible.unsqueeze(-1).expand(-1, -1, width))
        seen = self.network.norm(self.network.blocks(self.network.norm_pre(seen)))
        pairing = info_nce(self.head(seen.mean(1)), self.head(self.network(others)), 0.1)
        known = self.embed(seen)
        blank = self.blank.expand(count, hidden.shape[1], -1).to(known.dtype)
        back = order.argsort(1).unsqueeze(-1).expand(-1, -1, known.shape[-1])
        rebuilt = self.predict(self.decoder(torch.cat([known, blank], 1).gather(1, back) + self.places))
        error = (rebuilt.float() - self.targets(images)).square().mean(-1)
        return error.gather(1, hidden).mean() + pairing


class ImageText(Objective):
    """CLIP's loss (arXiv 2103.00020) between scenes and their captions.

    Colours alone nearly tell the scenes of a batch apart, so each caption loses a random share of its words, save the
    number: without that exception nothing but colour is learned (0.17 zero-shot). Captions that read alike after that
    are partners of each other's scenes, as in UniCL (arXiv 2204.03610).
    """

    batch = 128

    def __init__(self, network: DualTower):
        super().__init__(network)
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())

    def shortened(self, captions: list[str]) -> list[str]:
        """Captions without a random share of their words, the number aside."""
        lines = []
        for caption, share in zip(captions, torch.rand(len(captions)).tolist(), strict=True):
            words = caption.split()
            stays = torch.rand(len(words)) >= share
            lines.append(" ".join(w for w, stay in zip(words, stays.tolist(), strict=True) if stay or w in NUMBERS))
        return lines

    def loss(self, views: list[Scenes]) -> torch.Tensor:
        texts = self.shortened(views[0].captions)
        tokens = self.network.text.tokenize(texts)
        alike = (tokens[:, None] == tokens[None]).all(-1).float()
        partners = alike / alike.sum(1, keepdim=True)
        images = F.normalize(self.network.encode_image(pixels(views[0])).float(), dim=1)
        logits = images @ F.normalize(self.network.encode_text(texts).float(), dim=1).T
        logits = logits * self.log_scale.exp().clamp(max=100)
        return (F.cross_entropy(logits, partners) + F.cross_entropy(logits.T, partners)) / 2
