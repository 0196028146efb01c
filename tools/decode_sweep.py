"""Compares every video below a folder with FFmpeg's command line, which plays it from the start.

    make decode-sweep FOLDER=archive
    python -m tools.decode_sweep archive --output sweep.csv --workers 4

Run it on your own archive before you trust its frame indices. Frame n of a video must be the n-th picture that
``ffmpeg -i FILE`` shows, or reading it must raise a typed error. For each file FFmpeg plays the stream that it chooses,
turned as it turns it. The library reads all frames in order, then single frames at the ends, around key frames and at
random, with every backend. Verdicts, worst first:

    crash                a decoder ended its process, or an error that is not the library's
    timeout              longer than --time-limit; nothing is known
    wrong picture        a frame is another picture of the file
    count differs        the library counts more frames or fewer, and reading the first of these raises no typed error
    size differs         in no orientation the same size
    orientation differs  the same pictures, turned or mirrored; FFmpeg applies all orientations since version 7
    colours differ       the right pictures, with channels off by more than 3 grey levels on average
    typed error          FFmpeg plays what the library refuses
    neither plays        FFmpeg cannot play it either
    equal

The first six are silent differences, except for an orientation that an FFmpeg before version 7 does not apply; the exit
status is then 1. It is 2 without FFmpeg's command line. A file whose first --max-frames are compared says so.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mote_fast.data import available_backends, probe, read_frames
from mote_fast.data.decoding.video_info import VideoInfo
from mote_fast.errors import FrameIndexError, MoteError, UndecodableVideoError, VideoError, one_line
from mote_fast.runtime.files import write_text
from mote_fast.runtime.text import markdown
from mote_fast.runtime.workers import WorkerLostError, run_each
from tools.ffmpeg_player import FFmpeg, Player, find_ffmpeg

# fmt: off
SUFFIXES = frozenset((
    ".3g2", ".3gp", ".asf", ".avi", ".avif", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h261", ".h263", ".h264",
    ".h265", ".hevc", ".ivf", ".m1v", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg",
    ".mpg", ".mts", ".mxf", ".nut", ".obu", ".ogm", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".webp", ".wmv",
    ".y4m",
))
# fmt: on
VERDICTS = (
    "crash",
    "timeout",
    "wrong picture",
    "count differs",
    "size differs",
    "orientation differs",
    "colours differ",
    "typed error",
    "neither plays",
    "equal",
)
SILENT = frozenset(VERDICTS[:7])

# Mean absolute difference of a channel, in grey levels: two versions of FFmpeg round differently.
_SAME_COLOUR = 3.0
# Height and width of the small pictures that are kept of every frame, to find out which one was read.
_THUMB = (24, 32)
# Memory of the frames that are compared at a time.
_CHUNK_BYTES = 2**26
# Quarter turns clockwise after an optional mirroring left to right; the first leaves the picture as it is.
_ORIENTATIONS = [(mirrored, turns) for mirrored in (False, True) for turns in range(4)]
# The first version of FFmpeg's command line that applies mirroring and the orientations in messages and EXIF.
_TURNS_ALL = 7


@dataclass(frozen=True)
class Task:
    """One file, and how to compare it."""

    path: str
    ffmpeg: FFmpeg
    max_frames: int
    time_limit: float


@dataclass
class Row:
    """The result of one file.

    ``frames`` are those that FFmpeg shows (at most those compared), ``counted`` those that the library counts;
    ``red``, ``green`` and ``blue`` are mean absolute differences over all compared frames, in grey levels, of the
    backend with the largest. ``excused`` marks an orientation that this FFmpeg does not apply.
    """

    path: str
    verdict: str = "equal"
    frames: int = 0
    counted: int = 0
    red: float = 0.0
    green: float = 0.0
    blue: float = 0.0
    excused: bool = False
    detail: str = ""

    @property
    def is_silent(self) -> bool:
        """Whether the library gives something else than FFmpeg without an error."""
        return self.verdict in SILENT and not self.excused


@dataclass
class _Findings:
    """Verdicts of one file, each with its first detail."""

    found: dict[str, str] = field(default_factory=dict)

    def add(self, verdict: str, detail: str) -> None:
        """Keep the first detail of a verdict."""
        self.found.setdefault(verdict, detail)


def find_videos(folder: Path, every: bool) -> list[Path]:
    """Regular files below ``folder`` with a video's suffix, or all of them, sorted."""
    names = (Path(root) / name for root, _, files in os.walk(folder) for name in files)
    return sorted(path for path in names if (every or path.suffix.lower() in SUFFIXES) and path.is_file())


