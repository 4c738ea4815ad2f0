"""The dataset card: where images and labels are, how they split, what they are called, whose they are."""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ...backbones.errors import BadInput
from ...backbones.reading import Strict
from ..task import Kind

Source = Literal[
    "digit-scenes",
    "imagefolder",
    "lists",
    "captions",
    "coco",
    "voc",
    "masks",
    "arrays",
    "hub",
    "parquet",
    "omniglot",
    "revisited",
    "cityscapes",
    "combined",
]
ABOUT = {"license", "citation", "description", "protocol", "homepage", "prepare"}
"""Keys of a card that are for people: they decide neither what is read nor what is asked."""


class SplitSpec(Strict):
    """Where one split is; which keys mean something depends on the source. Paths are relative to the card's path.

    `images`: a folder. `annotations`: a COCO json, a folder of VOC xml, a ground truth. `masks`: a folder of label
    images. `list`: a file that lists images; for `lists` tables, which are joined by their first columns.
    `where`: only rows of a table with one of these values in a column. `split`: a split name within the source.
    `card`: for `combined`, the other data set whose split it is. `from` + `fraction`: no files of its own, but that
    part of another split: spread `even`ly, the `first` of each class, or whole `groups` (patients, cities).
    `per_class`: at most so many images a class, the first by name.
    `accepted`: a json of all right classes of each image, as ImageNet ReaL has it.
    `trials`: a folder of tables (.csv) of what people, and others, answered to the images.
    `class_folders`: where class folders are not called by the classes: `number`, or ObjectNet's folder of mappings.
    `size`: how many images its authors count.
    """

    images: str | None = None
    annotations: str | None = None
    masks: str | None = None
    list: str | tuple[str, ...] | None = None
    where: dict[str, str | tuple[str, ...]] = Field(default={})
    card: str | None = None
    split: str | None = None
    from_: str | None = Field(default=None, alias="from")
    fraction: float | None = Field(default=None, gt=0, lt=1)
    take: Literal["even", "first", "groups"] = "even"
    per_class: int | None = Field(default=None, gt=0)
    accepted: str | None = None
    trials: str | None = None
    class_folders: str | None = None
    size: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _carved(self):
        if (self.from_ is None) != (self.fraction is None):
            raise ValueError("`from` and `fraction` go together: {from: train, fraction: 0.2}")
        return self

    @property
    def files(self) -> tuple[str, ...]:
        """Every file and folder that it names."""
        mappings = None if self.class_folders == "number" else self.class_folders
        own = (self.images, self.annotations, self.masks, *self.lists, self.accepted, self.trials, mappings)
        return tuple(path for path in own if path is not None)

    @property
    def lists(self) -> tuple[str, ...]:
        """The files of `list`."""
        return (self.list,) if isinstance(self.list, str) else self.list or ()


class TableFormat(Strict):
    """How the tables of `lists` are written: separator (white space if none), with a header or with given names."""

    separator: str | None = Field(default=None, min_length=1, max_length=1)
    header: bool = False
    names: tuple[tuple[str, ...], ...] = Field(default=(("image", "label"),), description="of columns, a table each")


class DatasetCard(Strict):
    """A data set as data. `folder` is where a relative `path` starts, `home` where state lives: no part of identity."""

    name: str = Field(default="", max_length=200)
    kind: tuple[Kind, ...]
    source: Source
    path: str = "."
    hub: str | None = Field(default=None, description="org/name@revision of a data set on the Hugging Face hub")
    splits: dict[str, SplitSpec] = Field(default={})
    columns: dict[str, str] = Field(default={}, description="which column is image, label, group, answers, …")
    table: TableFormat = TableFormat()
    file: str = Field(default="{image}", description="lists: an image's file, from columns: {id[0]}/{id}.jpg")
    pattern: str | None = Field(default=None, description="lists: finds (?P<label>) and (?P<group>) in a file's path")
    classes: tuple[str, ...] = ()
    class_names: tuple[str, ...] | str = Field(default=(), description="what prompts call the classes, in their order")
    class_pattern: str | None = Field(default=None, description="or: a regular expression whose groups are the name")
    prompts: tuple[str, ...] | str = ("a photo of a {}.",)
    descriptions: dict[str, tuple[str, ...]] = Field(default={}, description="class name → what it looks like")
    label_map: dict[int, int] = Field(default={}, description="masks: pixel value in the file → class, 255 ignored")
    value_map: dict[str, dict[str, int]] = Field(
        default={}, description='multilabel lists: class, or "*" for all → text in the file → 1, 0 or -1 (not known)'
    )
    strict: bool = Field(default=True, description="whether faulty images and annotations are refused, or left out")
    license: str | None = None
    citation: str | None = None
    description: str | None = None
    protocol: str | None = Field(default=None, description="whose splits these are")
    homepage: str | None = Field(default=None, description="the authors' page, where files are to be had")
    prepare: str | None = Field(default=None, description="what to do with them so that they lie where they should")
    folder: Path = Field(default=Path("."), exclude=True)
    home: Path | None = Field(default=None, exclude=True)

    @field_validator("kind", mode="before")
    @classmethod
    def _one_kind(cls, kind: Any) -> Any:
        return (kind,) if isinstance(kind, str) else kind

    @field_validator("splits", mode="before")
    @classmethod
    def _short_split(cls, splits: Any) -> Any:
        """`train: folder` is short for `train: {images: folder}`."""
        if not isinstance(splits, dict):
            return splits
        return {name: {"images": spec} if isinstance(spec, str) else spec for name, spec in splits.items()}

    @field_validator("prompts")
    @classmethod
    def _has_slot(cls, prompts):
        if isinstance(prompts, tuple) and (bad := [p for p in prompts if "{}" not in p]):
            raise ValueError(f"a prompt has a place {{}} for the class name, got {bad[0]!r}")
        return prompts

    @field_validator("pattern", "class_pattern")
    @classmethod
    def _is_a_pattern(cls, pattern):
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return pattern

    @property
    def root(self) -> Path:
        """The folder that split paths are relative to."""
        return (self.folder / Path(self.path).expanduser()).resolve()

    @property
    def naming(self) -> list[Any]:
        """What decides the words that text towers are asked, for the identity of a cell."""
        extra = {"class_names": self.class_names, "class_pattern": self.class_pattern, "described": self.descriptions}
        return [self.classes, self.prompts, *([extra] if any(extra.values()) else [])]

    def images(self, split: str) -> Path:
        """The file or folder that holds a split's images. Raises BadInput when none is given, or nothing is there."""
        return self.at(split, "images")

    def at(self, split: str, key: str) -> Path:
        """The file or folder that a key of a split names. Raises BadInput when none is given, or nothing is there."""
        given = getattr(self.splits[split], key)
        if given is None:
            raise BadInput(f"dataset {self.name}: splits.{split}.{key}: say where the {key} are, relative to `path`")
        if not (self.root / given).exists():
            raise BadInput(f"dataset {self.name}: splits.{split}: there is no {self.root / given}; {self.mend}")
        return self.root / given

    @property
    def mend(self) -> str:
        """What to do where a file is missing."""
        if self.homepage:
            return f"get it from {self.homepage}; `backbench show {self.name}` says what goes where"
        return "correct `path` or `splits` on its card"
