"""Likeness to people: decisions, trials, and every score against plain counting by the definitions."""

import csv
from itertools import combinations, product

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput, NotApplicable, load_backbone
from backbench.backbones.classifier import load_classifier
from backbench.tasks import estimate, find_task, load_dataset, read_predictions, write_predictions
from backbench.tasks.human.categories import CATEGORIES, decisions, members
from backbench.tasks.human.cues import Cues
from backbench.tasks.human.human_likeness import SETS, people
from backbench.tasks.pictures import save
from PIL import Image
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import cohen_kappa_score

CLASSES = ("car", "cat", "clock", "dog")
HEADER = "subj,session,trial,rt,object_response,category,condition,imagename\n"
EXPERIMENTS = {"cue-conflict": "style-transfer", "edges": "edge", "silhouettes": "silhouette"}


# -- decisions ----------------------------------------------------------------------------------------------------


def test_categories_are_disjoint_and_of_the_classes_that_their_names_say():
    from timm.data import ImageNetInfo

    told = ImageNetInfo("imagenet-1k").label_descriptions()
    numbers = [number for category in CATEGORIES for number in members(category)]
    assert len(numbers) == len(set(numbers)) == 207
    assert list(CATEGORIES) == sorted(CATEGORIES)
    words = {
        "bear": "bear",
        "bicycle": "bicycle bike",
        "bottle": "bottle jug",
        "car": "car convertible wagon",
        "cat": "cat",
        "chair": "chair throne",
        "clock": "clock",
        "elephant": "elephant",
        "keyboard": "keyboard",
        "knife": "cleaver",
        "oven": "rotisserie",
        "truck": "truck van",
        "airplane": "airliner",
    }
    for category, known in words.items():
        for number in members(category):
            assert any(word in told[number] for word in known.split()), (category, told[number])
    spans = {"dog": (151, 268), "bird": (7, 146)}
    for category, (first, last) in spans.items():
        assert first <= min(members(category))
        assert max(members(category)) <= last
    animals = {told[number].split(",")[0] for number in [*members("bird"), *members("dog")]}
    assert {"robin", "pelican", "beagle", "Mexican hairless"} <= animals
    assert {"cock", "peacock", "Chihuahua", "timber wolf", "red fox"}.isdisjoint(animals)  # not by the authors' choice


def test_the_decision_is_the_highest_mean_probability():
    logits = 5 * torch.randn(200, 1000, generator=torch.Generator().manual_seed(0))
    groups = [members(category) for category in CATEGORIES]
    probabilities = logits.double().softmax(dim=1)
    want = torch.stack([probabilities[:, group].mean(dim=1) for group in groups], dim=1).argmax(dim=1)
    assert torch.equal(decisions(logits, groups), want)
    assert decisions(torch.zeros(2, 1000), groups).tolist() == [0, 0]
    assert decisions(torch.full((1, 1000), -1e4) + 1e3 * torch.eye(1000)[444], groups).tolist() == [2]


def test_cues_by_name():
    ids = ["cat/cat1-dog2.png", "cat/cat2-cat1.png", "dog/dog10-car3.jpg", "car/car1-dog1.png"]
    answers = np.array([[1, 1, 0, 2], [3, 0, 3, 3], [2, 1, -1, -2]])
    cues = Cues.of(answers, ids, np.array([1, 1, 3, 0]), CLASSES)
    assert cues.conflict.tolist() == [True, False, True, True]  # no conflict: not a decision for either
    assert cues.bias(np.ones(4)).tolist()[:2] == pytest.approx([1 / 2, 1 / 3])
    assert np.isnan(cues.bias(np.ones(4))[2])
    shape, texture = cues.accuracies(np.array([2.0, 9, 1, 1]))
    assert shape.tolist() == pytest.approx([2 / 4, 1 / 4, 0])
    assert texture.tolist() == pytest.approx([1 / 4, 3 / 4, 0])


