"""Published tables of each format, small ones of the very shape, into figures and into a store."""

import pytest
from backbench.backbones import BadInput
from backbench.leaderboard import Store
from backbench.leaderboard.importing.collecting import About
from backbench.leaderboard.importing.keeping import keep
from backbench.leaderboard.importing.registry import FORMATS, read_files
from backbench.leaderboard.importing.table import Layout

TIMM = "model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,interpolation"
A_ROW = "resnet50.a1_in1k,224,80.1,19.9,94.9,5.1,25.56,0.950,bicubic"
OPEN_CLIP = "name,pretrained,params (M),FLOPs (B),Average perf. on 35 datasets,ImageNet 1k,ImageNet-A,FMoW"
PROFILE = "model,image_size,image_width,text_width,embed_dim,mparams,image_mparams,text_mparams,gflops,image_gflops"
PROFILE += ",text_gflops"
BENCHMARK = "acc1,acc5,mean_per_class_recall,dataset,model,pretrained,task,mean_average_precision"
BENCHMARK += ",image_retrieval_recall@5,text_retrieval_recall@5,model_fullname"
SCALING = "model_fullname,arch,samples_seen,gmacs_total,gmacs,upstream_dataset,downstream_dataset,acc1,task"
CSV = {"about": About("mine"), "layout": Layout(family="retrieval", metric="mrr")}


@pytest.fixture
def files(tmp_path):
    """`files("name.csv", line, …)`: a file's path; several files: a list a file."""

    def write(name: str, *lines: str, folder: str = "."):
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join([*lines, ""]))
        return path

    return write


def read(format, *paths, about=None, layout=None):
    return read_files(format, list(paths), about or About(), layout)


def figures(format, *paths, **more):
    """(backbone, data set, metric) → figure."""
    found = [f for one in read(format, *paths, **more) for f in one.figures]
    assert len({(f.backbone.name, *f.column) for f in found}) == len(found)
    return {(f.backbone.name, f.dataset, f.metric): f for f in found}


def test_timm(files):
    shown = f"{TIMM},top1_diff,top5_diff,rank_diff"
    found = figures(
        "timm",
        files("results-imagenet.csv", TIMM, A_ROW, A_ROW.replace(",224,80.1", ",288,81.2").replace(",19.9", ",18.8")),
        files("results-imagenet-a.csv", shown, A_ROW.replace("25.56", '"1,025.56"') + ",-1.0,-2.0,+3"),
        files("results-imagenet-a-clean.csv", TIMM, A_ROW),
    )
    top1 = found["timm/resnet50.a1_in1k", "imagenet-1k", "top1"]
    assert (top1.value, top1.unit, top1.range_high, top1.family, top1.use) == (
        80.1,
        "%",
        100.0,
        "classification",
        "ranked",
    )
    facts = top1.backbone
    assert facts.parameters == 25_560_000
    assert facts.macs is None
    assert [facts.fact(key) for key in ("family", "method", "data")] == ["cnn", "supervised", "imagenet-1k"]
    assert facts.card["input"] == {"size": 224, "crop": 0.95, "interpolation": "bicubic"}
    assert facts.fact("license")
    larger = found["timm/resnet50.a1_in1k@288px", "imagenet-1k", "top1"]
    assert larger.value == 81.2
    assert larger.backbone.fact("model") == "resnet50.a1_in1k"
    harder = found["timm/resnet50.a1_in1k", "imagenet-a", "top1"]
    assert (harder.family, harder.use, harder.backbone.parameters) == ("ood", "ranked", 1_025_560_000)
    assert found["timm/resnet50.a1_in1k", "imagenet-a", "top5"].use == "kept"
    assert found["timm/resnet50.a1_in1k", "imagenet-a-clean", "top1"].use == "shown"
    assert set(top1.source.files) == {"results-imagenet.csv"}
    assert (top1.source.name, top1.source.license) == ("timm", "apache-2.0")


def test_a_network_that_timm_no_longer_has_is_told_by_its_name_alone(files):
    row = A_ROW.replace("resnet50.a1_in1k", "notanet9.clip_laion2b_ft_in12k")
    (name, *_), figure = next(iter(figures("timm", files("results-imagenet.csv", TIMM, row)).items()))
    assert name == "timm/notanet9.clip_laion2b_ft_in12k@224px"
    assert figure.backbone.fact("family") is None
    assert figure.backbone.fact("data") == "laion-2b + imagenet-12k"


