"""How many images a network was pretrained on, as far as its card names the data and somebody has counted them."""

from .result import Identity

IMAGES = {  # as the source says, which may be rounded
    "bamboo": 69_000_000,  # Zhang et al. 2022
    "cc-12m": 12_423_374,  # Changpinyo et al. 2021
    "coyo-700m": 747_000_000,  # Byeon et al. 2022, image-text pairs
    "datacomp-1b": 1_400_000_000,  # Gadre et al. 2023, image-text pairs
    "datacompdr-1b": 1_280_000_000,  # Vasu et al. 2024 (MobileCLIP)
    "dfn-2b": 2_000_000_000,  # Fang et al. 2023 (Data Filtering Networks)
    "dfn-5b": 5_000_000_000,  # the same
    "dfndr-2b": 2_000_000_000,  # Faghri et al. 2025 (MobileCLIP2)
    "disc21": 1_000_000,  # Douze et al. 2021, training part
    "fld-5b": 126_000_000,  # Xiao et al. 2023 (Florence-2)
    "ig-1b": 940_000_000,  # Mahajan et al. 2018
    "ig-3.6b": 3_600_000_000,  # Singh et al. 2022 (SWAG)
    "imagenet-1k": 1_281_167,  # Russakovsky et al. 2015, training part
    "imagenet-12k": 12_100_000,  # timm/imagenet-12k-wds, training part
    "imagenet-21k": 14_197_122,  # Deng et al. 2009, release of fall 2011
    "imagenet-21k-p": 11_100_000,  # Ridnik et al. 2021, training part
    "imagenet-21k-winter21": 13_151_276,  # timm/imagenet-w21-wds
    "jft-300m": 300_000_000,  # Sun et al. 2017
    "laion-2b": 2_320_000_000,  # Schuhmann et al. 2022, image-text pairs in English
    "laion-400m": 413_000_000,  # Schuhmann et al. 2021
    "lvd-142m": 142_109_386,  # Oquab et al. 2023 (DINOv2)
    "lvd-1689m": 1_689_000_000,  # Siméoni et al. 2025 (DINOv3)
    "merged-2b": 2_000_000_000,  # Sun et al. 2023 (EVA-CLIP)
    "merged-30m": 29_600_000,  # Fang et al. 2022 (EVA)
    "merged-38m": 38_000_000,  # Fang et al. 2023 (EVA-02)
    "metaclip-400m": 400_000_000,  # Xu et al. 2023
    "metaclip-2.5b": 2_500_000_000,  # the same
    "sa-1b": 11_000_000,  # Kirillov et al. 2023: a billion masks, on so many images
    "sat-493m": 493_000_000,  # Siméoni et al. 2025 (DINOv3)
    "seer-1b": 1_000_000_000,  # Goyal et al. 2021
    "webli": 10_000_000_000,  # Chen et al. 2022 (PaLI)
    "wit-400m": 400_000_000,  # Radford et al. 2021 (CLIP), image-text pairs
    "yfcc-15m": 14_800_000,  # Radford et al. 2021, the part with English captions
    "yfcc-100m": 99_200_000,  # Thomee et al. 2016, photographs
}


def pretraining_images(who: Identity) -> int | None:
    """Images in all the sets that its card names (`imagenet-21k + imagenet-1k`), each counted once; None where the size
    of one is unknown, or where there was no pretraining."""
    parts = [part.strip().lower() for part in (who.fact("data") or "").split("+")]
    sizes = [IMAGES.get(part) for part in dict.fromkeys(parts)]
    return None if None in sizes else sum(size for size in sizes if size)