@pytest.mark.parametrize("image", ["cat/cat1.png", "cat/dog1-cat1.png", "cat/cat1-catt2.png"])
def test_names_that_tell_no_cues(image):
    with pytest.raises(BadInput, match=r"tells no cues|no category 'catt'; did you mean 'cat'"):
        Cues.of(np.zeros((1, 1), int), [image], np.array([1]), CLASSES)


# -- a small experiment of files ------------------------------------------------------------------------------------


def images_of(name):
    """Names of a set's images by class, every second cue conflict of the authors' kind."""
    plain = {c: [f"{c}{i}" for i in range(1, 5)] for c in CLASSES}
    if name != "cue-conflict":
        return plain
    return {c: [f"{c}{i}-{t}1" for i, t in enumerate(CLASSES, 1)] for c in CLASSES}


@pytest.fixture
def experiment(tmp_path):
    """Path of a card of the three sets with tables of two people and a network; the second answers to half of them."""
    rng = np.random.default_rng(1)
    lines = ["kind: classification", "source: imagefolder", "splits:"]
    for name, words in EXPERIMENTS.items():
        lines.append(f"  {name}: {{images: stimuli/{name}, trials: raw/{words}}}")
        (tmp_path / "raw" / words).mkdir(parents=True)
        shown = images_of(name)
        for category, stems in shown.items():
            (tmp_path / "stimuli" / name / category).mkdir(parents=True)
            for stem in stems:
                pixels = rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "stimuli" / name / category / f"{stem}.png")
        for who in ("subject-01", "subject-02", "alexnet"):
            with (tmp_path / "raw" / words / f"{words}_{who}.csv").open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow(HEADER.strip().split(","))
                every = [(c, stem) for c in CLASSES for stem in shown[c]] + [("car", "car99-dog9")]  # not in the split
                for trial, (category, stem) in enumerate(every):
                    if who == "subject-02" and trial % 2:
                        continue
                    answer = rng.choice([category, category, *CLASSES, "na"])
                    image = f"{trial:04}_s5n_s01_0_{category}_00_{stem}.png"
                    table.writerow([who, 1, trial, 0.5, answer, category, 0, image])
    path = tmp_path / "small.yaml"
    path.write_text("\n".join([*lines, f"classes: [{', '.join(CLASSES)}]", "license: none", ""]))
    return path


@pytest.fixture
def net(tmp_path):
    """A small network with a classifier of its own."""
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(3)
        torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "net.pth")
    card = tmp_path / "net.yaml"
    says = "input: {size: 64, mean: [0.5, 0.5, 0.5], std: [0.2, 0.2, 0.2]}"
    card.write_text(f"source: timm\nmodel: test_resnet\ncheckpoint: net.pth\n{says}\n")
    return load_backbone(card)


def trials_of(card, name):
    """By observer and image, what the tables say: (category, answer)."""
    found = {}
    for table in (card.parent / "raw" / EXPERIMENTS[name]).glob("*.csv"):
        with table.open() as file:
            for row in csv.DictReader(file):
                stem = row["imagename"].removesuffix(".png").split("_")[-1]
                found.setdefault(row["subj"], {})[stem] = (row["category"], row["object_response"])
    return found