def test_open_clip(files):
    results = files(
        "openclip_classification_results.csv", OPEN_CLIP, "ViT-B-32,laion2b_s34b_b79k,151.28,14.78,0.5,0.6656,0.2625,"
    )
    found = figures("open-clip", results)
    name = "open_clip/ViT-B-32@laion2b_s34b_b79k"
    assert {key[1:]: f.value for key, f in found.items()} == {
        ("imagenet-1k", "top1"): 66.56,
        ("imagenet-a", "top1"): 26.25,
    }
    top1 = found[name, "imagenet-1k", "top1"]
    assert (top1.task, top1.family, found[name, "imagenet-a", "top1"].family) == ("zero-shot", "classification", "ood")
    assert (top1.backbone.parameters, top1.backbone.macs) == (151_280_000, None)
    assert top1.backbone.card["both_towers"] == {"parameters_millions": 151.28, "flops_billions": 14.78}
    assert [top1.backbone.fact(key) for key in ("family", "method", "data")] == ["vit", "vision-language", "laion-2b"]
    profile = files("model_profile.csv", PROFILE, "ViT-B-32,224,768,512,512,151.28,87.85,63.43,14.78,8.82,5.96")
    facts = next(iter(figures("open-clip", profile, results).values())).backbone
    assert (facts.parameters, facts.macs) == (87_850_000, 4_410_000_000)
    with pytest.raises(BadInput, match="has no results"):
        read("open-clip", profile)


def test_open_clip_s_retrieval_is_a_source_of_its_own(files):
    head = "name,pretrained,params (M),FLOPs (B),Average score,Flickr image retr. R@1,Flickr image retr. R@5"
    head += ",Flickr text retr. R@1"
    [one] = read(
        "open-clip", files("openclip_retrieval_results.csv", head, "RN50,openai,102.01,18.18,0.6,0.58,0.83,0.8")
    )
    assert one.source.name == "open-clip-retrieval"
    assert {(f.dataset, f.metric): (f.value, f.use) for f in one.figures} == {
        ("flickr30k", "text_to_image_at_1"): (58.0, "ranked"),
        ("flickr30k", "text_to_image_at_5"): (83.0, "kept"),
        ("flickr30k", "image_to_text_at_1"): (80.0, "ranked"),
    }


def test_clip_benchmark(files):
    found = figures(
        "clip-benchmark",
        files(
            "benchmark.csv",
            BENCHMARK,
            "0.6,0.9,0.59,imagenet1k,ViT-B-32,openai,zeroshot_classification,,,,ViT-B-32 openai",
            "0.3,0.6,0.29,imagenet-a,ViT-B-32,openai,zeroshot_classification,,,,ViT-B-32 openai",
            ",,,voc2007_multilabel,ViT-B-32,openai,zeroshot_classification,0.76,,,ViT-B-32 openai",
            ",,,flickr30k,ViT-B-32,openai,zeroshot_retrieval,,0.83,0.94,ViT-B-32 openai",
        ),
    )
    assert {key[1:]: (f.value, f.family, f.use) for key, f in found.items()} == {
        ("imagenet-1k", "top1"): (60.0, "classification", "ranked"),
        ("imagenet-1k", "top5"): (90.0, "classification", "kept"),
        ("imagenet-1k", "mean_per_class"): (59.0, "classification", "kept"),
        ("imagenet-a", "top1"): (30.0, "ood", "ranked"),
        ("imagenet-a", "top5"): (60.0, "ood", "kept"),
        ("imagenet-a", "mean_per_class"): (29.0, "ood", "kept"),
        ("voc2007-multilabel", "map"): (76.0, "classification", "ranked"),
        ("flickr30k", "text_to_image_at_5"): (83.0, "retrieval", "ranked"),
        ("flickr30k", "image_to_text_at_5"): (94.0, "retrieval", "ranked"),
    }
    assert {key[0] for key in found} == {"open_clip/ViT-B-32@openai"}


def test_clip_benchmark_s_scaling_laws(files):
    tail = "vtab/cifar10,0.9,zeroshot_classification"
    lines = [
        f"ViT-B-32 openai,ViT-B-32,12800000000.0,1e14,7.4,CLIP-WIT,{tail}",
        f"ViT-B-32 Model-B-32_Data-80M.pt,ViT-B-32,3e9,1e13,7.4,LAION-80M,{tail}",
        f"ViT-B-32 openai,ViT-B-32,12800000000.0,1e14,7.4,CLIP-WIT,{tail.replace('/cifar10', '')}",
    ]
    [one] = read("clip-benchmark", files("openclip_results.csv", SCALING, *lines))
    assert one.source.name == "clip-scaling"
    assert [f.dataset for f in one.figures] == ["cifar10"] * 2
    assert one.notes == ("left out vtab: means over data sets",)
    known, other = [f.backbone for f in one.figures]
    assert (known.name, known.fact("data")) == ("open_clip/ViT-B-32@openai", "wit-400m")
    assert (other.name, other.fact("data")) == ("ViT-B-32@Model-B-32_Data-80M.pt", "laion-80m")
    assert (other.fact("method"), other.card["samples_seen"], other.macs) == ("vision-language", 3e9, None)


