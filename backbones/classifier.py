"""A backbone's own classifier: what its checkpoint holds beyond the features, as a network of its own."""

from torch import Tensor

from .errors import BadInput, NotApplicable
from .interface import Backbone, Features
from .registry import library_of, random_state_of

BACKGROUND = 1001  # classes of networks from TensorFlow: the first is "background", then come ImageNet-1k's


class Classifier(Backbone):
    """A network whose embedding is what its classifier says: logits (B, C). It has neither maps nor a projection."""

    def extract(self, images: Tensor, *, embedding: bool, maps: bool, projection: bool) -> Features:
        """One pass; the class that stands for none of the others is left out."""
        logits = self.body(images)
        if logits.ndim != 2:
            raise NotApplicable(f"{self.name} has no classifier of whole images: it gives {tuple(logits.shape)}")
        return Features(embedding=logits[:, 1:] if logits.shape[1] == BACKGROUND else logits)


def load_classifier(backbone: Backbone) -> Classifier:
    """The classifier in the checkpoint of a backbone's card, as loaded as strictly, preprocessed and computed alike.

    Raises NotApplicable where there is none: random or self-supervised weights, towers of texts, a file without it.
    """
    card = backbone.card
    make = getattr(library_of(card.source), "classifier", None)
    if make is None or not (card.pretrained or card.checkpoint):
        why = "its weights are random" if make else f"source {card.source} has none"
        raise NotApplicable(f"{backbone.name} has no classifier: {why}")
    try:
        with random_state_of(card.init_seed):
            body = make(card, backbone.input)
    except BadInput as error:  # the backbone itself was loaded from it, so it is the classifier that is not there
        raise NotApplicable(f"{backbone.name} has no classifier in its weights: {error}") from None
    device = next(backbone.parameters()).device
    classifier = Classifier(card, backbone.input, body.float()).to(device)
    classifier.load_as(backbone.loading)
    return classifier