def compare(task: Task) -> Row:
    """Compare one file; an error that is not the library's is a row too."""
    row = Row(task.path)
    try:
        _compare(task, row)
    except Exception as error:
        row.verdict, row.detail = "crash", f"{type(error).__name__}: {one_line(error)}"
    return row


def _compare(task: Task, row: Row) -> None:
    findings = _Findings()
    try:
        info = probe(task.path)
    except VideoError as error:
        _judge_refused(task, row, error)
        return
    row.counted = info.num_frames
    backends = ["auto", *(name for name, reason in available_backends().items() if reason is None)]
    thumbs: list[np.ndarray] = []
    sums, compared = {name: np.zeros(3) for name in backends}, Counter[str]()
    orientation: int | None = None
    got: dict[str, dict[int, np.ndarray]] = {name: {} for name in backends}
    with _play(task) as player:
        for chunk in _chunks(player, info):
            if orientation is None:
                orientation = _find_orientation(task.path, info, chunk, findings)
                if orientation is None:
                    break
            shown = [_turn(picture, orientation) for picture in chunk]
            first = len(thumbs)
            thumbs += [_thumb(picture) for picture in shown]
            indices = [index for index in range(first, first + len(shown)) if index < info.num_frames]
            for name in backends if indices else []:
                frames = _read(task.path, indices, name, info, findings)
                if frames is None:
                    continue
                for index, frame, picture in zip(indices, frames, shown, strict=False):
                    got[name][index] = _thumb(frame)
                    if frame.shape != picture.shape:
                        findings.add("size differs", f"{name}: frame {index} is {_size(frame)}, not {_size(picture)}")
                        continue
                    sums[name] += np.abs(frame.astype(np.int16) - picture).mean((0, 1))
                    compared[name] += 1
    row.frames = len(thumbs)
    if player.killed:
        findings.add("timeout", f"FFmpeg did not end within {task.time_limit / 2:g} s")
    if not thumbs and not findings.found:
        row.verdict = "count differs"
        row.detail = f"FFmpeg shows nothing ({player.error}); the library counts {info.num_frames} frames"
        return
    if thumbs:
        _check_count(task, info, len(thumbs), player.is_cut, findings)
    stacked = np.stack(thumbs) if thumbs else np.zeros((0, *_THUMB, 3), np.float16)
    for name in backends:
        for index in _spread(info, len(thumbs)):
            frames = _read(task.path, [index], name, info, findings)
            if frames is not None:
                _check_picture(f"{name}, alone", index, _thumb(frames[0]), stacked, findings)
        for index, thumb in got[name].items():
            _check_picture(name, index, thumb, stacked, findings)
    means = {name: sums[name] / compared[name] for name in backends if compared[name]}
    if means:
        worst = max(means, key=lambda name: means[name].max())
        row.red, row.green, row.blue = (round(float(value), 2) for value in means[worst])
        if means[worst].max() > _SAME_COLOUR:
            findings.add("colours differ", f"{worst}: off by {row.red}, {row.green}, {row.blue}")
    if orientation:
        mirrored, turns = _ORIENTATIONS[orientation]
        text = f"FFmpeg's pictures are to be {'mirrored and ' if mirrored else ''}turned by {90 * turns} degrees"
        row.excused = task.ffmpeg.version < _TURNS_ALL
        findings.add("orientation differs", text + (f"; FFmpeg {task.ffmpeg.version} does not apply all" * row.excused))
    row.excused = row.excused and not any(verdict in SILENT - {"orientation differs"} for verdict in findings.found)
    row.verdict = next((verdict for verdict in VERDICTS if verdict in findings.found), "equal")
    details = [f"{what}: {text}" if len(findings.found) > 1 else text for what, text in findings.found.items()]
    details += [f"only the first {len(thumbs)} frames were compared"] if player.is_cut else []
    row.detail = "; ".join(details)