def test_csv_wide(files):
    path = files("mine.csv", "Model,CUB,iNat,note", "a,0.5,0.25,x", "b,1,-,y")
    [one] = read("csv", path, **CSV)
    assert one.ignored == ("note",)
    assert any("0..1" in note for note in one.notes)
    assert {(f.backbone.name, f.dataset): f.value for f in one.figures} == {
        ("a", "CUB"): 50.0,
        ("a", "iNat"): 25.0,
        ("b", "CUB"): 100.0,
    }
    first = one.figures[0]
    assert (first.task, first.family, first.metric, first.unit, first.source.title) == (
        *("retrieval", "retrieval", "mrr", "%", "mine"),
    )
    only = read(
        "csv", path, about=About("mine"), layout=Layout(family="ood", metric="e", only=("iNat",), lower=("iNat",))
    )
    assert [(f.dataset, f.higher_is_better) for f in only[0].figures] == [("iNat", False)]
    assert only[0].ignored == ("note", "CUB")


def test_csv_with_a_row_a_figure(files):
    path = files("mine.csv", "data,net,score,seed", "CUB,a,50.5,1", "CUB,b,60,1", "iNat,a,30,2", "iNat,b,n/a,2")
    layout = Layout(name="net", dataset="data", value="score", family="retrieval", metric="mrr", task="search")
    [one] = read("csv", path, about=About("mine"), layout=layout)
    assert {(f.backbone.name, f.dataset): f.value for f in one.figures} == {
        ("a", "CUB"): 50.5,
        ("b", "CUB"): 60.0,
        ("a", "iNat"): 30.0,
    }
    assert {f.task for f in one.figures} == {"search"}
    assert any("percent" in note for note in one.notes)
    assert one.ignored == ("seed",)


def test_a_name_of_the_roster_brings_its_facts(files):
    [one] = read("csv", files("mine.csv", "model,CUB", "timm/resnet50.a1_in1k,0.5", "own,0.4"), **CSV)
    known, own = [f.backbone for f in one.figures]
    assert (known.fact("family"), own.fact("family")) == ("cnn", None)


@pytest.mark.parametrize(
    ("rows", "layout", "told"),
    [
        (("a,0.5,70",), {}, "say --unit"),  # one data set in shares, one in percent?
        (("a,20,170",), {}, "say --unit"),
        (("a,-0.5,0.3",), {}, "say --unit"),
        (("a,0.5,70",), {"unit": "fraction"}, r"mine\.csv:2: column 'iNat': 70 is not within 0..1"),
        (("a,20,170",), {"unit": "percent"}, r"mine\.csv:2: column 'iNat': 170 is not within 0..100"),
        (("a,0.5,0.4", 'a,0.5,"0,3"'), {}, r"mine\.csv:3: column 'iNat': '0,3' has a comma"),
        (("a,0.5,0.4", "b,0.5,NaN"), {}, r"mine\.csv:3: column 'iNat': 'NaN' is not a figure"),
        (("a,0.5,0.4", "b,0.5,bad"), {}, r"mine\.csv:3: column 'iNat': 'bad' is not a number"),
        (("a,0.5,0.4", "a,0.5,0.3"), {}, r"mine\.csv:3: column 'iNat': a has 30 here and 40 in line 2"),
        ((",0.5,0.4",), {}, r"mine\.csv:2: column 'model': there is no name"),
        (("a,x,y",), {}, "no column of numbers"),
        (("a,0.5,0.4",), {"only": ("iNta",)}, "did you mean 'iNat'"),
        (("a,0.5,0.4",), {"lower": ("CUP",)}, "did you mean 'CUB'"),
        (("a,0.5,0.4",), {"name": "modl"}, "did you mean 'model'"),
        (("a,0.5,0.4",), {"dataset": "CUB"}, "--value-column"),
        (("a,0.5,0.4",), {"family": "retrieva"}, "did you mean 'retrieval'"),
        (("a,0.5,0.4",), {"family": None}, "say --family and --metric"),
        (("a,0.5,0.4",), {"metric": None}, "say --family and --metric"),
        (("a,0.5,0.4",), {"metric": "m" * 41}, "--metric"),
        (("a,0.5,0.4",), {"task": "two\nlines"}, "--task"),
        (("a,0.5,0.4",), {"unit": ""}, "--unit"),
    ],
)
def test_what_only_a_person_can_say_is_asked_for(files, rows, layout, told):
    path = files("mine.csv", "model,CUB,iNat", *rows)
    with pytest.raises(BadInput, match=told) as raised:
        read("csv", path, about=About("mine"), layout=Layout(**{"family": "retrieval", "metric": "mrr"} | layout))
    assert "\n" not in str(raised.value)


