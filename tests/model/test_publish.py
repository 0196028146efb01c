"""Pushing models with the hub's own client to a hub on this machine, and loading them from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

import mote_fast
from mote_fast.cli import main
from mote_fast.errors import CheckpointError, ConfigError
from mote_fast.model.card import CARD_FILE
from mote_fast.model.publish import push_folder
from mote_fast.runtime.json_text import to_json
from mote_fast.runtime.weights import CONFIG_FILE, TEXT_FOLDER, WEIGHTS_FILE
from tests.hub_server import Hub, Repository
from tests.model.test_card import result

# The client's threads, and models of half a second.
pytestmark = pytest.mark.heavy

NAME = "org/model"


@pytest.fixture
def folder(model: Any, tmp_path: Path) -> Path:
    model.save(tmp_path / "mine")
    return tmp_path / "mine"


def files(remote: Hub, branch: str = "main") -> dict[str, bytes]:
    repository = remote.repositories[NAME]
    return repository.commits[repository.branches[branch]]


def test_a_pushed_model_loads(remote: Hub, model: Any) -> None:
    """Every weight, the classes and the card; the weights go as a large file; message and privacy are as asked."""
    address = model.push_to_hub(
        NAME, private=True, token="mine", commit_message="First", license="mit", results=[result()]
    )
    assert set(files(remote)) == {".gitattributes", CONFIG_FILE, WEIGHTS_FILE, CARD_FILE}
    assert remote.messages == ["First"]
    assert remote.repositories[NAME].private
    assert len(remote.objects) == 1 + (len(files(remote)[CONFIG_FILE]) > 1000) + (len(files(remote)[CARD_FILE]) > 1000)
    assert address == f"{remote.url}/{NAME}/commit/{remote.repositories[NAME].branches['main']}"
    remote.repositories[NAME].private = False
    back = mote_fast.load(f"hf-hub:{NAME}")
    assert back.config == model.config
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_branch_and_a_newer_model(remote: Hub, model: Any, folder: Path) -> None:
    """A branch is made; files that the newer model lacks go, and those that are no model's stay."""
    remote.repositories[NAME] = Repository()
    remote.repositories[NAME].commit(
        {f"{TEXT_FOLDER}/vocab.txt": b"a", "LICENSE": b"mine", CARD_FILE: b"written by hand"}
    )
    before = dict(files(remote))
    model.push_to_hub(NAME, revision="v2")
    assert files(remote) == before
    assert set(files(remote, "v2")) == {CONFIG_FILE, WEIGHTS_FILE, "LICENSE", CARD_FILE}
    # The card of the repository stays until there is something to say.
    assert files(remote, "v2")[CARD_FILE] == b"written by hand"
    push_folder(folder, NAME, revision="v2", results=[result()])
    assert b"HMDB-51" in files(remote, "v2")[CARD_FILE]
    model.push_to_hub(NAME, revision="v2", card="mine")
    assert files(remote, "v2")[CARD_FILE] == b"mine"
    assert mote_fast.load(f"hf-hub:{NAME}@v2").config == model.config


def test_the_command_pushes_a_folder(remote: Hub, folder: Path, tmp_path: Path, capsys: Any) -> None:
    """With the folder's own card, then with results of eval; the address is printed."""
    (folder / CARD_FILE).write_text("the folder's own")
    assert main(["push", str(folder), NAME]) == 0
    assert capsys.readouterr().out.startswith(f"{remote.url}/{NAME}/commit/")
    assert files(remote)[CARD_FILE] == b"the folder's own"
    (tmp_path / "result.json").write_text(to_json(result()))
    assert main(["push", str(folder), NAME, "--results", str(tmp_path / "result.json"), "--license", "mit"]) == 0
    assert b"HMDB-51" in files(remote)[CARD_FILE]
    assert b"license: mit" in files(remote)[CARD_FILE]


def test_an_unchanged_model_makes_no_commit(remote: Hub, folder: Path) -> None:
    """Pushed again, only the large file's name is compared."""
    push_folder(folder, NAME)
    objects = dict(remote.objects)
    push_folder(folder, NAME)
    assert remote.objects == objects


def test_privacy_is_never_less_than_asked(remote: Hub, folder: Path) -> None:
    """A model that should be private does not go into a public repository."""
    remote.repositories[NAME] = Repository()
    remote.repositories[NAME].commit({})
    with pytest.raises(ConfigError, match="exists and is public"):
        push_folder(folder, NAME, private=True)
    assert files(remote) == {}


@pytest.mark.parametrize("token", [None, "wrong"])
def test_accounts_that_may_not_write(token: str | None, remote: Hub, folder: Path) -> None:
    """Without a token, or with another's, the error says how to log in; the right one works."""
    remote.token = "right"
    with pytest.raises(CheckpointError, match="log in with `hf auth login`"):
        push_folder(folder, NAME, token=token)
    assert NAME not in remote.repositories
    push_folder(folder, NAME, token="right")
    assert WEIGHTS_FILE in files(remote)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "notes.txt").write_text("private"), "notes.txt.*would be published"),
        (lambda folder: (folder / ".git").symlink_to("/etc"), r"\.git"),
        (lambda folder: (folder / WEIGHTS_FILE).unlink(), "no such file"),
        (lambda folder: (folder / CONFIG_FILE).unlink(), "no config.json"),
        (lambda folder: (folder / CARD_FILE).symlink_to("/etc/passwd"), "leads out"),
    ],
)
def test_only_whole_models_are_pushed(spoil: Any, message: str, remote: Hub, folder: Path) -> None:
    """Nothing else of a folder is published, and nothing is sent before that is known."""
    spoil(folder)
    with pytest.raises(CheckpointError, match=message):
        push_folder(folder, NAME)
    assert remote.requests == []


def test_bad_requests(remote: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Malformed names, no hub: one line, and status 2."""
    for name, message in (("model", "write hf-hub:ORGANIZATION/NAME"), ("org/model@v1", "revision=")):
        with pytest.raises((CheckpointError, ConfigError), match=message):
            push_folder(folder, name)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", str(folder), NAME]) == 2
    error = capsys.readouterr().err
    assert "the hub cannot be reached" in error
    assert error.count("\n") == 1
