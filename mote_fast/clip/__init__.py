"""CLIP through open_clip: towers, loading, and class features."""

from mote_fast.clip.class_features import encode_classes
from mote_fast.clip.feature_cache import FeatureCache
from mote_fast.clip.pretrained import load_towers
from mote_fast.clip.prompts import TEMPLATES, Prompts
from mote_fast.clip.towers import ClipTowers

__all__ = ["TEMPLATES", "ClipTowers", "FeatureCache", "Prompts", "encode_classes", "load_towers"]