def test_a_unit_of_one_s_own(files):
    layout = Layout(family="ood", metric="mce", unit="mCE", lower=("error",))
    [one] = read("csv", files("mine.csv", "model,error", "a,104.5", "b,60"), about=About("mine"), layout=layout)
    assert {(f.value, f.unit, f.range_low, f.range_high) for f in one.figures} == {
        (104.5, "mCE", 0.0, 104.5),
        (60.0, "mCE", 0.0, 104.5),
    }


def test_a_source_needs_a_name_and_a_table_with_names(files):
    for about, told in ((None, "say --source"), (About("Not A Name"), "source: name"), (About("x", url="ftp:"), "url")):
        with pytest.raises(BadInput, match=told):
            read("csv", files("mine.csv", "model,CUB", "a,0.5"), about=about, layout=CSV["layout"])
    with pytest.raises(BadInput, match="say --name-column"):
        read("csv", files("mine.csv", "iNat,CUB", "0.1,0.5"), **CSV)


@pytest.mark.parametrize(
    ("format", "name", "head", "told"),
    [
        ("timm", "results-imagenet.csv", TIMM.replace("top1,", "top_1,"), "'top_1'.*did you mean 'top1'"),
        ("timm", "results-imagenet.csv", TIMM.replace(",crop_pct", ""), "'crop_pct': not there"),
        ("timm", "results-imagenet.csv", f"{TIMM},throughput", "column 'throughput'"),
        ("open-clip", "openclip_results.csv", f"{OPEN_CLIP},ImageNet-Z", "column 'ImageNet-Z'"),
        ("open-clip", "model_profile.csv", PROFILE.replace("image_mparams", "image_params"), "'image_params'"),
        ("clip-benchmark", "benchmark.csv", BENCHMARK.replace("acc1", "acc_1"), "did you mean 'acc1'"),
        ("clip-benchmark", "openclip_results.csv", SCALING.replace(",task", ""), "column 'task'"),
    ],
)
def test_other_columns_than_expected_are_told(files, format, name, head, told):
    path = files(name, head, ",".join("1" for _ in head.split(",")))
    with pytest.raises(BadInput, match=rf"{name}:1: .*{told}"):
        read(format, path)


def test_a_file_that_tells_no_data_set(files):
    with pytest.raises(BadInput, match=r"did you mean 'results-imagenet\.csv'"):
        read("timm", files("results-imagnet.csv", TIMM, A_ROW))
    row = "0.6,0.9,0.59,imagenet1k,ViT-B-32,openai,captioning,,,,ViT-B-32 openai"
    with pytest.raises(BadInput, match="is none of zeroshot_classification"):
        read("clip-benchmark", files("benchmark.csv", BENCHMARK, row))
    with pytest.raises(BadInput, match=r"imagenet\.csv:2: column 'img_size': 224\.5 is no number of pixels"):
        read("timm", files("results-imagenet.csv", TIMM, A_ROW.replace(",224,", ",224.5,")))
    with pytest.raises(BadInput, match="did you mean 'timm'"):
        read("tim", files("results-imagenet.csv", TIMM, A_ROW))
    with pytest.raises(BadInput, match="is for `backbench import csv`"):
        read("timm", files("results-imagenet.csv", TIMM, A_ROW), layout=Layout(family="ood"))


def test_the_same_twice_counts_once_and_another_is_refused(files):
    twice = files("results-imagenet.csv", TIMM, A_ROW, A_ROW)
    assert len(figures("timm", twice)) == 2
    with pytest.raises(BadInput, match=r"imagenet\.csv:3: column 'top1': timm/resnet50.a1_in1k has 80.2 here and 80.1"):
        read("timm", files("results-imagenet.csv", TIMM, A_ROW, A_ROW.replace("80.1", "80.2")))
    one, other = files("one.csv", "model,CUB", "a,0.5"), files("two.csv", "model,CUB", "a,0.5", "b,0.6")
    first, second = read("csv", one, other, **CSV)
    assert [len(first.figures), len(second.figures)] == [1, 1]
    assert "1 figures are the same as in a file before" in second.notes
    with pytest.raises(BadInput, match=r"a has 50 on CUB in one\.csv and 40 in three\.csv"):
        read("csv", one, files("three.csv", "model,CUB", "a,0.4"), **CSV)
    with pytest.raises(BadInput, match=r"two files are named one\.csv"):
        read("csv", one, files("one.csv", "model,CUB", "c,0.4", folder="deeper"), **CSV)


