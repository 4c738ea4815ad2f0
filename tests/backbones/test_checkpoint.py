"""Files of weights: what fits is loaded, what does not is told, and nothing in them runs."""

import argparse
import os
import pickle

import pytest
import timm
import torch
from backbench.backbones import BadInput, load_backbone
from backbench.backbones.card import BackboneCard, file_digest
from backbench.backbones.checkpoint import NESTS, read_weights
from backbench.backbones.fit import fit, rename
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

STATISTICS = {"mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture(scope="module")
def trained():
    """A network with other weights than the seed gives, its classifier on."""
    torch.manual_seed(7)
    return timm.create_model("test_resnet").eval()


@pytest.fixture
def load(tmp_path):
    """Save what is given and load it through a card."""

    def call(weights, name="weights.pth", save=torch.save, **card):
        save(weights, tmp_path / name)
        checkpoint = card.pop("checkpoint", name)
        kept = {"name": "net", "source": "timm", "model": "test_resnet", "input": STATISTICS, "folder": tmp_path}
        return load_backbone(BackboneCard(checkpoint=checkpoint, **(kept | card)))

    return call


def same(backbone, network):
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        want = network.forward_head(network.forward_features(x), pre_logits=True)
        return torch.equal(backbone(x).embedding, want)


def prefixed(prefix, weights):
    return {prefix + key: value for key, value in weights.items()}


def test_bare_weights_in_both_formats(load, trained):
    assert same(load(trained.state_dict()), trained)
    assert same(load(trained.state_dict(), "weights.safetensors", save_file), trained)


@pytest.mark.parametrize("nest", NESTS)
def test_nested_weights(load, trained, nest):
    assert same(load({nest: {"state_dict": trained.state_dict()}, "epoch": 3}), trained)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.encoder.", "_orig_mod."])
def test_a_wrapper_s_prefix_is_stripped(load, trained, prefix):
    weights = prefixed(prefix, trained.state_dict()) | {"projector.weight": torch.zeros(2), "queue": torch.zeros(3)}
    assert same(load(weights), trained)


def test_the_classifier_and_batch_counters_may_be_missing(load, trained):
    weights = {
        k: v for k, v in trained.state_dict().items() if not k.endswith("num_batches_tracked") and k[:3] != "fc."
    }
    assert same(load(weights), trained)


def test_key_map_renames(load, trained):
    weights = {k.replace("layer1.", "stage1."): v for k, v in trained.state_dict().items()}
    with pytest.raises(BadInput, match=r"lacks \d+ of \d+ names \(layer1"):
        load(weights)
    assert same(load(weights, key_map={"stage1.": "layer1."}), trained)


def test_of_several_networks_the_card_chooses(load, trained):
    online, average = trained.state_dict(), {k: v + 1 for k, v in trained.state_dict().items()}
    both = prefixed("online.", average) | prefixed("target.", online)
    with pytest.raises(BadInput, match=r"several networks.*key_map: \{'online\.': ''\}"):
        load(both)
    assert same(load(both, key_map={"target.": ""}), trained)


def test_the_prefix_that_would_nearly_fit_is_proposed(load, trained):
    weights = prefixed("online.", trained.state_dict())
    del weights["online.conv1.0.weight"]
    with pytest.raises(BadInput, match=r"conv1\.0\.weight.*fit with key_map: \{'online\.': ''\}"):
        load({**weights, "online.conv1.0.weird": torch.zeros(1)})


def test_a_prefix_that_the_network_has_is_proposed():
    weights, wanted = (
        {"a.w": torch.ones(1), "b.w": torch.ones(1)},
        {"net.a.w": torch.zeros(1), "net.b.w": torch.zeros(1)},
    )
    with pytest.raises(BadInput, match=r"2 of 2 fit with key_map: \{'': 'net\.'\}"):
        fit(weights, wanted, (), "here")
    assert fit(rename(weights, {"": "net."}), wanted, (), "here").keys() == wanted.keys()


def test_leftovers_outside_the_classifier_are_refused(load, trained):
    with pytest.raises(BadInput, match=r"1 names that the network lacks \(layer9\.weight\)"):
        load(trained.state_dict() | {"layer9.weight": torch.zeros(1)})


def test_a_trainer_s_head_is_left_out_where_the_card_says_so(load, trained):
    weights = prefixed("module.", trained.state_dict()) | {"module.prototypes.weight": torch.zeros(3, 3)}
    with pytest.raises(BadInput, match=r"leave them out: key_map: \{'module\.prototypes\.': null\}"):
        load(weights)
    assert same(load(weights, key_map={"module.prototypes.": None}), trained)


def test_what_lies_beside_the_weights_is_not_looked_at(load, trained):
    optimizer = {"state": {0: {"exp_avg": torch.full((3,), float("nan"))}}, "param_groups": [{"lr": 0.1}]}
    beside = {"step": torch.tensor(7), "args": argparse.Namespace(lr=0.1, betas=(0.9, 0.99)), "optimizer": optimizer}
    assert same(load({"model": trained.state_dict()} | beside), trained)


def test_networks_under_names_of_their_own_are_chosen_by_the_card(load, trained):
    both = {"generator": {"conv.weight": torch.zeros(3)}, "critic": {"trunk": trained.state_dict()}}
    assert same(load(both), trained)
    assert same(load(both, key_map={"critic.trunk.": ""}), trained)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_widened(load, trained, kind):
    weights = {k: v.to(kind) if v.is_floating_point() else v for k, v in trained.state_dict().items()}
    loaded = load(weights).body.state_dict()
    assert all(tensor.dtype == torch.float32 for tensor in loaded.values() if tensor.is_floating_point())
    assert all(
        torch.equal(tensor, weights[name].float()) for name, tensor in loaded.items() if tensor.is_floating_point()
    )


def test_another_architecture_is_told_by_its_shapes(load, trained):
    weights = trained.state_dict()
    weights["layer4.0.conv1.weight"] = torch.zeros(3, 3, 1, 1)
    with pytest.raises(BadInput, match=r"layer4\.0\.conv1\.weight has shape \(3, 3, 1, 1\), the network wants"):
        load(weights)


def test_a_wrong_model_is_told_in_one_line(load):
    with pytest.raises(BadInput) as caught:
        load(timm.create_model("test_vit").state_dict())
    assert "\n" not in str(caught.value)
    assert "lacks" in str(caught.value)


def test_sha256_is_verified(load, trained, tmp_path):
    load(trained.state_dict())
    digest = file_digest(tmp_path / "weights.pth")
    weights = torch.load(tmp_path / "weights.pth")
    keep = lambda _weights, _path: None  # noqa: E731 - the file is there already
    load(weights, save=keep, checkpoint={"path": "weights.pth", "sha256": digest})
    with pytest.raises(BadInput, match=f"has sha256 {digest}, the card says 0000"):
        load(weights, save=keep, checkpoint={"path": "weights.pth", "sha256": "0" * 64})


def test_a_missing_file_names_the_nearest(load, trained):
    with pytest.raises(BadInput, match=r"no such file: .*; did you mean 'weights\.pth'\?"):
        load(trained.state_dict(), checkpoint="weihgts.pth")


def test_a_pickle_that_runs_code_is_refused(load, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    with pytest.raises(BadInput, match=r"wants to run code \(.*mkdir.*\), which is refused") as caught:
        load({"state_dict": Bomb()})
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput):
        load({"state_dict": Bomb()}, save=lambda value, path: path.write_bytes(pickle.dumps(value)))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04broken", b"\x80\x02}q\x00."])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.bin"])
