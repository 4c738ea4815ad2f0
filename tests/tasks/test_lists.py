"""Tables and file names that say which image is what, against plain readings of them."""

import csv
import io
from pathlib import Path

import pytest
from backbench.backbones import BadInput
from backbench.tasks import load_dataset
from backbench.tasks.datasets import DatasetCard, Judgement
from backbench.tasks.datasets.card import TableFormat
from backbench.tasks.datasets.lists import read_table
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

CSV = {"separator": ",", "header": True}


@pytest.fixture
def pictures(tmp_path):
    """Three images, a.png, b.png and sub/c.png."""
    for shade, name in enumerate(("a", "b", "sub/c")):
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (shade, 0, 0)).save(path)
    return tmp_path


def opened(folder, text, kind="classification", split=None, **keys):
    (folder / "list.txt").write_text(text)
    specs = {"test": {"images": "images", "list": "list.txt"} | (split or {})}
    card = {"name": "mine", "kind": kind, "source": "lists", "splits": specs} | keys
    return load_dataset(DatasetCard.model_validate(card).model_copy(update={"folder": folder}), kind)["test"]


def test_a_plain_list_of_files_and_labels(pictures):
    split = opened(pictures, "a.png dog\n\nsub/c.png cat\nb.png dog\n")
    assert split.ids == ["a.png", "sub/c.png", "b.png"]
    assert split.targets.tolist() == [1, 0, 1]
    assert [split.images[i].getpixel((0, 0))[0] for i in range(3)] == [0, 2, 1]


def test_numbers_are_put_in_their_order(pictures):
    assert opened(pictures, "a.png 10\nb.png 9\nsub/c.png 100\n").targets.tolist() == [1, 0, 2]


def test_columns_groups_rows_and_files_as_the_card_says(pictures):
    split = opened(
        pictures,
        'who,what,"where",kind\nx,c,sub,new\ny,a,"q, r",old\nx,b,s,new\n',
        table=CSV,
        columns={"image": "what", "label": "kind", "group": "who"},
        file="{where}/{image}.png",
        split={"where": {"who": "x", "where": ["sub", "nowhere"]}},
    )
    assert split.ids == ["c"]
    assert split.groups.tolist() == ["x"]


def test_tables_are_joined_by_their_first_columns(pictures):
    (pictures / "labels.txt").write_text("2 dog\n1 cat\n7 cow\n")
    keys = {"table": {"names": [["id", "image"], ["id", "label"]]}, "split": {"list": ["list.txt", "labels.txt"]}}
    assert opened(pictures, "1 a.png\n2 b.png\n", **keys).targets.tolist() == [0, 1]
    with pytest.raises(BadInput, match=r"labels.txt: says nothing of '3'"):
        opened(pictures, "1 a.png\n3 b.png\n", **keys)


def test_file_names_tell_labels_and_groups(pictures):
    for name in ("cat_1_x", "dog_1_x", "cat_2_y"):
        Image.new("RGB", (4, 4)).save(pictures / "images" / f"{name}.png")
    for name in ("a", "b", "sub/c"):
        (pictures / "images" / f"{name}.png").unlink()
    pattern = r"(?P<label>[a-z]+)_\d_(?P<group>.)"
    split = opened(pictures, "", pattern=pattern, split={"list": None})
    assert split.targets.tolist() == [0, 0, 1]
    assert split.groups.tolist() == ["x", "y", "x"]
    Image.new("RGB", (4, 4)).save(pictures / "images" / "owl.png")
    with pytest.raises(BadInput, match=r"pattern .* finds nothing in 'owl.png'"):
        opened(pictures, "", pattern=pattern, split={"list": None})


def test_answers_and_junk_are_the_judgement_of_a_query(pictures):
    text = "image,right,wrong\na.png,b.png sub/c.png,\nb.png,,a.png\n"
    columns = {"answers": "right", "junk": "wrong"}
    split = opened(pictures, text, "retrieval", table=CSV, columns=columns)
    assert split.judgements == [Judgement(("b.png", "sub/c.png")), Judgement((), ("a.png",))]