def counted(card, predictions):
    """All scores by the definitions, one image at a time."""
    kappas, ceilings, class_wise, pair_wise, found = [], [], [], [], {}
    for name in SETS:
        own = predictions["split"] == name
        ids, answers = predictions["id"][own], predictions["category"][own]
        shown = {i.split("/")[-1].removesuffix(".png"): CLASSES[a] for i, a in zip(ids, answers, strict=True)}
        shape = {i.split("/")[-1].removesuffix(".png"): i.split("/")[0] for i in ids}
        observers = {"backbone": {stem: (shape[stem], answer) for stem, answer in shown.items()}}
        tables = trials_of(card, name)
        observers |= {who: {s: t for s, t in tables[who].items() if s in shown} for who in ("subject-01", "subject-02")}
        right = {who: {s: c == a for s, (c, a) in trials.items()} for who, trials in observers.items()}
        pairs = {}
        for one, other in combinations(observers, 2):
            both = sorted(right[one].keys() & right[other].keys())
            same = [right[one][s] == right[other][s] for s in both]
            pairs[one, other] = (
                1.0 if all(same) else cohen_kappa_score([right[one][s] for s in both], [right[other][s] for s in both])
            )
        kappas.append(np.mean([pairs["backbone", who] for who in ("subject-01", "subject-02")]))
        ceilings.append(pairs["subject-01", "subject-02"])
        found[f"error_consistency_{name.replace('-', '_')}"] = kappas[-1]
        errors = {who: [t for t in trials.values() if t[0] != t[1]] for who, trials in observers.items()}
        by_class = {who: [sum(c == k for c, _ in e) for k in CLASSES] for who, e in errors.items()}
        by_pair = {who: [e.count(cell) for cell in product(CLASSES, CLASSES)] for who, e in errors.items()}
        for counts, into in ((by_class, class_wise), (by_pair, pair_wise)):
            into.append(np.mean([jensenshannon(counts["backbone"], counts[w]) for w in list(observers)[1:]]))
        if name == "cue-conflict":
            biases = []
            for trials in observers.values():
                cues = [(s.split("-")[0][:-1], s.split("-")[1][:-1], a) for s, (_, a) in trials.items()]
                cues = [cue for cue in cues if cue[0] != cue[1]]
                by_shape, by_texture = sum(a == s for s, _, a in cues), sum(a == t for _, t, a in cues)
                biases.append(100 * by_shape / (by_shape + by_texture))
                if len(biases) == 1:
                    found["shape_accuracy"] = 100 * by_shape / len(cues)
                    found["texture_accuracy"] = 100 * by_texture / len(cues)
            found["shape_bias"], found["human_shape_bias"] = biases[0], np.mean(biases[1:])
        else:
            found[name] = 100 * np.mean(list(right["backbone"].values()))
    means = {"error_consistency": kappas, "human_error_consistency": ceilings}
    means |= {"classwise_js": class_wise, "interclass_js": pair_wise}
    return found | {score: np.mean(values) for score, values in means.items()}


def test_scores_are_those_of_the_definitions(experiment, net, context, tmp_path):
    task, data = find_task("human-likeness"), load_dataset(experiment, "classification")
    rng = np.random.default_rng(5)
    predictions = task.run(net, data, task.recipe(), context).predictions
    for _ in range(5):
        predictions["category"] = rng.integers(0, 4, 48).astype(np.int32)
        write_predictions(predictions, tmp_path / "p.parquet")
        measure = task.measure(read_predictions(tmp_path / "p.parquet"), data)
        want = counted(experiment, predictions)
        assert measure.scores(np.ones(48)) == pytest.approx(want)
        assert all(task.metric(name) for name in want)
    found = estimate(measure)
    assert all(found[n].low <= found[n].value <= found[n].high for n in want)
    assert found["error_consistency"].low < found["error_consistency"].high
    figure = task.picture(predictions, data)
    save(figure, tmp_path / "picture.png")
    assert [axes.get_title() for axes in figure.axes] == [
        "Shape bias by shape category",
        "Error consistency, by person",
    ]
    assert len(figure.axes[1].patches) == 6  # a bar a person and set


def test_the_classifier_decides(experiment, net, context):
    task, data = find_task("human-likeness"), load_dataset(experiment, "classification")
    outcome = task.run(net, data, task.recipe(), context)
    classifier = load_classifier(net)
    assert outcome.chosen == {"by": "classifier", "weights_digest": classifier.weights_digest}
    images = torch.stack([net.transform(image) for name in SETS for image in data[name].images])
    with torch.no_grad():
        means = classifier(images).embedding.softmax(dim=1)
    table = torch.stack([means[:, members(c)].mean(dim=1) for c in CLASSES], dim=1)
    assert outcome.predictions["category"].tolist() == table.argmax(dim=1).tolist()
    assert context.images == 48


