"""Points about conduct: a pass depends on its image alone, changes nothing, and may be run in other ways."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import NotApplicable
from ..loading import Loading
from .subject import Broken, Subject, loaded_as, random_state, relative

NEAR = 1e-3  # relative difference of two float32 passes that sum in another order; wrong ones are far beyond it
SIMILAR = 0.99  # cosine similarity of embeddings in bfloat16 and float32


def batch_size_does_not_matter(subject: Subject) -> str:
    """An image's embedding is its own, whoever stands beside it in the batch."""
    alone = torch.cat([subject.embed(image[None]) for image in subject.images])
    off = relative(alone, subject.embedding)
    if not off < NEAR:
        raise Broken(f"alone and in a batch differ by {off:.2g} of their norm; batch statistics, or dropout?")
    return f"relative difference {off:.1g}"


def same_image_same_embedding(subject: Subject) -> str:
    """Two passes in eval mode agree bit for bit."""
    if subject.backbone.training or not torch.equal(subject.embedding, subject.embed(subject.images)):
        raise Broken("two passes over the same images differ; dropout, masking or noise in eval mode?")
    return "two passes agree bit for bit"


def forward_changes_nothing(subject: Subject) -> str:
    """A pass leaves weights, buffers and the global random states as they were."""
    weights = subject.backbone.state_dict()
    before, state = {name: tensor.clone() for name, tensor in weights.items()}, random_state()
    subject.embed(subject.images[:1])
    changed = [name for name, tensor in subject.backbone.state_dict().items() if not torch.equal(tensor, before[name])]
    changed += [f"{name}'s random state" for name, now in random_state().items() if now != state[name]]
    if changed:
        raise Broken(f"changed by a pass: {', '.join(changed[:3])}")
    return f"{len(before)} tensors as before"


def gradient_reaches_the_body(subject: Subject) -> str:
    """Fine-tuning is possible: the embedding's gradient comes down to the weights."""
    wanted = [(p, p.requires_grad) for p in subject.backbone.parameters()]
    try:
        for parameter, _ in wanted:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            embedding = subject.backbone(subject.images[:1]).embedding
        if not embedding.requires_grad:
            raise Broken("the embedding is cut off from the weights (detach or no_grad inside?)")
        # The sum of a normalised vector is constant; a fixed direction has a gradient everywhere.
        direction = torch.linspace(-1, 1, embedding.shape[1], device=embedding.device)
        gradients = torch.autograd.grad((embedding * direction).sum(), [p for p, _ in wanted], allow_unused=True)
    finally:
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)
    reached = sum(g is not None and bool(g.isfinite().all()) and bool(g.abs().sum() > 0) for g in gradients)
    if reached == 0:
        raise Broken("no weight gets a finite gradient")
    return f"{reached} of {len(wanted)} tensors"


def half_precision_is_close(subject: Subject) -> str:
    """Embeddings in bfloat16 point where those in float32 do."""
    half = _embedded(subject, replace(subject.backbone.loading, precision="bfloat16"))
    similar = float(torch.cosine_similarity(half.double(), subject.embedding.double(), eps=1e-300).min())
    if not similar >= SIMILAR and subject.untrained:
        raise NotApplicable(f"cosine similarity {similar:.3f}: in random weights rounding may grow freely")
    if not similar >= SIMILAR:
        raise Broken(f"cosine similarity of bfloat16 and float32 is {similar:.3f}, below {SIMILAR}")
    return f"cosine similarity of bfloat16 and float32 {similar:.5f}"


def channels_last_is_the_same(subject: Subject) -> str:
    """How images lie in memory does not show in the embedding."""
    off = relative(_embedded(subject, replace(subject.backbone.loading, channels_last=True)), subject.embedding)
    if not off < NEAR:
        raise Broken(f"with channels last in memory embeddings differ by {off:.2g} of their norm")
    return f"relative difference {off:.1g}"


def threads_do_not_mix(subject: Subject) -> str:
    """Two batches at once give what each gives alone: the feature bank runs them so."""
    batches, want = [subject.images, subject.images.flip(0)], [subject.embedding, subject.embedding.flip(0)]
    with ThreadPoolExecutor(len(batches)) as pool:
        found = list(pool.map(subject.embed, batches))
    off = max(relative(f, w) for f, w in zip(found, want, strict=True))
    if not off < NEAR:
        raise Broken(f"two batches at once differ by {off:.2g} from one after the other; is anything kept on a module?")
    return f"two batches at once, relative difference {off:.1g}"


def _embedded(subject: Subject, loading: Loading) -> Tensor:
    """(3, D) under other options of loading. Raises NotApplicable where the network cannot run so."""
    want = subject.embedding  # a network that fails as it is fails here too
    with loaded_as(subject.backbone, loading):
        try:
            return subject.embed(subject.images).to(want.dtype)
        except Exception as error:  # an operator without bfloat16, a `view` that wants channels first, …
            reason = " ".join(str(error).split())[:100]
            raise NotApplicable(f"it does not run so: {reason}") from error
