"""What a library says of a model: the answers a card may leave out."""

import math
import re
from dataclasses import asdict, dataclass, field
from itertools import chain, groupby
from typing import Any

from ..card import BackboneCard, Family, Method, Pretraining


@dataclass(frozen=True)
class Facts:
    """Read from a library's own config; None where it does not say. `input` has the keys of `Input` that it knows."""

    input: dict[str, Any] = field(default_factory=dict)
    family: Family | None = None
    pretraining: Pretraining | None = None
    license: str | None = None
    paper: str | None = None

    def complete(self, card: BackboneCard) -> BackboneCard:
        """The card with its gaps filled; what the card says itself stands, and its identity does not change."""
        facts = asdict(self) | {"pretraining": self.pretraining}
        described = ("family", "pretraining", "license", "paper")
        if card.checkpoint or not card.pretrained:  # the library's word is about its own weights
            described = ("family",)
        return card.model_copy(update={k: facts[k] for k in described if getattr(card, k) is None})


def crop_of(size: int, resized: int) -> float:
    """The `crop` with which an image is resized to exactly `resized` pixels before a centre crop of `size`."""
    crop = min(1.0, size / resized)
    return crop if int(size / crop) >= resized else math.nextafter(crop, 0)


# A convention for weights that were trained in stages, `laion2b_ft_in12k_in1k` say: the data are all stages' in their
# order, the method is the last stage's, as its objective shaped the features. So CLIP or MAE weights fine-tuned with
# labels are supervised, and their data tell where they began. Labels made by a teacher are labels all the same.
#
# A word in a name, and what it tells: a method, where it decides one, and a set of images. A word that is part of a
# longer one comes after it. `in22k` is another name of all of ImageNet (`in21k`); `in12k` is timm's part of it,
# `inw21k` its version of winter 2021, `miil_in21k` its cleaned part. SSLD adds unlabelled images that names don't tell.
_WORDS: tuple[tuple[str, Method | None, str | None], ...] = (
    ("miil_in21k", None, "imagenet-21k-p"),
    ("inw21k", None, "imagenet-21k-winter21"),
    ("(?:ssld|ssld_6m|ssld_paddle)_in1k", None, None),
    ("in1k", None, "imagenet-1k"),
    ("in12k", None, "imagenet-12k"),
    ("in2[12]k", None, "imagenet-21k"),
    ("pt22k", "self-supervised", None),
    ("22k|1k", None, None),
    ("bamboo", None, "bamboo"),
    ("sa1b", None, "sa-1b"),
    ("sam2_hiera", None, None),
    ("swag", None, "ig-3.6b"),
    ("ig1b", None, "ig-1b"),
    ("jft", None, "jft-300m"),
    ("yfcc100m", None, "yfcc-100m"),
    ("dino|mae|fcmae", "self-supervised", "imagenet-1k"),
    ("mim|ijepa|dinov2|data2vec", "self-supervised", None),
    ("m30m", "self-supervised", "merged-30m"),
    ("m38m", "self-supervised", "merged-38m"),
    ("seer", "self-supervised", "seer-1b"),
    ("lvd142m", "self-supervised", "lvd-142m"),
    ("lvd1689m", "self-supervised", "lvd-1689m"),
    ("sat493m", "self-supervised", "sat-493m"),
    ("openai", "vision-language", "wit-400m"),
    ("mscoco_finetuned_laion2b", "vision-language", "laion-2b + coco"),
    ("laion400m", "vision-language", "laion-400m"),
    ("laion2b", "vision-language", "laion-2b"),
    ("laion5b", "vision-language", "laion-5b"),
    ("laiona|laion_aesthetic", "vision-language", "laion-aesthetic"),
    ("datacomp1b|datacompxl|datacomp_(?:xl|s34b)", "vision-language", "datacomp-1b"),
    (r"(?:datacomp|commonpool)_(?:xl|[lms])(?:_(?:basic|clip|image|laion|text))?", "vision-language", r"\g<0>"),
    ("apple_mclip|datacompdr", "vision-language", "datacompdr-1b"),
    ("dfndr2b", "vision-language", "dfndr-2b"),
    ("dfn2b", "vision-language", "dfn-2b"),
    ("dfn5b", "vision-language", "dfn-5b"),
    ("metaclip_400m", "vision-language", "metaclip-400m"),
    ("metaclip_(?:2pt5b|fullcc)", "vision-language", "metaclip-2.5b"),
    ("metaclip2_worldwide", "vision-language", "metaclip2-worldwide"),
    ("metaclip_altogether", "vision-language", "metaclip-altogether"),
    ("merged2b", "vision-language", "merged-2b"),
    ("webli", "vision-language", "webli"),
    ("cc12m", "vision-language", "cc-12m"),
    ("yfcc15m", "vision-language", "yfcc-15m"),
    ("msft_florence2", "vision-language", "fld-5b"),
    (r"clip|aimv2|beit3_\w+|pe_core|pe_lang|pali2?|qwen3?|ogvl_2pt5", "vision-language", None),
)
_WORD = re.compile("|".join(rf"(?P<w{i}>(?<![a-z0-9])(?:{word})(?![a-z0-9]))" for i, (word, *_) in enumerate(_WORDS)))
_STAGES = re.compile(r"_ft_|-ft(?=\d)")
# A linear classifier leaves the network as it was; a student of several foundation models has no one method.
_NOT_TOLD = re.compile(r"_lc_in1k.*|.*\beupe.*|.*_eupe_.*")


def method_of(name: str) -> Method | None:
    """The method of the last training stage that the name of weights (`architecture.tag`, a tag, a hub id) tells."""
    stages = _stages(name)
    if not stages:
        return None
    for method, _ in stages[-1]:
        if method:
            return method
    return "supervised"


def data_of(name: str) -> str | None:
    """The data of every training stage that such a name tells, in their order; None if it leaves one stage's out."""
    stages = [[data for _, data in words if data] for words in _stages(name)]
    if not all(stages):
        return None
    return " + ".join(data for data, _ in groupby(chain(*stages))) or None


def pretraining_of(name: str) -> Pretraining | None:
    """Both, for a name that tells the method."""
    method = method_of(name)
    return Pretraining(method=method, data=data_of(name)) if method else None


def _stages(name: str) -> list[list[tuple[Method | None, str | None]]]:
    """What the words of each training stage tell; a last one that says nothing (`_ft_320`) is more of the same."""
    text = _NOT_TOLD.sub("", name.lower().replace(".", "_"))
    stages = []
    for part in _STAGES.split(text):
        words = []
        for match in _WORD.finditer(part):
            _, method, data = _WORDS[int(str(match.lastgroup)[1:])]
            words.append((method, match.expand(data).replace("_", "-") if data else None))
        stages.append(words)
    while stages and not stages[-1]:
        stages.pop()
    return stages
