"""Model folders are complete: loading one opens nothing outside it, reaches no network and runs no code of its own."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

import mote_fast
from mote_fast.errors import BackendError, CheckpointError, ConfigError
from mote_fast.runtime.weights import CONFIG_FILE, TEXT_FOLDER

VISION = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
PREPROCESSING = {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear", "resize_mode": "squash"}
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "##s", "cello", "video", ".")
# A tokenizer of transformers, whose name is that of a repository.
BERT_TOKENIZER = {"hf_tokenizer_name": "org/words", "context_length": 16, "vocab_size": len(WORDS)}
# A whole text tower of transformers.
BERT_TOWER = {"hf_model_name": "org/bert", "hf_tokenizer_name": "org/bert", "context_length": 16, "width": 64}
BERT = {
    "model_type": "bert",
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 32,
    "vocab_size": len(WORDS),
}
EVIL = "import pathlib\npathlib.Path({marker!r}).touch()\nclass Evil: pass\n"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail on any connection."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("the network was reached")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def write_published(folder: Path, text: dict[str, Any]) -> Path:
    """Write a folder in open_clip's layout, with a tokenizer of transformers if ``text`` has one."""
    folder.mkdir()
    config: dict[str, Any] = {"embed_dim": 64, "vision_cfg": VISION, "text_cfg": text}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESSING}))
    if text.get("hf_tokenizer_name"):
        (folder / "vocab.txt").write_text("\n".join(WORDS))
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizerFast"}))
        (folder / "config.json").write_text(json.dumps(BERT))
    model: Any
    if text.get("hf_model_name"):
        config |= {"text_cfg": {**text, "hf_model_name": str(folder), "hf_model_pretrained": False}}
        model = open_clip.CustomTextCLIP(**config)
    else:
        model = open_clip.CLIP(**config)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


@pytest.fixture
def published(tmp_path: Path) -> Callable[..., Path]:
    """Write the folder "published"."""
    return lambda text: write_published(tmp_path / "published", text)


@torch.no_grad()
@pytest.mark.parametrize("text", [TEXT, TEXT | BERT_TOKENIZER, BERT_TOWER], ids=["clip", "tokenizer", "tower"])
def test_a_saved_folder_needs_nothing_else(text: dict[str, Any], published: Any, tmp_path: Path) -> None:
    """Saved, the source gone, loaded: the same preprocessing and the same features of frames and labels."""
    if "hf_tokenizer_name" in text:
        pytest.importorskip("transformers", reason="needs mote_fast[text]")
    source = published(text)
    model = mote_fast.create_model(f"local-dir:{source}", layers=1, experts=2)
    assert model.clip.config.preprocessing.resize_mode == "squash"
    model.feature_cache = None
    labels = ["cello", "photos of a video"]
    wanted = model.class_features(labels)
    assert not torch.allclose(wanted[0], wanted[1])
    model.save(tmp_path / "saved")
    assert (tmp_path / "saved" / TEXT_FOLDER).exists() == ("hf_tokenizer_name" in text)
    source.rename(tmp_path / "elsewhere")
    back = mote_fast.load(tmp_path / "saved")
    back.feature_cache = None
    assert back.config == model.config
    assert torch.equal(back.class_features(labels), wanted)
    frames = torch.randint(256, (9, 40, 60, 3), dtype=torch.uint8)
    assert torch.equal(back.embed(frames), model.embed(frames))
    # Saved again, a loaded model is as complete.
    back.save(tmp_path / "saved")
    again = mote_fast.load(tmp_path / "saved")
    again.feature_cache = None
    assert torch.equal(again.class_features(labels), wanted)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """A saved folder whose CLIP configuration is changed."""

    def write(text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None, **clip: Any) -> Path:
        folder = tmp_path / "model"
        mote_fast.create_model("ViT-test", layers=1, experts=2).save(folder)
        config = json.loads((folder / CONFIG_FILE).read_text())
        config["clip"] |= clip
        config["clip"]["model"]["text_cfg"] |= text or {}
        config["clip"]["model"]["vision_cfg"] |= vision or {}
        (folder / CONFIG_FILE).write_text(json.dumps(config))
        return folder

    return write


