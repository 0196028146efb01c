"""Collections of videos: each exactly once through a model, its result in Parquet, whatever is killed meanwhile."""

from typing import TYPE_CHECKING

from mote_fast.runtime.lazy_names import lazy_names

if TYPE_CHECKING:
    from mote_fast.batch.block_classifier import Classifier
    from mote_fast.batch.collection_index import index
    from mote_fast.batch.collection_runs import Summary, classify, embed, retry, status
else:
    # PyTorch and pyarrow take seconds to import.
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "block_classifier": ("Classifier",),
            "collection_index": ("index",),
            "collection_runs": ("Summary", "classify", "embed", "retry", "status"),
        },
    )

__all__ = ["Classifier", "Summary", "classify", "embed", "index", "retry", "status"]
