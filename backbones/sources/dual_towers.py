"""transformers' networks with a text tower beside the image tower."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..card import BackboneCard, Input
from .image_towers import Aimv2Tower, ClipTower, ImageTower, NaflexTower, PlainTower
from .staged_towers import StagedTower


class DualTower(ImageTower):
    """What all share: `body` holds both towers; the projection is of the library's own pooled output."""

    has_text = True
    full_length = False  # trained on texts padded to their greatest length

    def __init__(self, card: BackboneCard, input: Input, body: nn.Module, bgr: bool, tokenizer: Any):
        super().__init__(card, input, body, bgr)
        self.tokenizer = tokenizer

    @property
    def image_tower(self) -> Any:
        """The image tower."""
        return self.body.vision_model

    def project(self, output: Any) -> Tensor:
        """(B, T) in the text tower's space."""
        pooled = output.pooler_output
        return self.body.visual_projection(pooled) if hasattr(self.body, "visual_projection") else pooled

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """(N, T) text embeddings, not normalised."""
        return self.project_text(self.tokens_of(texts))

    def tokens_of(self, texts: Sequence[str]) -> Any:
        """Token numbers, and a mask where the tokenizer makes one, as the text tower takes them."""
        length = min(self.body.config.text_config.max_position_embeddings, self.tokenizer.model_max_length)
        padding = "max_length" if self.full_length else True
        tokens = self.tokenizer(list(texts), padding=padding, truncation=True, max_length=length, return_tensors="pt")
        return tokens.to(self.body.device)

    def project_text(self, tokens: Any) -> Tensor:
        """(N, T) the text tower's output after its projection."""
        return self.body.get_text_features(**tokens).pooler_output


class ClipDual(DualTower, ClipTower):
    """CLIP (arXiv 2103.00020) and the many with its parts."""


class SiglipDual(DualTower, PlainTower):
    """SigLIP (arXiv 2303.15343): no projection on the image side."""

    full_length = True


class NaflexDual(DualTower, NaflexTower):
    """SigLIP 2 at native resolution (arXiv 2502.14786)."""

    full_length = True


class Aimv2Dual(DualTower, Aimv2Tower):
    """AIMv2 after image-text tuning (arXiv 2411.14402)."""


class AlignDual(DualTower, StagedTower):
    """ALIGN (arXiv 2102.05918): an EfficientNet whose pooled output is in the texts' space as it is."""


class BlipDual(DualTower, PlainTower):
    """BLIP's retrieval network (arXiv 2201.12086), its contrastive half."""

    def pooled(self, output: Any) -> Tensor:
        """(B, D) the class token; transformers' pooled output would normalise it twice."""
        return output.last_hidden_state[:, 0]

    def project(self, output: Any) -> Tensor:
        """(B, T) in the text tower's space."""
        return self.body.vision_proj(self.pooled(output))

    def project_text(self, tokens: Any) -> Tensor:
        """(N, T) the first token after its projection."""
        seen = self.body.text_encoder(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        return self.body.text_proj(seen.last_hidden_state[:, 0])
