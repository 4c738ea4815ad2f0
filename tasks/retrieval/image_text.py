"""Image-text retrieval: images find their captions and captions their image (Karpathy and Fei-Fei 2015).

Zero-shot, in the space of the backbone's text tower, over the whole split. A caption of another image is wrong even if
it says the same, as on COCO and Flickr30k.
"""

from itertools import chain

import numpy as np
import torch
from torch import Tensor

from ...backbones.errors import BadInput
from ..classification.accuracy import check_ids, names
from ..measure import Measure
from ..predictions import Predictions
from ..task import Needs, Outcome, Scores, Task, percent
from ..threads import one_thread
from .ranking import ranking

CUTS = (1, 5, 10)
BATCH = 128  # texts: a constant, as the last bits of an embedding may depend on its batch


class ImageTextRetrieval(Task):
    name, family, version = "image-text-retrieval", "retrieval", 1
    needs = Needs(data="pairs", splits=("test",), text=True)
    scores = Scores(
        mean_recall=percent,
        **{f"image_to_text_at_{k}": percent for k in CUTS},
        **{f"text_to_image_at_{k}": percent for k in CUTS},
    )

    def run(self, backbone, data, recipe, context):
        test = data["test"]
        captions = [list(of_image) for of_image in test.targets]
        images = context.projections(backbone, test)
        texts = embedded(backbone, list(chain(*captions)), context)
        counts = np.array([len(c) for c in captions])
        ends = counts.cumsum()
        own = [np.arange(end - count, end) for end, count in zip(ends, counts, strict=True)]
        _, of_texts = ranking(images, texts, own, none(len(images)))
        image_of = np.repeat(np.arange(len(images)), counts)
        _, of_images = ranking(texts, images, list(image_of[:, None]), none(len(texts)))
        back = np.empty(len(images), dtype=object)
        back[:] = np.split(np.concatenate(of_images).astype(np.int32), ends[:-1])
        best = np.array([r[0] if len(r) else 0 for r in of_texts], np.int32)
        return Outcome({"id": names(test), "image_to_text": best, "text_to_image": back})

    def measure(self, predictions, data):
        """Recall@k, the share of queries with an answer among the first k; `mean_recall` is the mean of all six.

        Of an image any of its captions is an answer. Images are resampled, each with its captions.
        """
        test = data["test"]
        check_ids(predictions["id"], test)
        counts = np.array([len(c) for c in test.targets])
        if not counts.any():
            raise BadInput(f"dataset {data.name}: no image of its test split has a caption")
        check_ranks(predictions, names(test), counts)
        best = predictions["image_to_text"]
        flat = np.concatenate([np.asarray(r, int) for r in predictions["text_to_image"]])
        image_of = np.repeat(np.arange(len(test)), counts)
        found = [(counts > 0) & (best <= k) for k in CUTS]
        found += [np.bincount(image_of, flat <= k, minlength=len(test)) for k in CUTS]
        found = np.stack(found, axis=1).astype(float)
        asked = np.stack([counts > 0] * len(CUTS) + [counts] * len(CUTS), axis=1).astype(float)

        def scores(weights: np.ndarray) -> dict[str, float]:
            recalls = 100 * (weights @ found) / np.maximum(weights @ asked, np.finfo(float).tiny)
            return dict(zip(self.scores, [float(recalls.mean()), *recalls.tolist()], strict=True))

        return Measure(len(test), scores, test.groups)


@torch.inference_mode()
def embedded(backbone, texts: list[str], context) -> Tensor:
    """(m, T) float32 of the text tower, batch by batch. Raises BadInput naming a text whose embedding is not finite."""
    backbone.to(context.device).eval()
    found = []
    with one_thread():
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            found.append(backbone.embed_text(batch).float().cpu())
            if len(bad := (~found[-1].isfinite().all(dim=1)).nonzero()):
                raise BadInput(f"{backbone.name}: the embedding of the text {batch[int(bad[0])]!r} is not finite")
            context.progress(f"texts of {backbone.name}", start + len(batch), len(texts))
    if not found:
        raise BadInput("no image of the test split has a caption")
    return torch.cat(found)


def none(count: int) -> list[np.ndarray]:
    """Nothing left out of `count` rankings."""
    return [np.zeros(0, np.int64)] * count


def check_ranks(predictions: Predictions, ids: np.ndarray, counts: np.ndarray) -> None:
    """Raises BadInput unless each caption has a rank among the images, and each image's best one among the texts."""
    rows = zip(ids, predictions["image_to_text"], predictions["text_to_image"], counts, strict=True)
    for image, best, ranks, count in rows:
        # The other captions of the image rank after the best.
        possible = 1 <= best <= counts.sum() - count + 1 if count else best == 0
        if len(ranks) != count or not possible or not all(1 <= r <= len(ids) for r in ranks):
            raise BadInput(
                f"predictions: image {image}: ranks {best} of its captions, {list(ranks)} of itself; they cannot be "
                f"of {len(ids)} images and {counts.sum()} captions, {count} of them its own; is it the same data set?"
            )
