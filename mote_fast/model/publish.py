"""Uploading a model folder to the Hugging Face hub, with its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from mote_fast.clip.hub_cache import quiet_log
from mote_fast.clip.text_files import needs_transformers
from mote_fast.errors import CheckpointError, ConfigError, one_line
from mote_fast.model.card import CARD_FILE, model_card
from mote_fast.model.hub import LIMITS, hub_client, hub_errors, hub_name, unreachable
from mote_fast.model.model_config import ModelConfig
from mote_fast.model.model_defaults import HUB_SCHEMA
from mote_fast.runtime.reading import check_inside, check_regular, expanded
from mote_fast.runtime.weights import TEXT_FOLDER, read_model_config, read_model_shapes

MESSAGE = "Model of mote_fast"


def push_folder(
    folder: str | Path,
    repository: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    message: str = MESSAGE,
    license: str | None = None,
    results: Sequence[Mapping[str, Any]] = (),
    card: str | None = None,
    caution: str | None = None,
) -> str:
    """Upload a model folder as one commit; the repository and the branch are made if they do not exist.

    The card is ``card``; else that of the folder, if it has a README.md and there are no results; else that of the
    repository, likewise; else ``model_card`` writes one. Files of an earlier model that this one lacks are removed, and
    other files of the repository stay.

    Args:
        folder: a folder that ``save`` or a training wrote.
        repository: "ORGANIZATION/NAME".
        private: for a new repository, whether it is private (None: as the organization has it). An existing one must be
            as stated.
        token: of an account that may write there; None takes the one that `hf auth login` stored, or HF_TOKEN.
        revision: the branch; None takes the main branch.
        message: of the commit.
        license: see ``model_card``.
        results: see ``model_card``.
        card: the whole text of README.md.
        caution: see ``model_card``.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: the folder is no whole model, or holds something else; or the hub refuses it or cannot be
            reached.
        ConfigError: an argument is malformed, or the repository exists and is not as private as stated.
    """
    folder, name = expanded(folder), f"{HUB_SCHEMA}{repository}"
    if hub_name(name).revision is not None:
        raise ConfigError(f"{repository}: give the branch as revision=, not after '@'")
    config, files = _whole_model(folder)
    if card is None and not results and CARD_FILE in files:
        card = files[CARD_FILE].read_text(encoding="utf-8")
    written = model_card(config, repository, license=license, results=results, caution=caution)
    if (problem := unreachable()) is not None:
        raise CheckpointError(f"{name}: the hub cannot be reached ({problem}); try again")
    with hub_errors(name), quiet_log():
        client = hub_client(token)
        _check_privacy(client, repository, private)
        client.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            client.create_branch(repository, branch=revision, exist_ok=True)
        there = client.list_repo_files(repository, revision=revision)
        added = {path: str(place) for path, place in files.items() if path != CARD_FILE}
        operations: list[Any] = [CommitOperationAdd(path, place) for path, place in added.items()]
        if card is not None or results or CARD_FILE not in there:
            operations.append(CommitOperationAdd(CARD_FILE, (card or written).encode()))
        operations += [CommitOperationDelete(path) for path in there if path in LIMITS and path not in added]
        commit = client.create_commit(repository, operations, commit_message=message, revision=revision)
        return str(commit.commit_url)


def _whole_model(folder: Path) -> tuple[ModelConfig, dict[str, Path]]:
    """Return the configuration of a folder and its files, by their paths in a repository.

    Raises:
        CheckpointError: a file is missing, too large, or none of a model's.
    """
    config = ModelConfig.from_json(read_model_config(folder), str(folder))
    read_model_shapes(folder)
    if needs_transformers(config.clip) and not (folder / TEXT_FOLDER).is_dir():
        raise CheckpointError(f"{folder}: has no folder {TEXT_FOLDER!r} with its tokenizer; save the model again")
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    }
    other = [path for path in files if path not in LIMITS and path != CARD_FILE]
    if other:
        raise CheckpointError(
            f"{folder}: holds {', '.join(other[:4])}, which is no part of a model and would be published; move it away"
        )
    for path in files.values():
        try:
            check_inside(path, folder)
            check_regular(path)
        except OSError as error:
            raise CheckpointError(f"{path}: unreadable ({one_line(error)})") from error
    return config, files


def _check_privacy(client: HfApi, repository: str, private: bool | None) -> None:
    if private is None:
        return
    try:
        found = client.model_info(repository).private
    except RepositoryNotFoundError:
        return
    if found != private:
        kind = "private" if found else "public"
        raise ConfigError(f"{repository} exists and is {kind}; change that on the hub, or leave out private")
