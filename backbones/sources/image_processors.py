"""What a repository's image processor does to an image, in the words of a card's `input`."""

from math import isqrt
from typing import Any

from PIL import Image
from torch import Tensor

from ..errors import BadInput
from .facts import crop_of

FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL's numbers, which image processors store


def input_of(config: Any, processor: Any) -> dict[str, Any]:
    """The keys of `Input` that an image processor knows; without one the size alone, from the network's config."""
    says = processor.to_dict() if processor is not None else {}
    found = _geometry(config, says)
    if processor is not None:
        mean, std, _ = statistics(processor)
        found |= {"mean": _exact(says.get("image_mean"), mean), "std": _exact(says.get("image_std"), std)}
    return {key: value for key, value in found.items() if value is not None}


def _exact(said: Any, measured: list[float]) -> tuple[float, ...]:
    # What a key says is exact, but keys are not always all that happens: EfficientNet's divides by std twice.
    if isinstance(said, (list, tuple)) and all(abs(a - b) < 1e-4 for a, b in zip(said, measured, strict=True)):
        return tuple(said)
    return tuple(round(value, 6) for value in measured)


def statistics(processor: Any) -> tuple[list[float], list[float], bool]:
    """Mean and std per RGB channel as the processor applies them, and whether it hands the channels over as BGR.

    Measured with one black, one white and one red image: each processor has rules of its own. Raises BadInput.
    """
    black, white, red = (_seen(processor, colour) for colour in ("black", "white", "red"))
    std = 1 / (white - black)
    mean = -black * std
    bgr = bool(red[2] > black[2] and red[0] <= black[0])
    if bgr:
        mean, std = mean.flip(0), std.flip(0)
    return mean.tolist(), std.tolist(), bgr


def _seen(processor: Any, colour: str) -> Tensor:
    """(3,) what a pixel of a colour becomes."""
    try:
        pixels = processor(Image.new("RGB", (64, 64), colour), return_tensors="pt")["pixel_values"][0].double()
    except Exception as error:  # any library code may run here
        reason = " ".join(str(error).split())[:150]
        raise BadInput(
            f"{type(processor).__name__} cannot be run on an image ({reason}); give `input: {{size, mean, std}}`"
        ) from None
    # A processor that cuts patches gives them as (N, patch * patch * 3); all others give (3, H, W).
    return pixels[0].reshape(-1, 3)[0] if pixels.ndim == 2 else pixels[:, pixels.shape[1] // 2, pixels.shape[2] // 2]


def _geometry(config: Any, says: dict[str, Any]) -> dict[str, Any]:
    """Size, crop, fit and interpolation."""
    size, crop_size = says.get("size") or {}, says.get("crop_size") or {}
    resized = size.get("shortest_edge") or size.get("height") or size.get("longest_edge")
    # SAM pads to a square and DPT keeps the aspect ratio loosely: neither can be said of a batch of squares.
    fit = "crop" if "shortest_edge" in size or says.get("keep_aspect_ratio") else "squash"
    seen = crop_size.get("height") if says.get("do_center_crop") else resized
    rule = says.get("image_processor_type", "").removesuffix("Fast").removesuffix("Pil")
    if says.get("max_num_patches"):
        seen = resized = says["patch_size"] * isqrt(says["max_num_patches"])
    elif rule == "LevitImageProcessor" and resized:
        resized = int(256 / 224 * resized)
    elif says.get("crop_pct") and resized:
        if rule == "PoolFormerImageProcessor":
            resized = int(resized / says["crop_pct"])
        else:  # ConvNeXt's: below 384 px it resizes to more, then crops
            seen, fit = resized, "crop" if resized < 384 else "squash"
            resized = int(resized / says["crop_pct"]) if resized < 384 else resized
    if seen is None or says.get("do_resize") is False:
        side = getattr(getattr(config, "vision_config", config), "image_size", None) or seen
        seen = side if isinstance(side, int) or side is None else side[0]
        resized = None if says.get("do_resize") is False else resized
    return {
        "size": seen,
        "interpolation": FILTERS.get(int(says.get("resample") or 3)) if says else None,
        "crop": crop_of(seen, resized) if seen and resized else None,
        "fit": fit if says else None,
    }


def input_of_timm(config: dict[str, Any]) -> dict[str, Any]:
    """The keys of `Input` in a timm network's pretrained config."""
    found = {
        "size": (config.get("input_size") or [None])[-1],
        "mean": config.get("mean"),
        "std": config.get("std"),
        "interpolation": config.get("interpolation"),
        "crop": config.get("crop_pct"),
        "fit": "squash" if config.get("crop_mode") == "squash" else "crop",
    }
    return {key: value for key, value in found.items() if value is not None}
