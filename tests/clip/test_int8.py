"""int8 towers: close to float32, exported once, refused where they cannot run."""

from __future__ import annotations

import copy
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as F

import mote_fast
from mote_fast import VideoClassifier
from mote_fast.clip import ClipTowers, feature_cache, int8, load_towers
from mote_fast.clip.calibration import Calibration
from mote_fast.clip.clip_config import TEST_MODEL, ClipConfig
from mote_fast.clip.int8 import Int8Backend, Int8Tower
from mote_fast.clip.model_cache import ModelCache
from mote_fast.clip.pretrained import build_towers
from mote_fast.errors import BackendError, ConfigError, VideoError
from mote_fast.model.dtypes import Int8
from mote_fast.runtime.environment import PRESETS
from tests.clip.outliers import with_outliers
from tests.tolerances import assert_close

# Exports of whole towers.
pytestmark = pytest.mark.heavy

CLIPS = sorted((PRESETS / "demo").glob("*/*.mp4"))


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for these tests, so that the tiny tower is exported once."""
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(autouse=True)
def shared_cache(private_cache: None, exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "default_cache_folder", lambda: exports)


@pytest.fixture
def quantized_tiny() -> VideoClassifier:
    torch.manual_seed(0)
    return mote_fast.create_model("ViT-test", dtype="int8")


@pytest.fixture(params=["onnxruntime", "openvino"])
def backend(request: pytest.FixtureRequest) -> Int8Backend:
    """What runs the tower, where it is installed."""
    pytest.importorskip(request.param, reason="runs int8 towers")
    return request.param


@pytest.fixture
def no_export(quantized_tiny: VideoClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any later export fails the test."""

    def refuse(towers: ClipTowers, bits: int, pixels: Tensor | None) -> bytes:
        raise AssertionError("exported again")

    monkeypatch.setattr(int8, "quantized", refuse)


def frames_for(towers: ClipTowers, count: int) -> Tensor:
    size = towers.image_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def tiny_export() -> bytes:
    """The exported tiny tower: the smallest of the tests' exports."""
    return min((path.read_bytes() for path in ModelCache().folder.glob("*.onnx")), key=len)


def lowest_cosine(model: VideoClassifier, pixels: Tensor) -> float:
    with torch.no_grad():
        return F.cosine_similarity(model.encode_frames(pixels), model.clip.run_vision_tower(pixels)).min().item()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_features_stay_near_float32(backend: Int8Backend, count: int) -> None:
    """Any number of frames, by one export; near, but not the float features themselves."""
    torch.manual_seed(0)
    model = mote_fast.create_model("ViT-test", dtype="int8" if backend == "onnxruntime" else "int8-openvino")
    assert 0.999 <= lowest_cosine(model, frames_for(model.clip, count)) < 1.0 - 1e-7


def test_frames_do_not_depend_on_their_batch_in_openvino() -> None:
    """Ranges of tokens are those of the calibration; and threads may share a tower."""
    pytest.importorskip("openvino", reason="runs int8 towers")
    torch.manual_seed(0)
    towers = load_towers("ViT-test")
    tower = Int8Tower(towers, backend="openvino")
    pixels = frames_for(towers, 6)
    together = tower(pixels)
    with ThreadPoolExecutor(3) as threads:
        alone = torch.cat(list(threads.map(tower, pixels.split(1))))
    assert_close(alone, together)


def test_outlier_channels_cost_nothing(backend: Int8Backend, tmp_path: Path) -> None:
    """Towers as trained ones look, with a few large channels in every LayerNorm: int8 is as near as without them."""
    torch.manual_seed(0)
    plain = load_towers("ViT-test")
    pixels = frames_for(plain, 8)
    expected = plain.run_vision_tower(pixels)
    found = Int8Tower(with_outliers(plain, 40.0), ModelCache(tmp_path), backend=backend)(pixels)
    assert F.cosine_similarity(found, expected).min() >= 0.999