def _judge_refused(task: Task, row: Row, error: VideoError) -> None:
    """``probe`` refuses the file: does FFmpeg play it?"""
    with _play(task) as player:
        row.frames = sum(1 for _ in player)
    row.verdict = "typed error" if row.frames else "neither plays"
    row.detail = error.reason if row.frames else f"{error.reason}; FFmpeg: {player.error}"


def _play(task: Task) -> Player:
    # The other half of the time is the library's.
    return Player(task.ffmpeg, task.path, task.max_frames, task.time_limit / 2)


def _chunks(player: Player, info: VideoInfo) -> Iterator[list[np.ndarray]]:
    """FFmpeg's pictures, a bounded number at a time."""
    length = max(1, min(64, _CHUNK_BYTES // (3 * info.width * info.height)))
    chunk: list[np.ndarray] = []
    for picture in player:
        chunk.append(picture)
        if len(chunk) == length:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _read(
    path: str, indices: Sequence[int], backend: str, info: VideoInfo, findings: _Findings
) -> list[np.ndarray] | None:
    """The frames at ``indices``; None if they are refused with a typed error."""
    try:
        return list(read_frames(path, indices, backend, info=info).numpy())
    except UndecodableVideoError as error:
        # torchcodec alone is not asked to read everything; "auto" is.
        if backend == "auto":
            findings.add("typed error", f"frame {indices[0]}: {error.reason}")
    except MoteError as error:
        findings.add("typed error", f"frame {indices[0]}: {type(error).__name__}: {one_line(error)}")
    return None


def _find_orientation(path: str, info: VideoInfo, chunk: Sequence[np.ndarray], findings: _Findings) -> int | None:
    """The orientation in which one of FFmpeg's first pictures is the library's first; None if none has its size."""
    frames = _read(path, [0], "auto", info, findings)
    if frames is None:
        return 0
    first = _thumb(frames[0])
    differences = {}
    for orientation in range(len(_ORIENTATIONS)):
        turned = [turn for picture in chunk if (turn := _turn(picture, orientation)).shape == frames[0].shape]
        if turned:
            differences[orientation] = min(float(np.abs(_thumb(picture) - first).mean()) for picture in turned)
    if not differences:
        findings.add("size differs", f"the library's frames are {_size(frames[0])}, FFmpeg's {_size(chunk[0])}")
        return None
    best = min(differences, key=differences.__getitem__)
    # A symmetric picture, or one that is not the library's in any orientation, is left as it is.
    stays = 0 in differences and differences[0] <= 2 * differences[best] + 1
    return 0 if stays else best


def _check_count(task: Task, info: VideoInfo, shown: int, is_cut: bool, findings: _Findings) -> None:
    if (is_cut and info.num_frames > shown) or info.num_frames == shown:
        return
    text = f"FFmpeg shows {shown}{' or more' if is_cut else ''}, the library counts {info.num_frames}"
    # In a file that is known to be damaged, the first frame that only one of the two has raises a typed error.
    try:
        read_frames(task.path, [min(shown, info.num_frames)], info=info)
    except UndecodableVideoError as error:
        findings.add("typed error", f"{text}: {error.reason}")
    except FrameIndexError:
        findings.add("count differs", text)
    else:
        findings.add("count differs", text)


def _check_picture(name: str, index: int, thumb: np.ndarray, thumbs: np.ndarray, findings: _Findings) -> None:
    """Find out whether a frame is FFmpeg's at its index, or rather another one of FFmpeg's."""
    own = float(np.abs(thumb - thumbs[index]).mean())
    if own < 0.5:
        return
    others = np.abs(thumbs - thumb).mean((1, 2, 3))
    nearest = int(others.argmin())
    # Colours that are off make every difference larger, so another picture must be clearly nearer.
    if nearest != index and own > 1.5 * others[nearest] + 0.5:
        findings.add("wrong picture", f"{name}: frame {index} is FFmpeg's picture {nearest}")


def _spread(info: VideoInfo, shown: int) -> list[int]:
    """Indices to read alone: the ends, around up to six key frames, and six at random."""
    count = min(info.num_frames, shown)
    draws = random.Random(0)
    keys = draws.sample(info.key_frames, min(6, len(info.key_frames)))
    wanted = {0, 1, count - 2, count - 1, *(key + step for key in keys for step in (-1, 0, 1))}
    wanted |= {draws.randrange(count) for _ in range(6)} if count else set()
    return sorted(index for index in wanted if 0 <= index < count)


def _turn(picture: np.ndarray, orientation: int) -> np.ndarray:
    mirrored, turns = _ORIENTATIONS[orientation]
    return np.rot90(picture[:, ::-1] if mirrored else picture, -turns)


def _thumb(picture: np.ndarray) -> np.ndarray:
    """The picture at the size ``_THUMB``: float16 [24, 32, 3]."""
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float()
    return torch.nn.functional.adaptive_avg_pool2d(pixels, _THUMB).permute(1, 2, 0).half().numpy()


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"


def sweep(tasks: Sequence[Task], workers: int, time_limit: float) -> list[Row]:
    """Compare all files, each in a process that may crash or hang; rows are in the order of ``tasks``."""
    rows: dict[str, Row] = {}
    with tqdm(total=len(tasks), unit="videos", disable=None, delay=2) as bar:
        for task, result in run_each(compare, tasks, workers, time_limit):
            if isinstance(result, Row):
                rows[task.path] = result
            elif isinstance(result, WorkerLostError):
                verdict = "timeout" if result.timed_out else "crash"
                rows[task.path] = Row(task.path, verdict, detail=str(result))
            bar.update()
    return [rows[task.path] for task in tasks if task.path in rows]


def as_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV."""
    text = io.StringIO()
    names = [entry.name for entry in fields(Row)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def as_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, the worst verdicts first."""
    lines = ["| verdict | file | frames | counted | R, G, B off by | detail |", "|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (VERDICTS.index(row.verdict), row.path)):
        path, detail = markdown(row.path), markdown(row.detail)
        colours = f"{row.red:g}, {row.green:g}, {row.blue:g}"
        lines.append(f"| {row.verdict} | {path} | {row.frames} | {row.counted} | {colours} | {detail} |")
    return "\n".join(lines) + "\n"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="every video below it is compared")
    parser.add_argument("--all", action="store_true", help="every file, not only those with a video's suffix")
    parser.add_argument("--output", type=Path, help="table to write: .csv or .md")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--max-frames", type=int, default=3000, help="frames to compare of each video (3000)")
    parser.add_argument("--time-limit", type=float, default=600.0, help="seconds for each video (600)")
    parser.add_argument("--workers", type=int, default=1, help="processes (1)")
    parser.add_argument("--ffmpeg", default="ffmpeg", help="FFmpeg's command line (ffmpeg)")
    options = parser.parse_args(arguments)
    if options.output is not None and options.output.suffix not in (".csv", ".md"):
        parser.error(f"--output {options.output}: name a .csv or .md file")
    if options.max_frames < 1 or options.workers < 1 or options.time_limit <= 0:
        parser.error("--max-frames, --workers and --time-limit must be above 0")
    if not options.folder.is_dir():
        parser.error(f"{options.folder}: is not a folder")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print and write the table; the exit status."""
    options = parse(arguments)
    ffmpeg = find_ffmpeg(options.ffmpeg)
    if ffmpeg is None:
        print(
            f"{options.ffmpeg}: no program that runs; install FFmpeg, or name its command with --ffmpeg",
            file=sys.stderr,
        )
        return 2
    videos = find_videos(options.folder, options.all)
    tasks = [Task(str(path), ffmpeg, options.max_frames, options.time_limit) for path in videos]
    try:
        rows = sweep(tasks, options.workers, options.time_limit)
        if options.output is not None:
            write_text(options.output, as_csv(rows) if options.output.suffix == ".csv" else as_table(rows))
    except MoteError as error:
        print(error, file=sys.stderr)
        return 2
    counts = Counter(row.verdict for row in rows)
    silent = sum(row.is_silent for row in rows)
    if options.json:
        print(
            json.dumps(
                {"ffmpeg": ffmpeg.version, "silent": silent, "counts": counts, "rows": [asdict(r) for r in rows]}
            )
        )
    else:
        print(as_table(rows))
        print(f"{len(rows)} files, {silent} with a silent difference; {dict(counts)}")
    return 1 if silent else 0


if __name__ == "__main__":
    raise SystemExit(main())
