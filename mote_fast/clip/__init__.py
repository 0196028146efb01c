"""CLIP through open_clip: towers, loading, and class features."""

from typing import TYPE_CHECKING

from mote_fast.runtime.lazy_names import lazy_names

if TYPE_CHECKING:
    from mote_fast.clip.class_features import encode_classes
    from mote_fast.clip.feature_cache import FeatureCache
    from mote_fast.clip.pretrained import load_towers
    from mote_fast.clip.prompts import TEMPLATES, Prompts
    from mote_fast.clip.towers import ClipTowers
else:
    # PyTorch takes seconds to import, and the command line reads names of choices here.
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "class_features": ("encode_classes",),
            "feature_cache": ("FeatureCache",),
            "pretrained": ("load_towers",),
            "prompts": (
                "TEMPLATES",
                "Prompts",
            ),
            "towers": ("ClipTowers",),
        },
    )

__all__ = ["TEMPLATES", "ClipTowers", "FeatureCache", "Prompts", "encode_classes", "load_towers"]
