"""The dataset card: where images and labels are, how they split, what they are called, whose they are."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ...backbones.errors import BadInput
from ...backbones.reading import Strict
from ..task import Kind

Source = Literal["digit-scenes", "imagefolder", "coco", "voc", "masks", "arrays", "hub", "parquet"]


class SplitSpec(Strict):
    """Where one split is; which keys mean something depends on the source. Paths are relative to the card's path.

    `images`: a folder. `annotations`: a COCO json, a folder of VOC xml. `masks`: a folder of label images.
    `list`: a text file of image ids. `split`: a split name of a hub or parquet data set.
    `from` + `fraction`: no files of its own, but that part of another split, taken out of it evenly.
    """

    images: str | None = None
    annotations: str | None = None
    masks: str | None = None
    list: str | None = None
    split: str | None = None
    from_: str | None = Field(default=None, alias="from")
    fraction: float | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="after")
    def _carved(self):
        if (self.from_ is None) != (self.fraction is None):
            raise ValueError("`from` and `fraction` go together: {from: train, fraction: 0.2}")
        return self


class DatasetCard(Strict):
    """A data set as data. `folder` is where a relative `path` starts; it is no part of the identity."""

    name: str = Field(default="", max_length=200)
    kind: tuple[Kind, ...]
    source: Source
    path: str = "."
    hub: str | None = Field(default=None, description="org/name@revision of a data set on the Hugging Face hub")
    splits: dict[str, SplitSpec] = Field(default={})
    columns: dict[str, str] = Field(default={}, description="hub, parquet, arrays: which column is image, label, …")
    classes: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ("a photo of a {}.",)
    label_map: dict[int, int] = Field(default={}, description="masks: pixel value in the file → class, 255 ignored")
    license: str | None = None
    citation: str | None = None
    description: str | None = None
    folder: Path = Field(default=Path("."), exclude=True)

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
        if bad := [p for p in prompts if "{}" not in p]:
            raise ValueError(f"a prompt has a place {{}} for the class name, got {bad[0]!r}")
        return prompts

    @property
    def root(self) -> Path:
        """The folder that split paths are relative to."""
        return (self.folder / Path(self.path).expanduser()).resolve()

    def images(self, split: str) -> Path:
        """The file or folder that holds a split's images. Raises BadInput when none is given, or nothing is there."""
        given = self.splits[split].images
        if given is None:
            raise BadInput(f"dataset {self.name}: splits.{split}.images: say where the images are, relative to `path`")
        if not (self.root / given).exists():
            raise BadInput(
                f"dataset {self.name}: splits.{split}: there is no {self.root / given}; correct `path` or it"
            )
        return self.root / given