@pytest.mark.parametrize("name", ["hf-hub:org/evil", "local-dir:/nowhere", "roberta-ViT-B-32"])
def test_the_name_in_a_folder_decides_nothing(name: str, saved: Any) -> None:
    """The name of a folder's configuration tells where it is from, and opens nothing."""
    assert mote_fast.load(saved(name=name)).class_features(["cello"]).shape == (1, 64)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"text": {"hf_tokenizer_name": "org/evil"}}, CheckpointError, "no folder 'text'"),
        ({"text": {"hf_tokenizer_name": "/etc"}}, CheckpointError, "no folder 'text'"),
        ({"text": {"hf_model_name": "org/evil"}}, CheckpointError, "no folder 'text'"),
        ({"text": {"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}}, ConfigError, "bpe_path"),
        ({"vision": {"timm_model_name": "hf-hub:org/evil"}}, ConfigError, "hf-hub:org/evil"),
        ({"vision": {"timm_model_name": "local-dir:/etc"}}, ConfigError, "local-dir:/etc"),
    ],
)
def test_a_folder_that_refers_to_other_places_is_refused(
    changes: dict[str, Any], error: type[Exception], message: str, saved: Any
) -> None:
    """Repositories, folders and files that a configuration names are not opened."""
    with pytest.raises(error, match=message):
        mote_fast.load(saved(**changes))


def test_timm_downloads_nothing(saved: Any) -> None:
    """A configuration that asks for timm's own weights gets the folder's, or an error that they do not fit."""
    with pytest.raises(CheckpointError, match="does not fit"):
        mote_fast.load(saved(vision={"timm_model_name": "resnet18", "timm_model_pretrained": True}))


def test_a_tokenizer_lies_in_the_folder(saved: Any, tmp_path: Path) -> None:
    """A link in place of the tokenizer's folder would read another one; one inside it, a file of the user."""
    folder = saved(text={"hf_tokenizer_name": "org/words"})
    (tmp_path / "other").mkdir()
    (folder / TEXT_FOLDER).symlink_to(tmp_path / "other")
    with pytest.raises(CheckpointError, match="no folder 'text'"):
        mote_fast.load(folder)
    (folder / TEXT_FOLDER).unlink()
    (folder / TEXT_FOLDER / "additional_chat_templates").mkdir(parents=True)
    (folder / TEXT_FOLDER / "additional_chat_templates" / "all.jinja").symlink_to("/etc/passwd")
    with pytest.raises(CheckpointError, match=r"all\.jinja.*leads out"):
        mote_fast.load(folder)


def test_a_folder_with_a_tokenizer_names_the_missing_package(saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without transformers a complete folder raises the error that names the extra."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    folder = saved(text={"hf_tokenizer_name": "org/words"})
    (folder / TEXT_FOLDER).mkdir()
    with pytest.raises(BackendError, match=r"mote_fast\[text\]"):
        mote_fast.load(folder)


@pytest.mark.parametrize("options", [{"trust_remote_code": True}, {"subfolder": ".."}, {"vocab_file": "/etc/passwd"}])
def test_options_of_a_tokenizer_cannot_run_code(options: dict[str, Any], saved: Any) -> None:
    """Options that reach transformers are refused, whether it is installed or not."""
    folder = saved(text={"hf_tokenizer_name": "org/words", "tokenizer_kwargs": options})
    (folder / TEXT_FOLDER).mkdir()
    with pytest.raises(ConfigError, match=next(iter(options))):
        mote_fast.load(folder)


def test_a_tokenizer_names_no_files(saved: Any) -> None:
    """A tokenizer's own configuration could name any file of the machine as its vocabulary."""
    folder = saved(text={"hf_tokenizer_name": "org/words"})
    (folder / TEXT_FOLDER).mkdir()
    (folder / TEXT_FOLDER / "tokenizer_config.json").write_text(json.dumps({"vocab_file": "/etc/passwd"}))
    with pytest.raises(CheckpointError, match="vocab_file"):
        mote_fast.load(folder)


@pytest.mark.parametrize("text", [TEXT | BERT_TOKENIZER, BERT_TOWER], ids=["tokenizer", "tower"])
@pytest.mark.parametrize("through", ["create_model", "load"])
def test_code_beside_a_tokenizer_never_runs(
    text: dict[str, Any], through: str, published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes of the folder itself, for tokenizer and text tower, are ignored or refused, and never asked about."""
    pytest.importorskip("transformers", reason="needs mote_fast[text]")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    marker, source = tmp_path / "ran", published(text)
    place = source
    if through == "load":
        mote_fast.create_model(f"local-dir:{source}", layers=1, experts=2).save(tmp_path / "saved")
        place = tmp_path / "saved" / TEXT_FOLDER
    (place / "evil.py").write_text(EVIL.format(marker=str(marker)))
    maps = {"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
    for name, values in (
        ("tokenizer_config.json", {"tokenizer_class": "Evil"}),
        ("config.json", {"model_type": "evil"}),
    ):
        path = place / name
        if path.exists():
            path.write_text(json.dumps(json.loads(path.read_text()) | values | {"auto_map": maps}))
    # Whatever comes of it: an error, or the tokenizer without the code.
    try:
        if through == "load":
            mote_fast.load(tmp_path / "saved")
        else:
            mote_fast.create_model(f"local-dir:{source}", layers=1, experts=2)
    except (CheckpointError, ConfigError):
        pass
    assert not marker.exists()


def test_a_published_folder_without_weights_is_refused(published: Any) -> None:
    """Random towers are not given in place of a model's own."""
    folder = published(TEXT)
    (folder / "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        mote_fast.create_model(f"local-dir:{folder}")


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps({"model_cfg": {"embed_dim": 64}})])
def test_a_published_folder_that_is_malformed_is_named(content: str, published: Any) -> None:
    """Every malformed configuration raises a typed error."""
    folder = published(TEXT)
    (folder / "open_clip_config.json").write_text(content)
    with pytest.raises((CheckpointError, ConfigError), match="published"):
        mote_fast.create_model(f"local-dir:{folder}")


def test_a_repository_refers_to_itself_or_to_known_ones(published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository of the hub that was named cannot lead to one that was not."""
    folder = published(TEXT | {"hf_tokenizer_name": "other/evil"})
    names = {"open_clip_config.json": folder / "open_clip_config.json", None: folder / "open_clip_pytorch_model.bin"}
    monkeypatch.setattr(
        "mote_fast.clip.pretrained.download_pretrained_from_hf", lambda place, name=None: str(names[name])
    )
    with pytest.raises(ConfigError, match="other/evil"):
        mote_fast.create_model("hf-hub:org/model")
