"""Lists of videos with captions, for retrieval: CSV and JSON, in the forms in which benchmarks are published."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mote_fast.data.find_videos import VIDEO_SUFFIXES
from mote_fast.data.items import UNLABELLED, VideoItem
from mote_fast.data.text_tables import read_json, read_table
from mote_fast.errors import ListError, quoted
from mote_fast.runtime.text import is_text

# Names of the columns or keys of a video and of its caption; of several, the first counts.
VIDEO_NAMES = ("path", "video", "video_id")
CAPTION_NAMES = ("caption", "sentence", "text")


@dataclass(frozen=True)
class CaptionedVideos:
    """V videos and their C captions, at least one for each video.

    Attributes:
        name: the list's, without the suffix.
        items: the videos, each once, in the order of their first captions.
        captions: the captions in the order of the list.
        video_of: int64 [C], the position of each caption's video in ``items``.
    """

    name: str
    items: Sequence[VideoItem]
    captions: Sequence[str]
    video_of: Tensor


def read_captions(
    path: str | os.PathLike[str], root: str | os.PathLike[str] = "", split: str | None = None
) -> CaptionedVideos:
    """Read pairs of a video and a caption; a video with several captions has several pairs, or a list of captions.

    A CSV has a row for each pair, with a column of ``VIDEO_NAMES`` and one of ``CAPTION_NAMES``. A JSON is one of:

    * a list of objects with a key of ``VIDEO_NAMES`` and one of ``CAPTION_NAMES``, a caption or a list of captions;
    * an object that maps each video to its caption or captions;
    * MSR-VTT's form, an object whose "sentences" are such a list, and whose "videos" say of each which split it is in.

    A video without a known suffix is the file of that name with one of ``VIDEO_SUFFIXES``, and with ".mp4" if there is
    none.

    Args:
        path: the file; the suffix ``.csv`` makes it a CSV.
        root: folder that the videos' paths are relative to.
        split: only for MSR-VTT's form, and needed if its videos are of several splits: the one to read.

    Raises:
        ListError: the file is missing, malformed or empty, a caption is blank, or ``split`` is missing, unknown, or
            given for another form.
    """
    source = Path(path)
    pairs = list(_pairs_of_csv(source, split) if source.suffix.lower() == ".csv" else _pairs_of_json(source, split))
    if not pairs:
        raise ListError(f"{source}: holds no captions")
    videos = list(dict.fromkeys(video for video, _ in pairs))
    position = {video: at for at, video in enumerate(videos)}
    items = [VideoItem(_file_of(video, root), UNLABELLED) for video in videos]
    return CaptionedVideos(
        source.stem, items, [caption for _, caption in pairs], torch.tensor([position[video] for video, _ in pairs])
    )


def _pairs_of_csv(source: Path, split: str | None) -> Iterator[tuple[str, str]]:
    if split is not None:
        raise ListError(f"{source}: a CSV has no splits to choose from; leave out --split")
    for row in read_table(source, (), (*VIDEO_NAMES, *CAPTION_NAMES)).rows:
        yield from _pairs_of_entry(row.named, row.where)


def _pairs_of_json(source: Path, split: str | None) -> Iterator[tuple[str, str]]:
    content = read_json(source)
    if isinstance(content, dict) and isinstance(content.get("sentences"), list):
        kept = _videos_of_split(source, content.get("videos"), split)
        for pair in _pairs_of_entries(content["sentences"], f"{source}, sentence"):
            if kept is None or pair[0] in kept:
                yield pair
        return
    if split is not None:
        raise ListError(f"{source}: has no splits to choose from; leave out --split")
    if isinstance(content, list):
        yield from _pairs_of_entries(content, f"{source}, entry")
    elif isinstance(content, dict):
        for video, captions in content.items():
            yield from _pairs(video, captions, f"{source}, video {quoted(video)}")
    else:
        raise ListError(f"{source}: must be a list of videos with captions, or an object that maps videos to captions")


def _videos_of_split(source: Path, videos: Any, split: str | None) -> set[str] | None:
    """Return the videos of a split of MSR-VTT's form, or None for all of them."""
    entries: Sequence[Any] = videos if isinstance(videos, list) else []
    split_of: dict[str, str] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("video_id"), str):
            raise ListError(f"{source}: each of its 'videos' needs a 'video_id', found {quoted(entry)}")
        split_of[entry["video_id"]] = str(entry.get("split", ""))
    splits = sorted(set(split_of.values()))
    if split is None and len(splits) > 1:
        raise ListError(f"{source}: has videos of the splits {quoted(splits)}; give --split one of them")
    if split is not None and split not in splits:
        raise ListError(f"{source}: has no split {quoted(split)}; it has {quoted(splits)}")
    return None if split is None else {video for video, its in split_of.items() if its == split}


def _pairs_of_entries(entries: Sequence[Any], where: str) -> Iterator[tuple[str, str]]:
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise ListError(f"{where} {number}: must be an object with a video and a caption, found {quoted(entry)}")
        yield from _pairs_of_entry(entry, f"{where} {number}")


def _pairs_of_entry(entry: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    video = next((entry[name] for name in VIDEO_NAMES if name in entry), None)
    captions = next((entry[name] for name in CAPTION_NAMES if name in entry), None)
    if video is None or captions is None:
        raise ListError(
            f"{where}: needs a video ({', '.join(VIDEO_NAMES)}) and a caption ({', '.join(CAPTION_NAMES)}), "
            f"has {quoted(list(entry))}"
        )
    yield from _pairs(video, captions, where)


def _pairs(video: Any, captions: Any, where: str) -> Iterator[tuple[str, str]]:
    if not isinstance(video, str) or not video.strip():
        raise ListError(f"{where}: names no video, found {quoted(video)}")
    several = captions if isinstance(captions, list) else [captions]
    if not several:
        raise ListError(f"{where}: has no caption")
    for caption in several:
        if not isinstance(caption, str) or not caption.strip() or not is_text(caption):
            raise ListError(f"{where}: a caption must be a text that is not blank, found {quoted(caption)}")
        yield video, caption.strip()


def _file_of(video: str, root: str | os.PathLike[str]) -> str:
    path = os.path.join(root, video) if os.fspath(root) else video
    if Path(path).suffix.lower() in VIDEO_SUFFIXES or os.path.isfile(path):
        return path
    return next((path + suffix for suffix in sorted(VIDEO_SUFFIXES) if os.path.isfile(path + suffix)), f"{path}.mp4")
