"""What names of weights tell, over every tag that timm and open_clip ship."""

import pytest
from backbench.backbones.sources.facts import data_of, method_of, pretraining_of

SUPERVISED, SELF, LANGUAGE = "supervised", "self-supervised", "vision-language"
IN1K, IN12K, IN21K = "imagenet-1k", "imagenet-12k", "imagenet-21k"

TOLD = {
    # labels, and labels after labels
    "resnet50.a1_in1k": (SUPERVISED, IN1K),
    "resnet50.tv_in1k": (SUPERVISED, IN1K),
    "vit_base_patch16_224.augreg_in1k": (SUPERVISED, IN1K),
    "vit_base_patch16_224.augreg_in21k": (SUPERVISED, IN21K),
    "vit_base_patch16_224.augreg_in21k_ft_in1k": (SUPERVISED, f"{IN21K} + {IN1K}"),
    "convnext_base.fb_in22k": (SUPERVISED, IN21K),
    "convnext_xlarge.fb_in22k_ft_in1k": (SUPERVISED, f"{IN21K} + {IN1K}"),
    "swinv2_base_window12to24_192to384.ms_in22k_ft_in1k": (SUPERVISED, f"{IN21K} + {IN1K}"),
    "convnext_small.in12k_ft_in1k_384": (SUPERVISED, f"{IN12K} + {IN1K}"),
    "resnetaa50d.d_in12k": (SUPERVISED, IN12K),
    "mixer_b16_224.miil_in21k_ft_in1k": (SUPERVISED, f"{IN21K}-p + {IN1K}"),
    "vit_base_patch16_224_miil.in21k": (SUPERVISED, f"{IN21K}-p"),
    "tresnet_m.miil_in1k_448": (SUPERVISED, IN1K),
    "mvitv2_base_cls.fb_inw21k": (SUPERVISED, f"{IN21K}-winter21"),
    "vit_base_patch16_224.sam_in1k": (SUPERVISED, IN1K),  # an optimiser, not Segment Anything
    "samvit_base_patch16.sa1b": (SUPERVISED, "sa-1b"),
    "sam2_hiera_tiny.fb_r896_2pt1": (SUPERVISED, None),
    "tf_efficientnet_b0.ap_in1k": (SUPERVISED, IN1K),
    "resnet50.bamboo": (SUPERVISED, "bamboo"),
    # hashtags, and a teacher's labels
    "resnext101_32x8d.fb_wsl_ig1b_ft_in1k": (SUPERVISED, f"ig-1b + {IN1K}"),
    "resnet50.fb_swsl_ig1b_ft_in1k": (SUPERVISED, f"ig-1b + {IN1K}"),
    "resnet50.fb_ssl_yfcc100m_ft_in1k": (SUPERVISED, f"yfcc-100m + {IN1K}"),
    "tf_efficientnet_b7.ns_jft_in1k": (SUPERVISED, f"jft-300m + {IN1K}"),
    "regnety_160.swag_ft_in1k": (SUPERVISED, f"ig-3.6b + {IN1K}"),
    "regnety_160.swag_lc_in1k": (SUPERVISED, "ig-3.6b"),  # ImageNet trained the classifier alone
    "hgnetv2_b0.ssld_stage1_in22k_in1k": (SUPERVISED, f"{IN21K} + {IN1K}"),
    "hgnetv2_b0.ssld_stage2_ft_in1k": (SUPERVISED, None),
    "hgnet_tiny.ssld_in1k": (SUPERVISED, None),
    "hrnet_w18_ssld.paddle_in1k": (SUPERVISED, None),
    "nextvit_base.bd_ssld_6m_in1k": (SUPERVISED, None),
    # no labels, and labels after none
    "vit_small_patch16_224.dino": (SELF, IN1K),
    "resmlp_24_224.fb_dino": (SELF, IN1K),
    "vit_base_patch16_224.mae": (SELF, IN1K),
    "hiera_base_224.mae_in1k_ft_in1k": (SUPERVISED, IN1K),
    "convnextv2_tiny.fcmae": (SELF, IN1K),
    "convnextv2_tiny.fcmae_ft_in22k_in1k": (SUPERVISED, f"{IN1K} + {IN21K} + {IN1K}"),
    "regnety_320.seer": (SELF, "seer-1b"),
    "regnety_320.seer_ft_in1k": (SUPERVISED, f"seer-1b + {IN1K}"),
    "vit_huge_patch14_gap_224.in1k_ijepa": (SELF, IN1K),
    "vit_giant_patch16_gap_224.in22k_ijepa": (SELF, IN21K),
    "eva02_base_patch14_224.mim_in22k": (SELF, IN21K),
    "eva02_large_patch14_448.mim_m38m_ft_in22k_in1k": (SUPERVISED, f"merged-38m + {IN21K} + {IN1K}"),
    "eva_giant_patch14_336.m30m_ft_in22k_in1k": (SUPERVISED, f"merged-30m + {IN21K} + {IN1K}"),
    "beit_base_patch16_224.in22k_ft_in22k_in1k": (SUPERVISED, f"{IN21K} + {IN1K}"),
    "beitv2_base_patch16_224.in1k_ft_in22k_in1k": (SUPERVISED, f"{IN1K} + {IN21K} + {IN1K}"),
    "vit_base_patch14_reg4_dinov2.lvd142m": (SELF, "lvd-142m"),
    "vit_base_patch16_dinov3.lvd1689m": (SELF, "lvd-1689m"),
    "convnext_tiny.dinov3_lvd1689m": (SELF, "lvd-1689m"),
    "vit_large_patch16_dinov3.sat493m": (SELF, "sat-493m"),
    # texts, and labels after texts
    "resnet50_clip.openai": (LANGUAGE, "wit-400m"),
    "resnet50_clip.cc12m": (LANGUAGE, "cc-12m"),
    "resnet50_clip.yfcc15m": (LANGUAGE, "yfcc-15m"),
    "vit_base_patch16_clip_224.laion2b": (LANGUAGE, "laion-2b"),
    "vit_base_patch16_clip_224.laion2b_ft_in12k_in1k": (SUPERVISED, f"laion-2b + {IN12K} + {IN1K}"),
    "vit_base_patch16_clip_224.openai_ft_in1k": (SUPERVISED, f"wit-400m + {IN1K}"),
    "convnext_large_mlp.clip_laion2b_ft_soup_320": (LANGUAGE, "laion-2b"),
    "convnext_base.clip_laiona_augreg_320": (LANGUAGE, "laion-aesthetic"),
    "vit_base_patch16_clip_224.datacompxl": (LANGUAGE, "datacomp-1b"),
    "vitamin_large_224.datacomp1b_clip": (LANGUAGE, "datacomp-1b"),
    "vit_huge_patch14_clip_224.dfn5b": (LANGUAGE, "dfn-5b"),
    "vit_base_patch16_clip_224.metaclip_400m": (LANGUAGE, "metaclip-400m"),
    "vit_base_patch16_clip_224.metaclip_2pt5b": (LANGUAGE, "metaclip-2.5b"),
    "eva02_base_patch16_clip_224.merged2b": (LANGUAGE, "merged-2b"),
    "vit_base_patch16_siglip_224.v2_webli": (LANGUAGE, "webli"),
    "vit_so400m_patch14_siglip_378.webli_ft_in1k": (SUPERVISED, f"webli + {IN1K}"),
    "fastvit_mci0.apple_mclip": (LANGUAGE, "datacompdr-1b"),
    "fastvit_mci0.apple_mclip2_dfndr2b": (LANGUAGE, "dfndr-2b"),
    "davit_base_fl.msft_florence2": (LANGUAGE, "fld-5b"),
    "eva_giant_patch14_224.clip_ft_in1k": (SUPERVISED, None),  # whose CLIP, the name does not say
    "beit3_base_patch16_224.in22k_ft_in1k": (SUPERVISED, None),  # what came before in22k, neither
    "aimv2_large_patch14_224.apple_pt": (LANGUAGE, None),
    "vit_pe_core_base_patch16_224.fb": (LANGUAGE, None),
    "qwen3_vit_306m.qwen3_vl_4b": (LANGUAGE, None),
    "vit_so400m_patch14_siglip_gap_224.pali_mix": (LANGUAGE, None),
    # nothing that could be told without a guess
    "vit_pe_spatial_base_patch16_512.fb": (None, None),
    "vit_base_patch16_radio_v3.c_radio": (None, None),
    "convnext_tiny.eupe_lvd1689m": (None, None),  # a student of several teachers on DINOv3's images
    "vit_base_patch16_sapiens2.fb": (None, None),
    "mobilenetv5_300m.gemma3n": (None, None),
    "vit_base_patch16_224.untrained": (None, None),
    # open_clip's tags
    "laion400m_e32": (LANGUAGE, "laion-400m"),
    "laion2b_s29b_b131k_ft_soup": (LANGUAGE, "laion-2b"),
    "mscoco_finetuned_laion2b_s13b_b90k": (LANGUAGE, "laion-2b + coco"),
    "datacomp_xl_s13b_b90k": (LANGUAGE, "datacomp-1b"),
    "datacomp_s34b_b86k": (LANGUAGE, "datacomp-1b"),
    "datacomp_s_s13m_b4k": (LANGUAGE, "datacomp-s"),
    "commonpool_l_clip_s1b_b8k": (LANGUAGE, "commonpool-l-clip"),
    "metaclip_fullcc": (LANGUAGE, "metaclip-2.5b"),
    "dfndr2b": (LANGUAGE, "dfndr-2b"),
    "meta": (None, None),
    "v1": (None, None),
}

