"""How a network computes is an option of loading it: precision, memory format, compilation, device."""

import copy
import shutil

import pytest
import torch
from backbench import load_backbone
from backbench.backbones import BadInput, Loading


@pytest.fixture(scope="module")
def images():
    return torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def features(backbone, images, **wanted):
    with torch.no_grad():
        return backbone(images, maps=True, **wanted)


@pytest.mark.parametrize("name", ["mini/vit-supervised", "mini/cnn-supervised"])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_close_to_full_and_comes_out_in_float32(name, precision, images):
    full, half = load_backbone(name), load_backbone(name, precision=precision)
    a, b = features(full, images), features(half, images, layers=[half.layer_names[-1]])
    assert not torch.equal(a.embedding, b.embedding)
    assert torch.cosine_similarity(a.embedding, b.embedding).min() > 0.999
    for one, other in zip(a.maps, b.maps, strict=True):
        assert torch.cosine_similarity(one.flatten(1), other.flatten(1)).min() > 0.999
    assert {t.dtype for t in (b.embedding, *b.maps, *b.layers.values())} == {torch.float32}


def test_half_precision_reaches_both_towers(images):
    full, half = load_backbone("mini/cnn-image-text"), load_backbone("mini/cnn-image-text", precision="bfloat16")
    texts = ["a photo of a zero", "a photo of a seven"]
    with torch.no_grad():
        a, b = (net(images, projection=True).projection for net in (full, half))
        s, t = full.embed_text(texts), half.embed_text(texts)
    for one, other in ((a, b), (s, t)):
        assert other.dtype == torch.float32
        assert not torch.equal(one, other)
        assert torch.cosine_similarity(one, other).min() > 0.99


def test_channels_last_computes_the_same(images):
    plain, last = load_backbone("mini/cnn-supervised"), load_backbone("mini/cnn-supervised", channels_last=True)
    weight = next(p for p in last.parameters() if p.ndim == 4 and min(p.shape[:2]) > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(features(plain, images).embedding, features(last, images).embedding, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles for the CPU with a C++ compiler")
def test_compiled_computes_the_same(images):
    plain, compiled = load_backbone("mini/cnn-supervised"), load_backbone("mini/cnn-supervised", compile=True)
    a, b = features(plain, images), features(compiled, images)
    assert torch.allclose(a.embedding, b.embedding, atol=1e-5)
    seen = features(compiled, images, layers=["layer4"]).layers["layer4"]  # as a compiled pass would not show it
    assert torch.allclose(seen, a.maps[-1], atol=1e-5)


def test_options_leave_the_weights_as_they_are():
    digests = {load_backbone("mini/vit-masked", precision=p).weights_digest for p in ("float32", "bfloat16", "float16")}
    assert len(digests) == 1


def test_a_backbone_keeps_how_it_was_loaded(images):
    half = load_backbone("mini/vit-masked", precision="bfloat16")
    assert load_backbone(half) is half
    assert half.loading == Loading("bfloat16")
    again = copy.deepcopy(half)
    assert torch.equal(features(half, images).embedding, features(again, images).embedding)


def test_the_usual_options_say_nothing():
    assert Loading().identity == {}
    assert Loading("float16", channels_last=True).identity == {"precision": "float16", "channels_last": True}


def test_bad_options_are_told():
    with pytest.raises(BadInput, match="no precision 'bf16'; did you mean 'bfloat16'"):
        load_backbone("mini/vit-masked", precision="bf16")
    with pytest.raises(BadInput, match="no decoder 'fastest'; did you mean 'fast'"):
        load_backbone("mini/vit-masked", decoder="fastest")
    with pytest.raises(BadInput, match="not a device; use auto, cpu or cuda:0"):
        load_backbone("mini/vit-masked", device="gpu")


def test_gradients_pass_in_half_precision(images):
    half = load_backbone("mini/vit-supervised", precision="bfloat16")
    half(images).embedding.square().sum().backward()
    grads = [p.grad for p in half.parameters() if p.grad is not None]
    assert grads
    assert all(g.isfinite().all() for g in grads)
    assert {g.dtype for g in grads} == {torch.float32}


def test_fast_is_half_precision_only_where_the_processor_has_units_for_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert Loading.fast("cpu") == Loading("bfloat16", channels_last=True, decoder="fast")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    assert Loading.fast("cpu", compile=True) == Loading("float32", channels_last=True, compile=True, decoder="fast")