@pytest.mark.parametrize(
    ("sets", "bits"),
    [("fma avx2", 7), ("avx512f avx512bw", 7), ("avx2 avx_vnni", 8), ("avx512f avx512_vnni", 8), ("asimd", 7), ("", 7)],
)
def test_weights_have_the_bits_of_the_processor(
    sets: str, bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums of two products overflow without VNNI: neither an export nor a cached tower has 8 bits there."""
    torch.manual_seed(0)
    towers, cache = load_towers("ViT-test"), ModelCache(tmp_path)
    monkeypatch.setattr(int8, "instruction_sets", ["avx512_vnni"].copy)
    exports: list[int] = []
    monkeypatch.setattr(int8, "quantized", lambda _, bits, __: exports.append(bits) or tiny_export())
    Int8Tower(towers, cache).prepare()
    # The rest of the machine is the same, as if the cache did not know its instruction sets.
    monkeypatch.setattr(int8, "instruction_sets", sets.split)
    Int8Tower(towers, cache).prepare()
    assert exports == ([8] if bits == 8 else [8, 7])


@pytest.mark.parametrize(("bits", "static"), [(7, False), (8, False), (7, True)])
def test_the_range_of_weights(bits: int, static: bool) -> None:
    """7 bits are those of the stored numbers, not only of the cache's key; with ranges for OpenVINO too."""
    torch.manual_seed(0)
    towers = load_towers("ViT-test")
    model = onnx.load_from_string(int8.quantized(towers, bits, frames_for(towers, 3) if static else None))
    stored = [numpy_helper.to_array(each) for each in model.graph.initializer]
    largest = max(abs(int(each.min())) for each in stored if each.dtype == "int8" and each.ndim == 2)
    assert largest in {7: (63, 64), 8: (127, 128)}[bits]


def test_own_videos_calibrate(quantized_tiny: VideoClassifier, tmp_path: Path) -> None:
    """``quantize`` takes paths of the user's own; a missing video is named, and the model stays as it was."""
    before = quantized_tiny.int8
    for wrong, kind in (([tmp_path / "none.mp4"], VideoError), ([], ConfigError), ("a.mp4", ConfigError)):
        with pytest.raises(kind, match=r"none.mp4|calibrate"):
            quantized_tiny.quantize(calibrate=wrong)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(VideoError, match="broken"):
        quantized_tiny.quantize(calibrate=[*CLIPS[:1], broken])
    assert quantized_tiny.int8 is before
    quantized_tiny.quantize(calibrate=CLIPS[:2])
    assert lowest_cosine(quantized_tiny, frames_for(quantized_tiny.clip, 2)) >= 0.999


def test_golden_features(clip_file: Path, golden_clip: dict[str, Tensor], backend: Int8Backend) -> None:
    """CLIP's weights in OpenAI's layout, against the features of the official code."""
    towers = load_towers(None, clip_file)
    found = Int8Tower(towers, backend=backend)(golden_clip["image.input"])
    assert F.cosine_similarity(found, golden_clip["image.frame_features"].flatten(0, 1)).min() >= 0.999


def test_every_weight_is_quantised(quantized_tiny: VideoClassifier) -> None:
    """No product with a stored matrix stays in float: quantisation skips products silently."""
    layers = TEST_MODEL["vision_cfg"]["layers"]
    operators = [node.op_type for node in onnx.load_from_string(tiny_export()).graph.node]
    # Four per block, one more because the last block projects its query separately, and the projection.
    assert operators.count("MatMulInteger") == 4 * layers + 2
    assert operators.count("MatMul") == 2 * layers
    assert "Gemm" not in operators


def test_the_cache_serves_a_second_model(quantized_tiny: VideoClassifier, no_export: None) -> None:
    """Equal weights are exported once: another model, a folded one and a copy give the same bits."""
    pixels = frames_for(quantized_tiny.clip, 3)
    expected = quantized_tiny.encode_frames(pixels)
    torch.manual_seed(0)
    again = mote_fast.create_model("ViT-test", dtype="int8")
    for model in (again, again.fold(), copy.deepcopy(again)):
        assert torch.equal(model.encode_frames(pixels), expected)


def test_a_damaged_file_is_exported_again(
    quantized_tiny: VideoClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken file costs an export and a line in the log, and works afterwards."""
    towers, cache = quantized_tiny.clip, ModelCache(tmp_path)
    content = tiny_export()
    exported: list[ClipTowers] = []
    monkeypatch.setattr(int8, "quantized", lambda towers, *_: exported.append(towers) or content)
    Int8Tower(towers, cache).prepare()
    (path,) = tmp_path.iterdir()
    path.write_bytes(content[:-100])
    Int8Tower(towers, cache).prepare()
    Int8Tower(towers, cache).prepare()
    assert len(exported) == 2
    assert "damaged" in caplog.text
    assert path.read_bytes() == content


def test_changed_weights_are_followed(
    quantized_tiny: VideoClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights loaded into an int8 model are exported again; the old ones no longer run."""
    towers = quantized_tiny.clip
    quantized_tiny.encode_frames(frames_for(towers, 1))
    exported: list[ClipTowers] = []
    content = tiny_export()
    monkeypatch.setattr(int8, "quantized", lambda towers, *_: exported.append(towers) or content)
    monkeypatch.setattr(quantized_tiny.int8, "cache", ModelCache(tmp_path))
    with torch.no_grad():
        towers.model.visual.proj.mul_(2)
    for _ in range(2):
        quantized_tiny.encode_frames(frames_for(towers, 1))
    assert len(exported) == 1


@pytest.mark.parametrize("changed", ["weights", "calibration", "bits", "machine", "version"])
def test_a_tower_of_another_origin_is_not_taken(
    quantized_tiny: VideoClassifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    changed: str,
) -> None:
    """A file of other weights, another machine or version is no hit, and under the name of the right one it is seen."""
    towers, cache, content = quantized_tiny.clip, ModelCache(tmp_path), tiny_export()
    exported: list[ClipTowers] = []
    monkeypatch.setattr(int8, "quantized", lambda towers, *_: exported.append(towers) or content)
    Int8Tower(towers, cache).prepare()
    (first,) = tmp_path.iterdir()
    if changed == "weights":
        with torch.no_grad():
            towers.model.visual.proj.mul_(2)
    elif changed != "calibration":
        name = {"bits": "weight_bits", "machine": "machine", "version": "_versions"}[changed]
        monkeypatch.setattr(int8, name, lambda *_: "another")
    calibration = Calibration([CLIPS[0]]) if changed == "calibration" else None
    Int8Tower(towers, cache, calibration).prepare()
    assert len(exported) == 2
    assert not caplog.text
    (second,) = set(tmp_path.iterdir()) - {first}
    first.rename(tmp_path / f"{second.name.split('-')[0]}-{first.name.split('-')[1]}")
    second.unlink()
    Int8Tower(towers, cache, calibration).prepare()
    assert len(exported) == 3
    assert "made for another model or machine" in caplog.text


def test_saving_keeps_the_float_weights(quantized_tiny: VideoClassifier, no_export: None, tmp_path: Path) -> None:
    """save() writes what was quantised, bit for bit; it loads in float32 and, from the cache, in int8."""
    quantized_tiny.save(tmp_path / "model")
    torch.manual_seed(0)
    original = mote_fast.create_model("ViT-test")
    loaded = mote_fast.load(tmp_path / "model")
    assert loaded.int8 is None
    state = loaded.state_dict()
    assert all(torch.equal(state[name], value) for name, value in original.state_dict().items())
    pixels = frames_for(loaded.clip, 2)
    again = mote_fast.load(tmp_path / "model", dtype="int8")
    assert torch.equal(again.encode_frames(pixels), quantized_tiny.encode_frames(pixels))


def test_training_is_refused(quantized_tiny: VideoClassifier) -> None:
    """Gradients would not reach the image tower, so training mode raises; evaluation mode changes nothing."""
    quantized_tiny.eval()
    with pytest.raises(ConfigError, match="int8 model cannot be trained"):
        quantized_tiny.train()


def custom(**vision: object) -> ClipTowers:
    return build_towers(
        ClipConfig.of_clip({**TEST_MODEL, "vision_cfg": {**TEST_MODEL["vision_cfg"], **vision}}, "Other")
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mote_fast.create_model("ViT-test", dtype="int8", device="meta"), "on the CPU, not on meta"),
        (lambda: mote_fast.create_model("ViT-test", dtype="int4"), "'int4'"),  # pyright: ignore[reportArgumentType]
        (lambda: mote_fast.create_model("ViT-test", dtype="int8-openvino", device="meta"), "'int8-openvino' runs on"),
        (lambda: mote_fast.load("tiny").quantize(backend="tvm"), "backend"),  # pyright: ignore[reportArgumentType]
        (lambda: Int8Tower(custom(pool_type="avg")).prepare(), "Other is not"),
        (lambda: Int8Tower(custom().bfloat16()).prepare(), "bfloat16"),
    ],
)
def test_where_it_cannot_serve(make: Callable[[], object], message: str) -> None:
    """Other devices, dtypes and architectures are refused before anything is exported."""
    with pytest.raises(ConfigError, match=message):
        make()


