"""Which model an index belongs to: the hash of its weights, and how it embeds videos."""

from __future__ import annotations

from mote_fast.clip.fingerprint import Fingerprint
from mote_fast.errors import ConfigError, quoted
from mote_fast.model.video_model import VideoModel
from mote_fast.search.index_record import Embedding, IndexRecord
from mote_fast.timeline.windows import plan_windows


def model_fingerprint(model: VideoModel) -> str:
    """Return a hash of the weights that decide embeddings of videos and of texts, in their dtype.

    The experts have no part in it, so that a model and what ``fold`` makes of it have the same.
    """
    head = model.head
    state = {
        name: value
        for name, value in sorted(head.state_dict().items())
        if ".mlp." not in name and name != "train_class_features"
    }
    towers = {"image": model.clip.image_fingerprint(), "text": model.clip.text_fingerprint()}
    # Folding leaves one FFN, and needs the merge.
    combined = head.config.aggregation if head.experts > 1 else "merge"
    return Fingerprint().of({**towers, "layers": head.layers, "experts": combined}, state)


def embedding_of(model: VideoModel, views: str, moments: float | None = None) -> Embedding:
    """Return how a model embeds videos, or moments of so many seconds.

    Raises:
        ConfigError: the views or the seconds are malformed.
    """
    model.check_views(views)
    if moments is not None:
        plan_windows(model.frames, window=moments)
    return Embedding("temporal", views, model.frames, model.pixel_aspect, model.crops_along, moments)


def check_model(model: VideoModel, record: IndexRecord, source: object) -> None:
    """Check that an index belongs to a model.

    Raises:
        ConfigError: it belongs to another.
    """
    found = model_fingerprint(model)
    if found != record.fingerprint:
        own = model.clip.config.name or "a model without a name"
        raise ConfigError(
            f"{source}: belongs to the model {quoted(record.model)} (weights {record.fingerprint[:12]}); this one, "
            f"{own}, has other weights or another dtype ({found[:12]}): load that model, or build another index"
        )


def check_embedding(model: VideoModel, record: IndexRecord, source: object) -> None:
    """Check that a model embeds videos as those of an index were embedded.

    Raises:
        ConfigError: the index belongs to another model, or a setting differs; the message names it.
    """
    check_model(model, record, source)
    own, theirs = embedding_of(model, record.embedding.views), record.embedding
    for name in ("frames", "pixel_aspect", "crops_along"):
        if getattr(own, name) != getattr(theirs, name):
            raise ConfigError(
                f"{source}: its videos were embedded with {name}={getattr(theirs, name)!r}, this model has "
                f"{getattr(own, name)!r}; set the model's"
            )
