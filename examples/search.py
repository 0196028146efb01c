"""Find videos by words: embed a folder once, then rank its videos for each query.

python examples/search.py                                     # drawn videos, with the model of the package
python examples/search.py videos/ "a dog runs" "two people shake hands" --model mote-b16-k400
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from drawn_clips import draw_folder
from safetensors.torch import load_file, save_file

import mote_fast

INDEX = Path("vectors.safetensors")


def embed(clf: mote_fast.VideoClassifier, folder: Path) -> dict[str, torch.Tensor]:
    """Return the embedding of every readable video of a folder, by its path."""
    vectors = {}
    for found in clf.stream_embeddings(sorted(folder.rglob("*.mp4"))):
        if found.embedding is None:
            print(f"left out: {found.error}")
        else:
            vectors[found.video] = found.embedding
    return vectors


def main() -> None:
    """Print the three best videos for each query."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("queries", nargs="*")
    parser.add_argument("--model", default="tiny", help="a name of mote_fast.list_models(), a folder or a file")
    given = parser.parse_args()
    queries = given.queries or ["plain blue square sliding to the bottom"]

    clf = mote_fast.load(given.model)
    save_file(embed(clf, given.folder or draw_folder(Path("drawn"))), INDEX)
    vectors = load_file(INDEX)
    names, matrix = list(vectors), torch.stack(list(vectors.values()))
    for query, cosines in zip(queries, clf.embed_text(queries) @ matrix.T, strict=True):
        print(query)
        for place in cosines.topk(min(3, len(names))).indices.tolist():
            print(f"  {cosines[place]:.3f}  {names[place]}")


if __name__ == "__main__":
    main()