def test_a_text_tower_decides_by_names(experiment, make_backbone, context):
    task, data = find_task("human-likeness"), load_dataset(experiment, "classification")
    outcome = task.run(make_backbone(text=True), data, task.recipe(), context)
    assert outcome.chosen == {"by": "text"}
    assert estimate(task.measure(outcome.predictions, data))["error_consistency"]


def test_without_a_classifier_there_is_nothing_to_ask(experiment, context, make_backbone):
    task, data = find_task("human-likeness"), load_dataset(experiment, "classification")
    for backbone in (make_backbone(), load_backbone("mini/vit-masked")):
        with pytest.raises(NotApplicable, match="has no classifier"):
            task.run(backbone, data, task.recipe(), context)


def test_without_errors_or_decisions_some_scores_are_absent(experiment, net, context, tmp_path):
    task, data = find_task("human-likeness"), load_dataset(experiment, "classification")
    predictions = task.run(net, data, task.recipe(), context).predictions
    labels = np.concatenate([data[name].targets for name in SETS])
    right = task.measure(predictions | {"category": labels.astype(np.int32)}, data)
    found = estimate(right)
    assert {"classwise_js", "interclass_js"}.isdisjoint(found)
    assert found["shape_bias"].value == found["edges"].value == 100
    assert found["error_consistency"].value == 0  # who is always right fails with nobody
    textures = np.array([CLASSES.index(i.split("-")[1][:-5]) if "-" in i else 0 for i in predictions["id"]])
    neither = np.array([min({0, 1, 2, 3} - {s, t}) for s, t in zip(labels, textures, strict=True)])
    undecided = predictions | {"category": neither.astype(np.int32)}
    found = task.measure(undecided, data).scores(np.ones(48))
    assert "shape_bias" not in found
    assert found["shape_accuracy"] == found["texture_accuracy"] == found["edges"] == 0
    save(task.picture(undecided, data), tmp_path / "picture.png")  # a row without a square, no error


def test_one_class_alone(experiment, net, context):
    """No cue conflict, no other category to confuse anything with."""
    for name in EXPERIMENTS:
        for other in CLASSES[1:]:
            for image in (experiment.parent / "stimuli" / name / other).iterdir():
                image.unlink()
        for image in (experiment.parent / "stimuli" / name / "car").glob("*-[!c]*"):
            image.unlink()
    for image in (experiment.parent / "stimuli" / "cue-conflict" / "car").glob("*-c[!a]*"):
        image.unlink()
    (experiment.parent / "stimuli" / "cue-conflict" / "car" / "car2-cat1.png").unlink(missing_ok=True)
    task, data = find_task("human-likeness"), load_dataset(experiment, "classification")
    found = estimate(task.measure(task.run(net, data, task.recipe(), context).predictions, data))
    assert {"shape_bias", "shape_accuracy", "human_shape_bias"}.isdisjoint(found)
    assert all(np.isfinite([e.value, e.low, e.high]).all() for e in found.values())


# -- tables of trials -----------------------------------------------------------------------------------------------


def test_trials_are_read_and_are_part_of_the_split(experiment):
    data = load_dataset(experiment, "classification")
    split, told = data["edges"], trials_of(experiment, "edges")
    assert sorted(split.trials) == ["alexnet", "subject-01", "subject-02"]
    assert list(people("edges", split)) == ["subject-01", "subject-02"]
    for who, answers in split.trials.items():
        for image, answer in zip(split.ids, answers, strict=True):
            said = told[who].get(image.split("/")[1].removesuffix(".png"), (None, None))[1]
            assert answer == (-2 if said is None else -1 if said == "na" else CLASSES.index(said))
    assert split.take(5).trials["subject-01"].tolist() == split.trials["subject-01"][[0, 4, 8, 11, 15]].tolist()
    table = next((experiment.parent / "raw" / "edge").glob("*subject-02*"))
    table.write_text(table.read_text().rsplit("\n", 2)[0] + "\n")
    assert load_dataset(experiment, "classification")["edges"].fingerprint != split.fingerprint


