"""Write the videos and label lists that `mote-fast demo` shows into the package.

python lab/write_demo.py
"""

from __future__ import annotations

from world.splits import COMBINATIONS, UNSEEN_ACTIONS, splits
from world.words import Object, class_name
from world.write import write_action

from mote_fast.cli.demo import CLIPS
from mote_fast.prepare.lists import format_labels
from mote_fast.runtime.files import write_texts

# The classes shown, by label set.
SHOWN = (
    (COMBINATIONS, 1),
    (COMBINATIONS, 10),
    (COMBINATIONS, 20),
    (COMBINATIONS, 34),
    (UNSEEN_ACTIONS, 2),
    (UNSEEN_ACTIONS, 12),
)


def file_name(number: int, shown: tuple[Object, str], split: str) -> str:
    """The file name of a video of ``shown``, an object and its action; the demo reads the true class from it."""
    return f"{split}/{number}_{class_name(*shown).replace(' ', '_')}.mp4"


def main() -> None:
    found = splits()
    write_texts(CLIPS, {f"{name}.csv": format_labels(found[name].labels) for name in dict(SHOWN)}, force=True)
    for number, (name, index) in enumerate(SHOWN):
        shown = found[name].classes[index]
        path = CLIPS / file_name(number, shown, name)
        path.parent.mkdir(exist_ok=True)
        write_action(path, *shown, seed=("demo", number))


if __name__ == "__main__":
    main()
