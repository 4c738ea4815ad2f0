"""Zero-shot classification against open_clip's own classifier, and classification by description."""

import numpy as np
import open_clip
import pytest
import torch
from backbench.backbones import BadInput, load_backbone
from backbench.backbones.card import BackboneCard
from backbench.tasks import Dataset, estimate, find_task
from backbench.tasks.classification.zero_shot import class_embeddings, described, mean_texts
from torch.nn.functional import normalize

NAMES = ["tench", "great white shark", "cock", "hen's egg", "café"]
TEMPLATES = ["a photo of a {}.", "itap of the {}.", "a bad photo of a {}."]
DESCRIPTIONS = {
    "red": ("which is red", "which has a red hue"),
    "green": ("which is green",),
    "blue": ("which is blue", "like blue water", "which has blue light"),
    "grey": ("which has no colour",),
}


@pytest.fixture(scope="module")
def clip():
    """A small CLIP of random weights."""
    vision = {"image_size": 64, "layers": 1, "width": 64, "patch_size": 16, "head_width": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    args = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    card = BackboneCard(name="clip", source="open_clip", model="ViT-B-32", pretrained=False, model_args=args)
    return load_backbone(card)


@pytest.mark.parametrize("templates", [TEMPLATES, TEMPLATES[:1], ["{}"]])
def test_class_embeddings_are_open_clips_classifier(clip, templates):
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    expected = open_clip.build_zero_shot_classifier(clip.body, tokenizer, NAMES, templates, num_classes_per_batch=2)
    found = class_embeddings(clip, NAMES, templates)
    torch.testing.assert_close(found.T, expected.double(), atol=1e-6, rtol=0)


def test_the_prediction_is_open_clips(clip, make_split, context):
    split = make_split(40, 0, size=64)
    data = Dataset("squares", "classification", NAMES[:4], {"test": lambda: split}, prompts=TEMPLATES)
    task = find_task("zero-shot")
    predictions = task.run(clip, data, task.recipe(), context).predictions
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    with torch.no_grad():
        weights = open_clip.build_zero_shot_classifier(clip.body, tokenizer, NAMES[:4], TEMPLATES)
        images = torch.stack([clip.transform(image) for image in split.images])
        logits = 100 * clip.body.encode_image(images, normalize=True) @ weights
    expected = logits.softmax(dim=1).sort(dim=1, descending=True)
    np.testing.assert_array_equal(predictions["classes"][:, 0], expected.indices[:, 0])
    np.testing.assert_allclose(predictions["probabilities"], expected.values, atol=1e-4)


def by_hand(backbone, image, texts):
    """Menon and Vondrick's score of a class: the mean of the cosines of its texts."""
    return (normalize(image, dim=-1) @ normalize(backbone.embed_text(texts)).T).mean().item()


def test_a_class_is_the_mean_over_its_descriptions(clip):
    data = Dataset("d", "classification", ("hen", "cock"), {}, prompts=("a photo of a {}.", "{}"))
    data.descriptions = {"hen": ("which has a small comb", "which lays eggs"), "cock": ("which has a large comb",)}
    found = mean_texts(clip, described(data), data.prompts)
    image = torch.randn(24, generator=torch.Generator().manual_seed(0))
    texts = [
        "a photo of a hen, which has a small comb.",
        "hen, which has a small comb",
        "a photo of a hen, which lays eggs.",
        "hen, which lays eggs",
    ]
    scores = normalize(image, dim=-1).double() @ found.T
    assert scores[0].item() == pytest.approx(by_hand(clip, image, texts), abs=1e-6)
    assert scores[1].item() == pytest.approx(
        by_hand(clip, image, ["a photo of a cock, which has a large comb.", "cock, which has a large comb"]), abs=1e-6
    )


def test_by_description(make_backbone, squares_data, context):
    """A name that the text tower places wrongly is set right by what is said of it."""
    task, data, found = find_task("zero-shot"), squares_data(), {}
    odd = Dataset("odd", data.kind, ("bluebird", "green", "blue", "grey"), data._build, prompts=data.prompts)
    odd.descriptions = {"bluebird": DESCRIPTIONS["red"]} | DESCRIPTIONS
    for way in ("name", "description"):
        predictions = task.run(make_backbone(text=True), odd, task.recipe({"by": way}), context).predictions
        found[way] = estimate(task.measure(predictions, odd))["mean_per_class"].value
    assert found["description"] > 60
    assert found["name"] < 60


def test_a_class_without_descriptions_is_named(make_backbone, squares_data, context):
    task, data = find_task("zero-shot"), squares_data()
    data.descriptions = {name: DESCRIPTIONS[name] for name in ("red", "green")}
    with pytest.raises(BadInput, match=r"dataset squares: descriptions: none of 'blue'; .*by=name"):
        task.run(make_backbone(text=True), data, task.recipe({"by": "description"}), context)
    assert context.images == 0  # said before the images are looked at
    with pytest.raises(BadInput, match="recipe of zero-shot: by"):
        task.recipe({"by": "descriptions"})