ROW = "subject-09,1,1,0.5,cat,car,0,0001_x_s01_0_car_00_car1.png\n"
FAULTS = {
    "line 1: there is no column 'subj'": "who,object_response,category,imagename\n",
    "line 1: there is no column 'subj'; its columns are: none": "",
    "line 2: object_response 'catt' is no class of small; did you mean 'cat'": HEADER + ROW.replace(",cat,", ",catt,"),
    "line 2: category 'na' is no class of small": HEADER + ROW.replace(",car,0", ",na,0"),
    "line 2: category is 'dog', the image 'car/car1.png' is in class 'car'": HEADER + ROW.replace(",car,0", ",dog,0"),
    "line 3: subject-09 answers to 'car/car1.png' for the second time": HEADER + ROW + ROW,
    "line 2: has another number of fields than line 1": HEADER + "subject-09,1,1\n",
    "cannot be read as a table": HEADER + '"' + ROW,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_tables(experiment, fault):
    table = experiment.parent / "raw" / "edge" / "x.csv"
    table.write_text(FAULTS[fault])
    with pytest.raises(BadInput) as error:
        load_dataset(experiment, "classification")["edges"]
    assert fault in str(error.value)
    assert str(table) in str(error.value)
    assert "\n" not in str(error.value)


def test_tables_that_are_not_there_or_of_other_images(experiment):
    folder = experiment.parent / "raw" / "edge"
    for table in folder.iterdir():
        table.write_text(HEADER + ROW.replace("car1", "car77"))
    with pytest.raises(BadInput, match="no trial is of an image of split edges of small"):
        load_dataset(experiment, "classification")["edges"]
    for table in folder.iterdir():
        table.unlink()
    with pytest.raises(BadInput, match=r"splits.edges.trials: no table \(.csv\) in"):
        load_dataset(experiment, "classification")["edges"]
    folder.rmdir()
    with pytest.raises(BadInput, match=r"splits.edges: there is no .*raw/edge"):
        load_dataset(experiment, "classification")["edges"]


def test_data_that_the_task_cannot_use(experiment, net, context):
    task = find_task("human-likeness")
    text = experiment.read_text()
    experiment.write_text(text.replace(", trials: raw/edge", ""))
    with pytest.raises(BadInput, match=r"small/edges: no person's answers; give `trials`"):
        task.run(net, load_dataset(experiment, "classification"), task.recipe(), context)
    (experiment.parent / "raw" / "edge" / "edge_subject-01.csv").unlink()
    (experiment.parent / "raw" / "edge" / "edge_subject-02.csv").unlink()
    experiment.write_text(text)
    with pytest.raises(BadInput, match="small/edges: no person's answers"):
        task.run(net, load_dataset(experiment, "classification"), task.recipe(), context)
    for name, words in EXPERIMENTS.items():
        for folder in (experiment.parent / "stimuli" / name, experiment.parent / "raw" / words):
            for table in folder.glob("*.csv"):
                table.unlink()
        (experiment.parent / "stimuli" / name / "cat").rename(experiment.parent / "stimuli" / name / "catt")
    plain = text.replace("classes: [car, cat, clock, dog]", "")
    for words in EXPERIMENTS.values():
        plain = plain.replace(f", trials: raw/{words}", "")
    experiment.write_text(plain)
    with pytest.raises(BadInput, match=r"classes: there is no category 'catt'; did you mean 'cat'"):
        task.run(net, load_dataset(experiment, "classification"), task.recipe(), context)
    with pytest.raises(BadInput, match="digit-scenes: human-likeness needs a split 'cue-conflict'"):
        task.check_data(load_dataset("digit-scenes", "classification"))


def test_stored_predictions_are_checked(experiment, net, context):
    task, data = find_task("human-likeness"), load_dataset(experiment, "classification")
    predictions = task.run(net, data, task.recipe(), context).predictions
    bad = predictions["category"].copy()
    bad[20] = 4
    with pytest.raises(BadInput, match="split edges: 'category' is one of the 4 of small"):
        task.measure(predictions | {"category": bad}, data)
    with pytest.raises(BadInput, match=r"predictions row 0 is for image"):
        task.measure({name: column[::-1] for name, column in predictions.items()}, data)


# -- the real stimuli, trials and checkpoints -------------------------------------------------------------------------


@pytest.fixture
def stimuli(real_data, tmp_path):
    """The packaged card, of the part of the authors' files that is there: half of the cue conflicts, at 224 px."""
    from backbench.tasks.datasets.registry import CARDS

    card = (CARDS / "texture-vs-shape.yaml").read_text().replace("preprocessed-512", "preprocessed-224")
    path = tmp_path / "texture-vs-shape.yaml"
    path.write_text(f"path: {real_data / 'datasets' / 'texture_vs_shape'}\n{card}")
    return load_dataset(path, "classification")


SQUEEZENET = """\
source: torchvision
model: squeezenet1_0
checkpoint: {root}/weights/squeezenet1_0_imagenet/squeezenet1_0_imagenet_fp16.pth
input: {{size: 224, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}}
"""
MEASURED = {  # SOURCE.md of the stimuli: of 601 images in conflict; edges and silhouettes are MobileNet's
    "squeezenet": {"shape_accuracy": 15.1, "texture_accuracy": 38.8, "shape_bias": 28.1},
    "mobilenet": {
        "shape_accuracy": 14.5,
        "texture_accuracy": 49.6,
        "shape_bias": 22.6,
        "edges": 30.6,
        "silhouettes": 42.5,
    },
}


@pytest.mark.real
@pytest.mark.parametrize("name", MEASURED)
def test_real_checkpoints_are_as_biased_as_was_measured(stimuli, real_data, mobilenet, tmp_path, context, name):
    card = mobilenet
    if name == "squeezenet":
        card = tmp_path / "squeezenet.yaml"
        card.write_text(SQUEEZENET.format(root=real_data))
    task = find_task("human-likeness")
    predictions = task.run(load_backbone(card), stimuli, task.recipe(), context).predictions
    found = estimate(task.measure(predictions, stimuli))
    for score, value in MEASURED[name].items():
        assert found[score].value == pytest.approx(value, abs=3), score
    people_agree = found["human_error_consistency"]
    assert 0 < found["error_consistency"].low < found["error_consistency"].high < people_agree.low
    assert found["human_shape_bias"].value > 94


@pytest.mark.real
def test_the_raw_trials_give_the_published_shape_biases(real_data, stimuli):
    """Geirhos et al. 2019, figure 4: of all 1280 images, whose names the tables hold; people's are taken together."""
    folder = real_data / "datasets" / "texture_vs_shape" / "raw-data" / "style-transfer-512-nomask-experiment"
    published = {"alexnet": 42.9, "vgg": 17.2, "googlenet": 31.2}
    totals = {}
    for table in folder.glob("*.csv"):
        with table.open() as file:
            rows = list(csv.DictReader(file))
        ids = [row["imagename"].split("_")[-1] for row in rows]
        labels = np.array([stimuli.classes.index(row["category"]) for row in rows])
        answers = [stimuli.classes.index(a) if (a := row["object_response"]) != "na" else -1 for row in rows]
        cues = Cues.of(np.array([answers]), ids, labels, stimuli.classes)
        who = rows[0]["subj"]
        assert len(rows) == 1280
        assert cues.conflict.sum() == 1200
        if who in published:
            assert round(100 * cues.bias(np.ones(1280))[0], 1) == published.pop(who)
        else:
            totals[who] = [cues.by_shape.sum(), cues.by_texture.sum()]
    assert not published
    assert len(totals) == 10
    by_shape, by_texture = np.sum(list(totals.values()), axis=0)
    assert 100 * by_shape / (by_shape + by_texture) == pytest.approx(95.9, abs=0.1)
