"""Model folders on the Hugging Face hub: which of a repository's files are fetched, and what its errors mean."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm import tqdm

from mote_fast.clip.hub_cache import PATIENCE, check_reachable, quiet_log
from mote_fast.clip.text_files import MAX_FILE, TOKENIZER_FILES
from mote_fast.errors import CheckpointError, MoteError, one_line, quoted
from mote_fast.model.model_defaults import HUB_SCHEMA
from mote_fast.runtime.transfer import MAX_FILE_BYTES
from mote_fast.runtime.weights import CONFIG_FILE, MAX_CONFIG, OPEN_CLIP_CONFIG, TEXT_FOLDER, WEIGHTS_FILE
from mote_fast.version import __version__

log = logging.getLogger(__name__)

# All that is fetched, and the bytes that it may have. No code and no pickle is among it.
LIMITS = {
    CONFIG_FILE: MAX_CONFIG,
    WEIGHTS_FILE: MAX_FILE_BYTES,
    **{f"{TEXT_FOLDER}/{name}": MAX_FILE for name in TOKENIZER_FILES},
}

# A revision is a part of paths in the client's cache: like git's, it has no ".." and begins with no "/".
_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>(?!.*\.\.)\w[\w./-]*))?")
_SERVER_ERROR = 500
_REFUSED = (401, 403)
_LOG_IN = "log in with `hf auth login` as one that may, or pass its token"


class _Bar(tqdm):
    """Progress on a terminal, and nothing elsewhere."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "disable": None})


class HubName(NamedTuple):
    """A repository, and the branch, tag or commit of it; None for its main branch."""

    repository: str
    revision: str | None


def hub_name(name: str) -> HubName:
    """Read "hf-hub:ORGANIZATION/NAME" with or without "@REVISION".

    Raises:
        CheckpointError: it is something else.
    """
    match = _NAME.fullmatch(name.removeprefix(HUB_SCHEMA))
    if match is None:
        wanted = f"{HUB_SCHEMA}ORGANIZATION/NAME or {HUB_SCHEMA}ORGANIZATION/NAME@REVISION"
        raise CheckpointError(f"{quoted(name)} is no name of a repository; write {wanted}")
    return HubName(**match.groupdict())


def fetch_folder(name: str) -> Path:
    """Return the folder of a model of the hub, whose files are fetched the first time.

    The hub is asked for the newest commit of the revision. Without a way to the hub, the copy of an earlier fetch is
    taken, with a warning. Only the files of ``LIMITS`` are fetched.

    Args:
        name: "hf-hub:ORGANIZATION/NAME" or "hf-hub:ORGANIZATION/NAME@REVISION"; a commit stays the same for ever.

    Raises:
        CheckpointError: the repository is missing, closed to this user, cannot be reached, or holds no model of this
            library, or one with a file over its limit; the message says what to do.
    """
    repository, revision = hub_name(name)
    problem = unreachable()
    if problem is None:
        with hub_errors(name), quiet_log():
            try:
                return _fetch(name, repository, revision)
            except HfHubHTTPError as error:
                if error.response.status_code < _SERVER_ERROR:
                    raise
                problem = one_line(error)
    return _cached(name, repository, revision, problem)


def pinned_name(name: str) -> str:
    """Return the name of a fetched model with its commit in place of its branch; the hub is not asked.

    Raises:
        CheckpointError: it was not fetched.
    """
    repository, revision = hub_name(name)
    with hub_errors(name):
        folder = hub_client().snapshot_download(
            repository, revision=revision, allow_patterns=list(LIMITS), local_files_only=True
        )
    return f"{HUB_SCHEMA}{repository}@{Path(folder).name}"


