"""Rank labels for a video.

python examples/classify.py                                   # a drawn video, with the model of the package
python examples/classify.py video.mp4 "archery" "juggling balls" --model mote-b16-k400
"""

from __future__ import annotations

import argparse
from pathlib import Path

from drawn_clips import CLASSES, draw_folder

import mote_fast


def main() -> None:
    """Print the labels, best first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", nargs="?", type=Path)
    parser.add_argument("labels", nargs="*")
    parser.add_argument("--model", default="tiny", help="a name of mote_fast.list_models(), a folder or a file")
    given = parser.parse_args()
    video = given.video or sorted(draw_folder(Path("drawn")).rglob("*.mp4"))[0]

    clf = mote_fast.load(given.model).fold()
    print(video)
    for best in clf.classify(video, given.labels or list(CLASSES), topk=5):
        print(f"  {best.score:7.2%}  {best.label}")


if __name__ == "__main__":
    main()
