"""Find videos by words: put a folder into an index once, then rank its videos for each query.

python examples/search.py                                     # drawn videos, with the model of the package
python examples/search.py videos/ "a dog runs" "two people shake hands" --model mote-b16-k400
"""

from __future__ import annotations

import argparse
from pathlib import Path

from drawn_clips import draw_folder

import mote_fast

INDEX = Path("index")


def main() -> None:
    """Print the three best videos for each query."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("queries", nargs="*")
    parser.add_argument("--model", default="tiny", help="a name of mote_fast.list_models(), a folder or a file")
    given = parser.parse_args()
    folder = given.folder or draw_folder(Path("drawn"))

    clf = mote_fast.load(given.model)
    index = mote_fast.Index(INDEX) if INDEX.exists() else mote_fast.Index.create(INDEX, clf, name=given.model)
    # Videos that an earlier run has put in are skipped.
    for failed in index.add_videos(clf, sorted(folder.rglob("*.mp4"))):
        print(f"left out: {failed.error}")
    for query in given.queries or ["plain blue square sliding to the bottom"]:
        print(query)
        for hit in index.search(query, clf, topk=3):
            print(f"  {hit.score:.3f}  {hit.path}")


if __name__ == "__main__":
    main()