def hub_client(token: str | bool | None = None) -> HfApi:
    """Return a client of the hub; with the user's own token, if none is given."""
    return HfApi(constants.ENDPOINT, token, library_name="mote_fast", library_version=__version__)


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turn the errors of the hub's client into ours, each on one line with what to do."""
    repository = name.removeprefix(HUB_SCHEMA).partition("@")[0]
    try:
        yield
    except MoteError:
        raise
    except GatedRepoError as error:
        raise CheckpointError(
            f"{name}: its owner asks for conditions to be accepted first; do so at {constants.ENDPOINT}/{repository}, "
            "log in with `hf auth login`, and try again"
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{name}: the hub has no such repository, or it is closed to you; check the name, or log in with "
            "`hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(
            f"{name}: the repository has no such branch, tag or commit; {constants.ENDPOINT}/{repository}/commits/main "
            "lists its commits"
        ) from error
    except LocalTokenNotFoundError as error:
        raise CheckpointError(f"{name}: {_LOG_IN}") from error
    except HfHubHTTPError as error:
        if error.response.status_code in _REFUSED:
            raise CheckpointError(f"{name}: the hub does not let this account do that; {_LOG_IN}") from error
        raise CheckpointError(f"{name}: the hub did not serve it ({one_line(error)}); try again") from error
    except HFValidationError as error:
        raise CheckpointError(f"{name}: not the name of a repository ({one_line(error)})") from error
    # The client's network library differs between its releases, and so do its errors.
    except Exception as error:
        raise CheckpointError(f"{name}: the hub did not serve it ({one_line(error)}); try again") from error


def unreachable() -> str | None:
    """Why the hub cannot be asked; None if it answers."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        check_reachable(constants.ENDPOINT)
    except OSError as error:
        return one_line(error)
    return None


def _fetch(name: str, repository: str, revision: str | None) -> Path:
    found = hub_client().model_info(repository, revision=revision, timeout=PATIENCE, files_metadata=True)
    sizes = {each.rfilename: each.size for each in found.siblings or ()}
    wanted = {path: sizes[path] for path in LIMITS if path in sizes}
    if not {CONFIG_FILE, WEIGHTS_FILE} <= wanted.keys():
        other = ""
        if OPEN_CLIP_CONFIG in sizes:
            other = f"; it holds CLIP towers for create_model({HUB_SCHEMA + repository!r}, header='mean')"
        raise CheckpointError(f"{name}: has no {CONFIG_FILE} and {WEIGHTS_FILE}, so it is no model of mote_fast{other}")
    for path, size in wanted.items():
        if size is None or size > LIMITS[path]:
            raise CheckpointError(f"{name}: its {path} has {size} bytes, over the limit of {LIMITS[path]}; not fetched")
    # The small one first: a repository may show its files and yet keep them. The client's cache learns from it what
    # commit the branch leads to; the others are those of the commit that was looked at.
    hub_client().hf_hub_download(repository, CONFIG_FILE, revision=revision, tqdm_class=_Bar)
    if not isinstance(try_to_load_from_cache(repository, WEIGHTS_FILE, revision=found.sha), str):
        total = sum(size for size in wanted.values() if size is not None)
        log.warning("%s: fetching %.1f MB of commit %s, once", name, total / 1e6, found.sha)
    return Path(
        hub_client().snapshot_download(repository, revision=found.sha, allow_patterns=list(wanted), tqdm_class=_Bar)
    )


def _cached(name: str, repository: str, revision: str | None, problem: str) -> Path:
    try:
        folder = Path(
            hub_client().snapshot_download(
                repository, revision=revision, allow_patterns=list(LIMITS), local_files_only=True
            )
        )
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{name}: is not on this machine, and the hub cannot be reached ({problem}); try again, or fetch the "
            "repository on another machine and load its folder"
        ) from error
    if not all((folder / member).is_file() for member in (CONFIG_FILE, WEIGHTS_FILE)):
        raise CheckpointError(f"{name}: the copy in {folder} is incomplete, and the hub cannot be reached ({problem})")
    log.warning("%s: the hub cannot be asked (%s); taking the copy of commit %s", name, problem, folder.name)
    return folder