def test_presence_is_mapped_by_class_and_numbers_by_value(pictures):
    text = "image,x,y\na.png,1.0,0\nb.png,-1,1e0\nsub/c.png,,-1.00\n"
    keys = {"table": CSV, "classes": ["y", "x"]}
    plain = opened(pictures, text, "multilabel", **keys)
    assert plain.targets.tolist() == [[0, 1], [1, -1], [-1, -1]]
    mapped = opened(pictures, text, "multilabel", **keys, value_map={"*": {"": 0}, "y": {"-1": 1}})
    assert mapped.targets.tolist() == [[0, 1], [1, -1], [1, 0]]


@pytest.mark.parametrize(
    ("text", "keys", "said"),
    [
        ("a.png dog\nb.png\n", {}, r"list.txt:2: 1 columns, but 2 are named: image, label"),
        ("", {}, "list.txt: lists no image"),
        ("a.png dog\na.png cat\n", {}, "splits.test: 'a.png' is listed twice"),
        ("a.png dog\nd.png cat\ne.png cat\n", {}, r"2 of 3 images are missing: .*d\.png, .*e\.png; correct `path`"),
        ("../list.txt dog\n", {}, "leads out of the folder of images"),
        ("a.png dog\n", {"columns": {"image": "imgae"}}, "there is no column"),
        ("a.png dog\n", {"columns": {"label": "lable"}}, "columns.label: say which column is the label"),
        ("a.png dog\n", {"file": "{id}.png"}, "there is no column 'id'"),
        ("a.png dog\n", {"file": "{image.__class__}"}, "there is no column"),
        ("a.png dog\n", {"file": "{image[99]}"}, "does not fit 'a.png'"),
        ("a.png dog\n", {"classes": ["cat"]}, "there is no class 'dog'"),
        ("a.png dog\n", {"split": {"where": {"lable": "dog"}}}, "there is no column 'lable'; did you mean 'label'"),
        ("a.png dog\n", {"split": {"where": {"label": "cow"}}}, "splits.test: no image is listed"),
        ("a.png dog\n", {"split": {"list": "lsit.txt"}}, r"splits.test.list: there is no .*lsit.txt"),
        ("a.png dog\n", {"split": {"images": None}}, "give `images`, a folder, and `list`"),
        ("a.png dog\n", {"table": {"names": [["image", "image"]]}}, "two columns have one name"),
        ("a.png dog\n", {"kind": "multilabel"}, "classes: name the columns of the labels"),
        ("a.png dog\n", {"kind": "multilabel", "classes": ["dog"]}, "there is no column 'dog'"),
        ("a.png dog\n", {"kind": "multilabel", "classes": ["label"]}, "column 'label' has 'dog'; say in `value_map`"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(pictures, text, keys, said):
    with pytest.raises(BadInput, match=said) as error:
        opened(pictures, text, **keys)
    assert "\n" not in str(error.value)


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(ValueError, match="is no regular expression"):
        DatasetCard(kind=("retrieval",), source="lists", pattern="(")


SPACES = ("Cs", "Cc", "Zl", "Zp", "Zs")
CELLS = st.text(st.characters(blacklist_categories=SPACES, blacklist_characters="\ufeff"), min_size=1)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6))
def test_csv_is_read_as_it_was_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    text = io.StringIO()
    csv.writer(text).writerows([("image", "label", "x"), *rows])
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    read = read_table(path, TableFormat(separator=",", header=True))
    assert [tuple(row.values()) for row in read] == rows


@given(st.lists(st.tuples(CELLS, st.lists(CELLS, min_size=1, max_size=3)), min_size=1, max_size=6))
def test_the_last_column_has_the_rest_of_its_line(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("text") / "t.txt"
    path.write_text("\n".join(f"{image}\t {' '.join(label)} " for image, label in rows), encoding="utf-8")
    read = read_table(path, TableFormat(names=(("image", "label"),)))
    assert [(row["image"], row["label"]) for row in read] == [(image, " ".join(label)) for image, label in rows]


@given(st.binary(max_size=200), st.sampled_from([None, ",", "\t"]), st.booleans())
def test_any_bytes_are_a_table_or_refused_in_one_line(tmp_path_factory, content, separator, header):
    path = Path(tmp_path_factory.mktemp("any") / "t.txt")
    path.write_bytes(content)
    try:
        rows = read_table(path, TableFormat(separator=separator, header=header))
    except BadInput as error:
        said = str(error)
    else:
        assert len({tuple(row) for row in rows}) == 1
        said = "a table"
    assert len(said.splitlines()) == 1