def test_moved_models_are_refused(quantized_tiny: VideoClassifier) -> None:
    """An int8 model that was cast afterwards raises an error instead of running float weights."""
    pixels = frames_for(quantized_tiny.clip, 1).bfloat16()
    with pytest.raises(ConfigError, match="float32 on the CPU"):
        quantized_tiny.bfloat16().encode_frames(pixels)


@pytest.mark.parametrize(
    ("module", "dtype", "extra"),
    [
        ("onnxruntime", "int8", "int8"),
        ("onnxscript.optimizer", "int8", "int8"),
        ("openvino", "int8-openvino", "openvino"),
    ],
)
def test_a_missing_package_is_named(
    module: str, dtype: Int8, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the extra the error says what to install; exporting needs more packages than running."""
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(feature_cache, "default_cache_folder", lambda: tmp_path)
    with pytest.raises(BackendError, match=rf"needs {module.partition('.')[0]} .*mote_fast\[{extra}\]"):
        mote_fast.create_model("ViT-test", dtype=dtype)


def export_into(folder: Path) -> None:
    torch.manual_seed(0)
    towers = load_towers("ViT-test")
    tower = Int8Tower(towers, ModelCache(folder))
    tower.prepare()
    pixels = frames_for(towers, 2)
    assert F.cosine_similarity(tower(pixels), towers.run_vision_tower(pixels)).min() > 0.999


@pytest.mark.slow
def test_two_processes_export_at_once(tmp_path: Path) -> None:
    """Both processes work, and leave complete files only."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=export_into, args=(tmp_path,)) for _ in range(2)]
    for process in workers:
        process.start()
    for process in workers:
        process.join()
    assert [process.exitcode for process in workers] == [0, 0]
    assert all(path.suffix == ".onnx" for path in tmp_path.iterdir())
