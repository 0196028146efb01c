"""Models of the hub, through its own client: what is fetched, what works without a network, and what errors say."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

import mote_fast
from mote_fast.cli import main
from mote_fast.errors import CheckpointError
from mote_fast.model import hub
from mote_fast.runtime.weights import CONFIG_FILE, TEXT_FOLDER, WEIGHTS_FILE
from tests.hub_server import Hub, Repository

# The client's threads, and models of half a second.
pytestmark = pytest.mark.heavy

NAME = "hf-hub:org/model"
# What a repository may hold beside a model, and never comes onto this machine.
OTHERS = {
    "README.md": b"# a card",
    "evil.py": b"raise SystemExit",
    "pytorch_model.bin": b"pickle",
    "text/evil.py": b"1",
}
LABELS = ["cello", "photos of a video"]


@pytest.fixture(scope="module")
def files(model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the saved model."""
    folder = tmp_path_factory.mktemp("model") / "saved"
    model.save(folder)
    return files_of(folder)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def published(remote: Hub, files: dict[str, bytes]) -> Repository:
    """The model in a repository, with files that nobody asked for."""
    repository = remote.repositories["org/model"] = Repository()
    repository.commit(files | OTHERS)
    return repository


def unplug(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the network away."""

    def refuse(*arguments: object) -> None:
        raise OSError("the network is gone")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_repository_loads(published: Repository, remote: Hub, model: Any) -> None:
    """Every weight and the configuration arrive; only the files of a model folder are fetched, once."""
    loaded = mote_fast.load(NAME)
    assert loaded.config == model.config
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    fetched = {request.rpartition("/resolve/")[2] for request in remote.requests if "/resolve/" in request}
    commit = published.branches["main"]
    assert fetched == {f"main/{CONFIG_FILE}", f"{commit}/{WEIGHTS_FILE}"}
    assert hub.pinned_name(NAME) == f"{NAME}@{commit}"
    remote.requests.clear()
    mote_fast.load(NAME)
    assert not any(request.startswith("GET") and "/resolve/" in request for request in remote.requests)


def test_a_revision_stays(published: Repository, files: dict[str, bytes]) -> None:
    """A commit and a branch are named after "@"; the main branch moves on."""
    first = published.branches["main"]
    published.branches["v1"] = first
    published.commit(files | {CONFIG_FILE: files[CONFIG_FILE].replace(b"cello", b"other")})
    found = [mote_fast.load(f"{NAME}{revision}").classes for revision in ("", f"@{first}", "@v1")]
    assert found == [("archery", "other"), ("archery", "cello"), ("archery", "cello")]


@pytest.mark.parametrize("how", ["no network", "offline", "out of order"])
@pytest.mark.parametrize("revision", ["", "@v1", "commit"])
def test_what_was_fetched_works_without_the_hub(
    how: str, revision: str, published: Repository, remote: Hub, model: Any, monkeypatch: Any, caplog: Any
) -> None:
    """By branch and by commit, with a warning that names the commit; what was not fetched says what to do."""
    commit = published.branches["v1"] = published.branches["main"]
    name = f"{NAME}@{commit}" if revision == "commit" else NAME + revision
    mote_fast.load(name)
    if how == "no network":
        unplug(monkeypatch)
    elif how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        remote.status = 503
    caplog.clear()
    assert mote_fast.load(name).config == model.config
    assert commit in caplog.text
    with pytest.raises(CheckpointError, match=r"not on this machine.*on another machine"):
        mote_fast.load("hf-hub:org/other")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf-hub:org/nosuch", "no such repository.*hf auth login"),
        ("hf-hub:org/closed", "closed to you.*hf auth login"),
        ("hf-hub:org/gated", "accepted first.*org/gated.*hf auth login"),
        ("hf-hub:org/model@nosuch", "no such branch, tag or commit"),
        ("hf-hub:org/towers", r"create_model\('hf-hub:org/towers', header='mean'\)"),
        ("hf-hub:org/empty", "no model of mote_fast"),
        ("hf-hub:org/large", r"config\.json has 5000000 bytes, over the limit"),
        ("hf-hub:org/../model", "write hf-hub:ORGANIZATION/NAME"),
        ("hf-hub:model", "write hf-hub:ORGANIZATION/NAME"),
        ("hf-hub:org/-.-", "name of a repository"),
    ],
)
def test_errors_say_what_to_do(name: str, message: str, published: Repository, remote: Hub, capsys: Any) -> None:
    """One typed line, from Python and from the command line, and nothing is fetched."""
    files = published.commits[published.branches["main"]]
    for other, content in {
        "closed": files,
        "gated": files,
        "towers": {"open_clip_config.json": b"{}"},
        "empty": {},
        "large": files,
    }.items():
        remote.repositories[f"org/{other}"] = Repository(private=other == "closed", gated=other == "gated")
        remote.repositories[f"org/{other}"].commit(content)
    remote.claimed = {CONFIG_FILE: 5_000_000} if name.endswith("large") else {}
    with pytest.raises(CheckpointError, match=message) as raised:
        mote_fast.load(name)
    assert "\n" not in str(raised.value)
    assert main(["classify", "none.mp4", "--model", name, "--labels", "a"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_results_state_the_commit(published: Repository, moving_video: Path, tmp_path: Path, capsys: Any) -> None:
    """A branch may lead elsewhere when the numbers are read."""
    for label in ("archery", "cello"):
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "video.mp4").symlink_to(moving_video)
    command = ["eval", "--protocol", "zeroshot", "--list", str(tmp_path / "data"), "--model", NAME, "--json"]
    assert main([*command, "--workers", "0", "--views", "1x1"]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"] == f"{NAME}@{published.branches['main']}"


def test_commands_take_repositories(published: Repository, moving_video: Path, capsys: Any) -> None:
    """--model takes a repository's name, whose model ranks its own classes."""
    assert main(["classify", str(moving_video), "--model", NAME, "--json", "--no-cache"]) == 0
    found = json.loads(capsys.readouterr().out)["videos"][0]["predictions"]
    assert {each["label"] for each in found} == {"archery", "cello"}


def test_towers_of_a_repository_make_a_complete_folder(remote: Hub, tmp_path: Path, monkeypatch: Any) -> None:
    """A model on towers of the hub is saved with all that it needs: the hub and its client's cache may go."""
    torch.manual_seed(0)
    config = {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    save_file(open_clip.CLIP(**config).state_dict(), tmp_path / "towers.safetensors")
    files = {
        "open_clip_config.json": json.dumps({"model_cfg": config, "preprocess_cfg": {}}).encode(),
        "open_clip_model.safetensors": (tmp_path / "towers.safetensors").read_bytes(),
    }
    remote.repositories["org/towers"] = Repository()
    remote.repositories["org/towers"].commit(files)
    made = mote_fast.create_model("hf-hub:org/towers", layers=1, experts=2)
    made.feature_cache = None
    made.save(tmp_path / "mine")
    (tmp_path / "hub_cache").rename(tmp_path / "gone")
    unplug(monkeypatch)
    loaded = mote_fast.load(tmp_path / "mine")
    loaded.feature_cache = None
    assert torch.equal(loaded.class_features(LABELS), made.class_features(LABELS))


def test_tokenizers_come_from_the_repository(
    remote: Hub, tmp_path: Path, monkeypatch: Any, published_words: Path
) -> None:
    """The files of a text tower of transformers are fetched too, and work from the client's cache of links."""
    made = mote_fast.create_model(f"local-dir:{published_words}", layers=1, experts=2)
    made.feature_cache = None
    made.save(tmp_path / "saved")
    remote.repositories["org/words"] = Repository()
    remote.repositories["org/words"].commit(files_of(tmp_path / "saved") | OTHERS)
    published_words.rename(tmp_path / "gone")
    loaded = mote_fast.load("hf-hub:org/words")
    loaded.feature_cache = None
    assert torch.equal(loaded.class_features(LABELS), made.class_features(LABELS))
    folder = hub.fetch_folder("hf-hub:org/words")
    assert {path.name for path in (folder / TEXT_FOLDER).iterdir()} <= set(hub.TOKENIZER_FILES)
    unplug(monkeypatch)
    assert mote_fast.load("hf-hub:org/words").config == made.config


@pytest.fixture
def published_words(tmp_path: Path) -> Path:
    """A folder in open_clip's layout whose text tower and tokenizer are of transformers."""
    pytest.importorskip("transformers", reason="needs mote_fast[text]")
    from tests.model.test_complete_folders import BERT_TOWER, write_published

    return write_published(tmp_path / "published", BERT_TOWER)