HUB = {
    "facebook/dinov2-small": SELF,
    "facebook/dino-vits16": SELF,
    "facebook/vit-mae-base": SELF,
    "facebook/data2vec-vision-base": SELF,
    "facebook/data2vec-vision-base-ft1k": SUPERVISED,
    "microsoft/beit-base-patch16-224-pt22k": SELF,
    "microsoft/beit-base-patch16-224-pt22k-ft22k": SUPERVISED,
    "facebook/convnext-base-224-22k-1k": SUPERVISED,
    "microsoft/resnet-50": None,
}


@pytest.mark.parametrize("name", TOLD)
def test_names_tell_method_and_data(name):
    assert (method_of(name), data_of(name)) == TOLD[name]


@pytest.mark.parametrize("name", HUB)
def test_names_on_a_hub_tell_the_method(name):
    assert method_of(name) == HUB[name]


def test_the_last_set_has_as_many_classes_as_the_classifier():
    """Where timm knows the number of classes, it is that of the set the name tells."""
    from timm import list_pretrained
    from timm.models import get_pretrained_cfg

    classes = {IN1K: {1000, 1001}, IN12K: {11821}, IN21K: {21841, 21842, 21843}, f"{IN21K}-p": {11221}}
    classes |= {f"{IN21K}-winter21": {19167, 19168}}
    seen = dict.fromkeys(classes, 0)
    for name in list_pretrained():
        outputs, how = get_pretrained_cfg(name).num_classes, pretraining_of(name)
        if how is None or how.method != SUPERVISED or how.data is None or not outputs:
            continue
        last = how.data.split(" + ")[-1]
        if last in classes and ".swag_lc" not in name:
            assert outputs in classes[last], name
            seen[last] += 1
    assert all(seen.values())


def test_most_names_tell():
    """timm's list grows: a new kind of tag must not go untold by the hundred."""
    from timm import list_pretrained

    told = [pretraining_of(name) for name in list_pretrained()]
    assert sum(how is not None for how in told) > 0.95 * len(told)
    assert sum(how is not None and how.data is not None for how in told) > 0.88 * len(told)
