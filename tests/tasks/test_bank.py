"""The bank: once through the network, the same bits for any number of threads, and never a wrong feature."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput, NotApplicable, load_backbone
from backbench.tasks import Bank, extraction
from backbench.tasks.extraction import Grid
from backbench.tasks.threads import attention_in_products
from safetensors.torch import load_file


def entries(folder):
    return sorted(p.parent for p in folder.glob("*/*/index.json"))


def bits(found):
    return {name: t.numpy().tobytes() for name, t in found.tensors.items()}


def test_features_are_those_of_the_backbone(tmp_path, make_backbone, make_split):
    backbone, split = make_backbone(text=True), make_split(150, 0)
    images = torch.stack([backbone.transform(i) for i in split.images])
    with torch.inference_mode():
        expected = backbone(images, maps=True, projection=True)
    store = Bank(tmp_path)
    found = {what: store.features(backbone, split, what) for what in ("embedding", "projection", "maps")}
    torch.testing.assert_close(found["embedding"].tensors["embedding"], expected.embedding)
    torch.testing.assert_close(found["projection"].tensors["projection"], expected.projection)
    for i, level in enumerate(expected.maps):
        kept = found["maps"].tensors[f"map{i}"]
        assert kept.dtype == torch.float16
        torch.testing.assert_close(kept, level.half())
    assert list(found["maps"].tensors) == ["map0", "map1"]


def test_an_image_goes_through_once_and_text_rides_along(tmp_path, make_backbone, make_split):
    split, seen = make_split(70, 0), []
    first = Bank(tmp_path).features(make_backbone(text=True), split, "embedding", progress=lambda *a: seen.append(a))
    assert first.computed == 70
    assert [(done, total) for _, done, total in seen] == [(64, 70), (70, 70)]
    again = Bank(tmp_path)  # another process
    assert again.features(make_backbone(text=True), split, "projection").computed == 0
    assert bits(again.features(make_backbone(text=True), split, "embedding")) == bits(first)
    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize("what", ["embedding", "maps"])
def test_bits_do_not_hang_on_threads(tmp_path, monkeypatch, make_backbone, make_split, what):
    split, found = make_split(300, 0), []
    for workers, threads in ((1, 1), (2, 2), (5, 1)):
        monkeypatch.setattr(extraction, "cores", lambda n=workers: n)
        torch.set_num_threads(threads)
        try:
            found.append(bits(Bank(tmp_path / str(workers)).features(make_backbone(), split, what)))
        finally:
            torch.set_num_threads(1)
    assert found[0] == found[1] == found[2]


def test_threads_are_left_as_they_were(tmp_path, make_backbone, make_split):
    before = torch.get_num_threads()
    Bank(tmp_path).features(make_backbone(), make_split(8, 0), "embedding")
    assert torch.get_num_threads() == before


def test_files_are_plain_safetensors_and_mapped_not_read(tmp_path, make_backbone, make_split):
    split = make_split(20, 0)
    tensors = Bank(tmp_path).features(make_backbone(), split, "maps").tensors
    (entry,) = entries(tmp_path)
    for name, tensor in tensors.items():
        assert torch.equal(load_file(entry / f"{name}.safetensors")[name], tensor)
        assert tensor.data_ptr() % 64 == 0
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert str(entry / "map0.safetensors") in mapped.read_text()


def test_features_that_are_not_finite_name_the_image(tmp_path, make_backbone, make_split):
    split = make_split(70, 0, noise=1)
    images = split.images.copy()
    images[66] = 255
    with pytest.raises(BadInput, match=r"tiny: the embedding of image 0-66 is not finite") as error:
        Bank(tmp_path).features(make_backbone(broken=True), replace(split, images=images), "embedding")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*/*.part"))
    assert not entries(tmp_path)


def test_huge_activations_of_maps_saturate(tmp_path, make_backbone, make_split):
    backbone = make_backbone()
    backbone.body[0].weight.data *= 1e6
    found = Bank(tmp_path).features(backbone, make_split(4, 0), "maps").tensors["map0"]
    assert found.isfinite().all()
    assert found.abs().max() == torch.finfo(torch.float16).max


def test_what_is_not_there_is_said(tmp_path, make_backbone, make_split):
    with pytest.raises(NotApplicable, match="no text tower"):
        Bank(tmp_path).features(make_backbone(), make_split(4, 0), "projection")
    empty = replace(make_split(4, 0), images=[], targets=np.array([]))
    with pytest.raises(BadInput, match="split is empty"):
        Bank(tmp_path).features(make_backbone(), empty, "embedding")


def test_layers_and_tokens_are_those_of_the_backbone(tmp_path, make_split):
    backbone, split = load_backbone("mini/vit-masked"), make_split(70, 0)
    images = torch.stack([backbone.transform(i) for i in split.images])
    with torch.inference_mode():
        pooled, tokens = backbone.pooled_layers(images), backbone.layer_tokens(images, 4, 2)
    store = Bank(tmp_path)
    found = store.features(backbone, split, "layers").tensors
    assert list(found) == list(pooled)
    for name, rows in pooled.items():
        torch.testing.assert_close(found[name], rows, atol=1e-5, rtol=1e-4)
    found = store.features(backbone, split, "tokens", grid=Grid(4, 2)).tensors
    assert list(found) == list(tokens)
    for name, rows in tokens.items():
        assert found[name].dtype == torch.float16
        torch.testing.assert_close(found[name].float(), rows, atol=2e-3, rtol=2e-3)
    assert store.features(backbone, split, "tokens", grid=Grid(2, 2)).computed == 70
    assert store.features(backbone, split, "tokens", grid=Grid(4, 2)).computed == 0


def test_a_context_hands_out_layers_and_tokens(context, make_split):
    backbone, split = load_backbone("mini/vit-masked"), make_split(6, 0)
    assert {rows.shape[0] for rows in context.layers(backbone, split).values()} == {6}
    assert {tuple(rows.shape[2:]) for rows in context.tokens(backbone, split, 2, 1).values()} == {(2, 2)}
    assert context.images == 12
    other = replace(backbone.transform, crop=0.5)
    assert not torch.equal(context.embeddings(backbone, split), context.embeddings(backbone, split, other))


def test_half_precision_comes_out_as_one_batch_would(tmp_path, make_split):
    """Weights are cast once a thread, not once a batch: to the same values."""
    backbone, split = load_backbone("mini/vit-masked", precision="bfloat16"), make_split(90, 0)
    found = Bank(tmp_path).features(backbone, split, "embedding").tensors["embedding"]
    with torch.inference_mode(), attention_in_products("bfloat16"):
        bare = [backbone(torch.stack([backbone.transform(i) for i in split.images[s : s + 64]])) for s in (0, 64)]
    assert torch.equal(found, torch.cat([features.embedding for features in bare]))
    assert not torch.is_autocast_enabled("cpu")