def test_what_is_no_checkpoint_is_told_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_weights_or_one_line(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "w.pth"
    path.write_bytes(content)
    with pytest.raises(BadInput):
        read_weights(path)


KEYS = st.lists(st.from_regex(r"[a-c](\.[a-c0-3]){0,3}", fullmatch=True), min_size=2, max_size=8, unique=True)
PREFIXES = st.sampled_from(["", "module.", "x.y.", "teacher.backbone.", "module.base_encoder."])


@given(KEYS, PREFIXES, st.sets(st.sampled_from(["0.weight", "3.bias", "mlp.0.weight"])), st.booleans())
def test_fit_finds_what_was_wrapped(keys, prefix, head, beside):
    """Whatever the wrapper, with a classifier under it and a trainer's things beside it."""
    wanted = {key: torch.zeros(1) for key in keys}
    file = {prefix + key: torch.ones(1) for key in keys} | {f"{prefix}head.{name}": torch.zeros(2) for name in head}
    if beside and prefix:
        file |= {"projector.0.weight": torch.zeros(3), "queue": torch.zeros(4)}
    found = fit(file, wanted, ("head",), "here")
    assert found.keys() == wanted.keys()
    assert all(value.item() == 1 for value in found.values())


@given(KEYS, PREFIXES, st.data())
def test_fit_tells_what_is_missing(keys, prefix, data):
    dropped = data.draw(st.sampled_from(keys))
    file = {prefix + key: torch.ones(1) for key in keys if key != dropped}
    with pytest.raises(BadInput, match=rf"lacks \d+ of {len(keys)} names"):
        fit(file, {key: torch.zeros(1) for key in keys}, (), "here")


@given(KEYS, PREFIXES, st.sampled_from(["extra.weight", "neck.0.bias"]))
def test_fit_tells_what_is_left_over_and_how_to_leave_it_out(keys, prefix, extra):
    wanted = {key: torch.zeros(1) for key in keys}
    file = {prefix + key: torch.ones(1) for key in keys} | {prefix + extra: torch.ones(1)}
    part = extra.partition(".")[0] + "."
    with pytest.raises(BadInput, match=f"1 names that the network lacks.*{prefix + part!r}: null"):
        fit(file, wanted, (), "here")
    assert fit(file, wanted, (), "here", {prefix + part: None}).keys() == wanted.keys()


@given(KEYS, KEYS)
def test_rename_keeps_every_tensor(keys, prefixes):
    weights = {key: torch.tensor(index) for index, key in enumerate(keys)}
    assert rename(weights, {}) == weights
    renamed = rename(weights, {f"{prefix}.": f"new.{prefix}." for prefix in prefixes})
    assert sorted(value.item() for value in renamed.values()) == list(range(len(keys)))


def test_several_networks_are_told_whatever_their_wrappers():
    wanted = {"a.w": torch.zeros(1), "b.w": torch.zeros(1)}
    file = prefixed("x.", wanted) | prefixed("y.", wanted)
    with pytest.raises(BadInput, match=r"several networks in it fit.*\(x\., y\.\)"):
        fit(file, wanted, (), "here")


def test_a_converter_may_rename_but_not_make_up_numbers():
    wanted, file = {"stem.w": torch.zeros(3, 4)}, {"old.w": torch.ones(12)}
    found = fit(file, wanted, (), "here", convert=lambda w: {"stem.w": w["old.w"].reshape(3, 4)})
    assert found["stem.w"].sum() == 12
    with pytest.raises(BadInput, match="lacks 1 of 1 names"):
        fit({"old.w": torch.ones(5)}, wanted, (), "here", convert=lambda w: {"stem.w": torch.zeros(3, 4)})


def test_of_several_networks_in_foreign_names_the_card_chooses():
    wanted = {"new.w": torch.zeros(2), "new.b": torch.zeros(3)}
    student, teacher = ({"old.w": torch.full((2,), i), "old.b": torch.full((3,), i)} for i in (1.0, 2.0))
    file = prefixed("student.", student) | prefixed("mentor.", teacher)

    def convert(weights):
        return {
            f"new.{name.removeprefix('old.')}" if name.startswith("old.") else name: t for name, t in weights.items()
        }

    with pytest.raises(BadInput, match=r"several networks in it fit; choose one: key_map: \{'mentor\.': ''\}"):
        fit(file, wanted, (), "here", convert=convert)
    assert fit(file, wanted, (), "here", {"mentor.": ""}, convert)["new.w"][0] == 2
    assert fit(prefixed("module.net.", student), wanted, (), "here", convert=convert)["new.w"][0] == 1


def test_a_key_map_may_not_put_two_tensors_in_one_place(load, trained):
    both = prefixed("online.", trained.state_dict()) | prefixed("target.", trained.state_dict())
    with pytest.raises(BadInput, match=r"'target\.conv1\..*' and another name in the file both become 'conv1"):
        load(both, key_map={"online.": "", "target.": ""})


def test_old_names_of_the_library_s_own_networks_are_known(load):
    """timm's Swin V2 once ended its stages with what now begins them, and kept buffers that it now computes."""
    import re

    body = timm.create_model("swinv2_tiny_window8_256", embed_dim=24, depths=(1, 1, 1, 1), num_classes=0).state_dict()
    old = {re.sub(r"layers\.(\d)\.down", lambda m: f"layers.{int(m[1]) - 1}.down", k): v + 0.1 for k, v in body.items()}
    old["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(4, 4)
    card = {"model": "swinv2_tiny_window8_256", "model_args": {"embed_dim": 24, "depths": [1, 1, 1, 1]}}
    new = {k: v + 0.1 for k, v in body.items()} | {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(4, 4)}
    for file in (prefixed("module.", old), new):
        loaded = load(file, **card).body.state_dict()
        assert all(torch.equal(loaded[name], tensor + 0.1) for name, tensor in body.items())


def test_position_embeddings_of_another_size_are_not_stretched(load):
    weights = timm.create_model("test_vit", img_size=320, num_classes=0).state_dict()
    with pytest.raises(BadInput, match=r"pos_embed has shape \(1, 401, 64\).*or `model_args: \{img_size: …\}`"):
        load(weights, model="test_vit")
    assert load(weights, model="test_vit", model_args={"img_size": 320}).embed_dim == 64