@pytest.fixture
def store(database):
    return Store(database)


def values(store, source="mine"):
    return {(f.backbone.name, f.dataset): f.value for f in store.figures(source)}


def test_what_is_imported_again_changes_nothing(files, store):
    path = files("mine.csv", "model,CUB,iNat", "a,0.5,0.4", "b,0.6,0.3")
    [change] = keep(read("csv", path, **CSV), store)
    assert (change.added, change.removed, change.total) == (4, 0, 4)
    revision = store.revision()
    [change] = keep(read("csv", path, **CSV), store)
    assert (change.added, change.removed, change.total) == (0, 0, 4)
    assert store.revision() == revision


def test_a_newer_file_takes_the_place_of_the_older(files, store):
    keep(read("csv", files("mine.csv", "model,CUB,iNat", "a,0.5,0.4", "b,0.6,0.3"), **CSV), store)
    newer = read("csv", files("mine.csv", "model,CUB,new", "a,0.5,0.1", "c,0.7,0.2"), **CSV)
    [planned] = keep(newer, store, dry=True)
    assert len(values(store)) == 4
    [change] = keep(newer, store)
    assert values(store) == {("a", "CUB"): 50.0, ("c", "CUB"): 70.0, ("a", "new"): 10.0, ("c", "new"): 20.0}
    assert (planned.added, planned.removed) == (change.added, change.removed) == (3, 3)
    assert {f.source.files["mine.csv"] for f in store.figures("mine")} == {newer[0].source.files["mine.csv"]}


def test_files_of_a_source_may_come_one_by_one(files, store):
    keep(read("csv", files("cub.csv", "model,CUB", "a,0.5"), **CSV), store)
    [change] = keep(read("csv", files("inat.csv", "model,iNat", "a,0.4"), **CSV), store)
    assert values(store) == {("a", "CUB"): 50.0, ("a", "iNat"): 40.0}
    assert set(change.source.files) == {"cub.csv", "inat.csv"}
    # A column is of one import: another file with it takes its place whole.
    [change] = keep(read("csv", files("cub2.csv", "model,CUB", "b,0.6"), **CSV), store)
    assert values(store) == {("b", "CUB"): 60.0, ("a", "iNat"): 40.0}
    assert set(change.source.files) == {"cub2.csv", "inat.csv"}
    [source] = store.sources()
    assert source == change.source


def test_sources_do_not_touch_each_other(files, store):
    path = files("mine.csv", "model,CUB", "a,0.5")
    keep(read("csv", path, **CSV), store)
    keep(read("csv", path, about=About("other"), layout=CSV["layout"]), store)
    assert values(store, "mine") == values(store, "other")
    keep(read("csv", files("mine.csv", "model,CUB", "a,0.6"), **CSV), store)
    assert [values(store, name)["a", "CUB"] for name in ("mine", "other")] == [60.0, 50.0]


def test_nothing_is_kept_of_an_import_that_fails(files, store):
    good = files("results-imagenet.csv", TIMM, A_ROW)
    bad = files("results-sketch.csv", TIMM, A_ROW.replace("80.1", "NaN"))
    with pytest.raises(BadInput, match=r"results-sketch\.csv:2: column 'top1'"):
        keep(read("timm", good, bad), store)
    assert store.figures() == []


def test_files_without_figures_take_nothing_away(files, store):
    keep(read("csv", files("mine.csv", "model,CUB", "a,0.5"), **CSV), store)
    layout = Layout(dataset="set", value="mrr", family="retrieval", metric="mrr")
    with pytest.raises(BadInput, match=r"mine\.csv: no figures in it"):
        keep(read("csv", files("mine.csv", "model,set,mrr", "a,CUB,-"), about=CSV["about"], layout=layout), store)
    assert values(store) == {("a", "CUB"): 50.0}


def test_a_source_of_too_many_files_is_refused_whole(files, store):
    paths = [files(f"{i}.csv", f"model,set{i}", "a,0.5") for i in range(101)]
    keep(read("csv", *paths[:100], **CSV), store)
    with pytest.raises(BadInput, match="source mine: files"):
        keep(read("csv", paths[100], **CSV), store)
    assert len(values(store)) == 100


def test_every_format_is_there():
    from importlib import import_module

    for module in FORMATS.values():
        assert import_module(f"backbench.leaderboard.importing.{module}").read
