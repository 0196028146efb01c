"""The paper's rows that need no training: what has to be evaluated for them, and their figures beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mote_fast.errors import ConfigError, quoted
from mote_fast.evaluation.combine import CLOSE_SET, ZERO_SHOT, harmonic_mean, read_result, top1_in
from mote_fast.evaluation.paper_rows import HM_ZS, HMDB, K400, K600, K600_1, ROWS, TABLES, TRADE_OFF, UCF, PaperRow
from mote_fast.evaluation.protocol_names import DEFAULT_VIEWS, READABLE, ProtocolName
from mote_fast.evaluation.report import RESULT_FILE


@dataclass(frozen=True)
class TestSet:
    """The lists of a data set, as ``mote-fast prepare`` writes them to lists/NAME, with its videos in videos/NAME.

    Attributes:
        name: of both folders, and of the step of ``mote-fast prepare``.
        lists: one for each split.
        labels: the class names of each list.
        protocol: "closeset" or "zeroshot".
        source: where its videos and annotations are.
    """

    # pytest would take a class of this name for a test.
    __test__ = False

    name: str
    lists: tuple[str, ...]
    labels: tuple[str, ...]
    protocol: ProtocolName
    source: str


_KINETICS = "https://github.com/cvdfoundation/kinetics-dataset"
_SPLITS = tuple(f"vallist_split{number}.txt" for number in (1, 2, 3))

TEST_SETS: Mapping[str, TestSet] = {
    K400: TestSet("k400", ("vallist.txt",), ("labels.csv",), CLOSE_SET, _KINETICS),
    UCF: TestSet("ucf101", _SPLITS, ("labels.csv",) * 3, ZERO_SHOT, "https://www.crcv.ucf.edu/data/UCF101.php"),
    HMDB: TestSet(
        "hmdb51",
        _SPLITS,
        ("labels.csv",) * 3,
        ZERO_SHOT,
        "https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/",
    ),
    K600: TestSet(
        "k600",
        tuple(f"k160_test_split{number}.txt" for number in (1, 2, 3)),
        tuple(f"k160_labels_split{number}.csv" for number in (1, 2, 3)),
        ZERO_SHOT,
        _KINETICS,
    ),
}


class Run(NamedTuple):
    """One evaluation: a released model on a data set."""

    model: str
    data_set: str
    views: str

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.model}_{TEST_SETS[self.data_set].name}_{self.views}"


class Compared(NamedTuple):
    """A figure of the paper beside ours; percent top-1, ours None where something was missing."""

    table: str
    row: str
    data_set: str
    paper: float
    ours: float | None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's, points."""
        return None if self.ours is None else self.ours - self.paper


def rows_of(tables: Sequence[str]) -> list[PaperRow]:
    """Return the rows of tables that need no training.

    Raises:
        ConfigError: a table is none of ``TABLES``.
    """
    for table in tables:
        if table not in TABLES:
            raise ConfigError(f"table {table!r} has no row of a released model; choose from {', '.join(TABLES)}")
    return [row for row in ROWS if row.table in tables and row.model is not None]


def runs_of(rows: Sequence[PaperRow]) -> list[Run]:
    """Return the evaluations that the rows need, each once."""
    return list(dict.fromkeys(run for row in rows for name in row.figures for run in _needed(row, name)))


def compare(rows: Sequence[PaperRow], results: Mapping[Run, Mapping[str, Any]], score: str) -> list[Compared]:
    """Return every figure of the rows beside ours, over the readable videos.

    Args:
        rows: see ``rows_of``.
        results: the document of each evaluation that could be made, see ``result_document``.
        score: "running" or "full-class".

    Raises:
        ConfigError: a document lacks an accuracy.
    """
    return [
        Compared(row.table, row.name, name, paper, _measured(row, name, results, score))
        for row in rows
        for name, paper in row.figures.items()
    ]


def record_of(folder: Path, facts: Mapping[str, Any], videos: Mapping[str, int]) -> dict[str, Any] | None:
    """Return the result that an earlier evaluation left in a folder; None if there is none.

    Args:
        folder: its output.
        facts: what the result must state, such as ``views``.
        videos: the number of videos of each split that it must have.

    Raises:
        ConfigError: the file there is no result, or one of another evaluation.
    """
    file = folder / RESULT_FILE
    if not file.exists():
        return None
    document = read_result(file)
    splits, failures = document.get("splits"), document.get("failures")
    if not isinstance(splits, list) or not all(isinstance(split, Mapping) for split in splits) or not splits:
        raise ConfigError(f"{file}: not a result of mote-fast eval: its splits are no list of results")
    if not isinstance(failures, list):
        raise ConfigError(f"{file}: not a result of mote-fast eval: its failures are no list")
    found = {**document, "videos": {str(split.get("name")): split.get("videos") for split in splits}}
    for key, expected in {**facts, "videos": dict(videos)}.items():
        if found.get(key) != expected:
            raise ConfigError(
                f"{file}: a result of another evaluation, {key} is {quoted(found.get(key))} and would be "
                f"{quoted(expected)}; give another --output, or remove that folder"
            )
    return document


def missing_files(data_set: str, root: Path) -> list[str]:
    """Return what a data set lacks under ``root``: a line about its videos, and one about its lists."""
    test_set = TEST_SETS[data_set]
    lists, videos = root / "lists" / test_set.name, root / "videos" / test_set.name
    absent = [name for name in dict.fromkeys((*test_set.lists, *test_set.labels)) if not (lists / name).is_file()]
    lines: list[str] = []
    if not videos.is_dir():
        lines.append(f"{data_set}: there is no folder {videos}; the videos are at {test_set.source}")
    if absent:
        prepare = f"mote-fast prepare {test_set.name} --annotations FILES --root {videos} --output {lists}"
        lines.append(f"{data_set}: {lists} lacks {', '.join(absent)}; make them with: {prepare}")
    return lines


def _needed(row: PaperRow, figure: str) -> list[Run]:
    """The evaluations behind one figure of a row."""
    assert row.model is not None
    if figure == TRADE_OFF:
        return [*_needed(row, K400), *_needed(row, HM_ZS)]
    if figure == HM_ZS:
        return [run for name in (UCF, HMDB, K600) for run in _needed(row, name)]
    data_set = K600 if figure == K600_1 else figure
    views = row.views if data_set == K400 else DEFAULT_VIEWS[TEST_SETS[data_set].protocol]
    return [Run(row.model, data_set, views)]


def _measured(row: PaperRow, figure: str, results: Mapping[Run, Mapping[str, Any]], score: str) -> float | None:
    if figure == TRADE_OFF:
        parts = [_measured(row, name, results, score) for name in (K400, HM_ZS)]
        return None if None in parts else harmonic_mean([part for part in parts if part is not None])
    if figure == HM_ZS:
        parts = [_measured(row, name, results, score) for name in (UCF, HMDB, K600)]
        return None if None in parts else harmonic_mean([part for part in parts if part is not None])
    (run,) = _needed(row, figure)
    if run not in results:
        return None
    document = results[run]
    entry = document["splits"][0] if figure == K600_1 else document["mean"]
    return top1_in(entry, run.name, score, READABLE)
