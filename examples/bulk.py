"""Label every video of a folder; each result is written as it comes, and a second run continues where one ended.

python examples/bulk.py                                       # drawn videos, with the model of the package
python examples/bulk.py videos/ "archery" "juggling balls" --model mote-b16-k400
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from drawn_clips import CLASSES, draw_folder

import mote_fast

OUTPUT = Path("labels.jsonl")


def main() -> None:
    """Write a line of JSON for each video: its labels, or why it has none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("labels", nargs="*")
    parser.add_argument("--model", default="tiny", help="a name of mote_fast.list_models(), a folder or a file")
    given = parser.parse_args()
    folder = given.folder or draw_folder(Path("drawn"))

    lines = OUTPUT.read_text(encoding="utf-8").splitlines() if OUTPUT.exists() else []
    done = {json.loads(line)["video"] for line in lines}
    videos = [path for path in sorted(folder.rglob("*.mp4")) if str(path) not in done]
    print(f"{len(done)} done, {len(videos)} to do")

    clf = mote_fast.load(given.model).fold()
    with OUTPUT.open("a", encoding="utf-8") as output:
        for result in clf.stream_results(videos, given.labels or list(CLASSES), topk=3):
            labels = {best.label: round(best.score, 4) for best in result.predictions}
            error = None if result.error is None else str(result.error)
            print(json.dumps({"video": result.video, "labels": labels, "error": error}), file=output, flush=True)
    print(f"{OUTPUT}: {len(done) + len(videos)} videos")


# Needed outside Linux, where worker processes read this file again.
if __name__ == "__main__":
    main()
