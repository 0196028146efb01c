"""Fixtures of all tests: real clips and labels if present, golden numbers, a tiny CLIP file."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from safetensors.torch import load_file
from torch import Tensor

import mote_fast
from mote_fast.data import available_backends, loaders
from mote_fast.data.gpu.decoder_choice import gpu_decoder
from mote_fast.data.loading import view_frames
from mote_fast.data.reading_choices import GPU_DECODERS

# A busy machine must not fail a test: no example has a deadline. The default profile repeats the same cases, so that
# runs are comparable; "explore" generates new ones (make test-slow).
settings.register_profile("mote_fast", deadline=None, max_examples=40, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=300)
settings.load_profile("mote_fast")

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden"
SHARED = TESTS.parent.parent / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--clips", help="folder with the real clips that some tests decode")
    parser.addoption("--require-torchcodec", action="store_true", help="end at once where torchcodec cannot serve")
    parser.addoption("--attack", action="store_true", help="run tests/attack at full size")


def pytest_sessionstart(session: pytest.Session) -> None:
    if session.config.getoption("--require-torchcodec") and (reason := available_backends()["torchcodec"]):
        raise pytest.UsageError(reason)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("torchcodec") and (reason := available_backends()["torchcodec"]):
        pytest.skip(reason)


def why_no_dali() -> str | None:
    """Why DALI does not decode here; None if it does."""
    if "dali" not in GPU_DECODERS:
        return "DALI is no decoder of this library"
    return gpu_decoder("dali").why_unavailable("cpu")


@pytest.fixture(scope="module")
def needs_dali() -> None:
    if (reason := why_no_dali()) is not None:
        pytest.skip(reason)


@pytest.fixture(autouse=True, scope="module")
def no_process_is_kept() -> Iterator[None]:
    """The process that decodes for ``classify`` waits for the next video: the next file's tests count processes."""
    yield
    loaders.close_shared_readers()
    if view_frames._pool.cache_info().currsize:
        view_frames._pool(os.getpid()).close()
        view_frames._pool.cache_clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests used torchcodec, so that a run without it is not taken for one with it."""
    ran, skipped = (
        # The report of a file that skips as a whole has no keywords.
        sum(
            "torchcodec" in getattr(report, "keywords", ())
            for kind in kinds
            for report in terminalreporter.getreports(kind)
        )
        for kinds in (("passed", "failed"), ("skipped",))
    )
    terminalreporter.write_line(f"torchcodec: used by {ran} tests, {skipped} that need it skipped")
    counts = [
        (report.nodeid.rpartition("/")[2], *value)
        # A passed teardown is in no category.
        for kind in ("", "error")
        for report in terminalreporter.getreports(kind)
        for name, value in getattr(report, "user_properties", ())
        if name == "attack" and report.when == "teardown"
    ]
    if terminalreporter.config.getoption("--attack"):
        for name, attempts, failures in sorted(counts):
            terminalreporter.write_line(f"{attempts:7} attempts {failures:4} failures  {name}")
    if counts:
        attempts, failures = (sum(column) for column in list(zip(*counts, strict=True))[1:])
        terminalreporter.write_line(f"attacks: {len(counts)}, with {attempts} attempts and {failures} failures")


@pytest.fixture(scope="session")
def clips_dir(request: pytest.FixtureRequest) -> Path:
    folder = Path(request.config.getoption("--clips") or SHARED / "clips")
    if not (folder / "k400_arm_wrestling.mp4").is_file():
        pytest.skip(f"no real clips in {folder}; give --clips FOLDER")
    return folder


@pytest.fixture(scope="session")
def labels_dir() -> Path:
    if not (SHARED / "labels").is_dir():
        pytest.skip("no label lists of real data sets here")
    return SHARED / "labels"


CACHE_FOLDER = "mote_fast.clip.feature_cache.default_cache_folder"


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep fixtures of modules and of the session out of the user's cache of class features."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CACHE_FOLDER, lambda: folder)
        yield


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start every test with its own empty cache."""
    monkeypatch.setattr(CACHE_FOLDER, lambda: tmp_path / "cache")


@pytest.fixture(autouse=True)
def shipped_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands that name no model take the shipped one; their own default would be fetched from the web."""
    monkeypatch.setattr("mote_fast.cli.options.DEFAULT_MODEL", "tiny")


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    return json.loads((GOLDEN / "golden.json").read_text())


@pytest.fixture(scope="session")
def golden_head() -> dict[str, Tensor]:
    return load_file(GOLDEN / "head.safetensors")


@pytest.fixture(scope="session")
def golden_clip() -> dict[str, Tensor]:
    return load_file(GOLDEN / "clip.safetensors")


@pytest.fixture(scope="session")
def released_head(golden_head: dict[str, Tensor]) -> dict[str, Tensor]:
    """A head state dict in the released layout."""
    return {name.removeprefix("state."): value for name, value in golden_head.items() if name.startswith("state.")}


@pytest.fixture(scope="session")
def clip_state(golden_clip: dict[str, Tensor]) -> dict[str, Tensor]:
    """The golden CLIP as a whole state dict in OpenAI's layout; tokens that were not stored have zero embeddings."""
    prefix = "clip."
    state = {name.removeprefix(prefix): value for name, value in golden_clip.items() if name.startswith(prefix)}
    ids, rows = state.pop("token_embedding.ids"), state.pop("token_embedding.rows")
    state["token_embedding.weight"] = torch.zeros(49408, rows.shape[1]).index_copy(0, ids, rows)
    return state


@pytest.fixture(scope="session")
def openai_marks() -> dict[str, Tensor]:
    """The entries by which OpenAI's own state dicts are recognised."""
    sizes = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    return {name: torch.tensor(value) for name, value in sizes.items()}


@pytest.fixture(scope="session")
def clip_file(
    tmp_path_factory: pytest.TempPathFactory, clip_state: dict[str, Tensor], openai_marks: dict[str, Tensor]
) -> Path:
    """The golden CLIP as a file like those that OpenAI published, as a state dict."""
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.save(clip_state | openai_marks, path)
    return path


@pytest.fixture
def tiny() -> mote_fast.VideoClassifier:
    """The smallest architecture with fixed random weights."""
    torch.manual_seed(0)
    return mote_fast.create_model("ViT-test")


@pytest.fixture(scope="session")
def moving_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short h264 file of a moving ball."""
    return mote_fast.data.write_video(tmp_path_factory.mktemp("video") / "ball.mp4", rolling_ball(), fps=24)


def rolling_ball(length: int = 36, height: int = 240, width: int = 320, radius: int = 26) -> Tensor:
    """Draw a ball that rolls to the right over a shaded floor: uint8 [T, H, W, 3]."""
    rows = torch.arange(height)[:, None].expand(height, width)
    columns = torch.arange(width)[None, :].expand(height, width)
    floor = torch.stack((80 + rows // 4, 110 + rows // 6, 150 - rows // 5), dim=-1)
    frames = floor.to(torch.uint8).repeat(length, 1, 1, 1)
    for time, frame in enumerate(frames):
        center = radius + time * (width - 2 * radius) // (length - 1)
        ball = (columns - center) ** 2 + (rows - 150) ** 2 <= radius**2
        frame[ball] = torch.tensor([220, 60, 40], dtype=torch.uint8)
    return frames


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape lone surrogates in captured output: pytest-xdist cannot send them, and its worker would die."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
