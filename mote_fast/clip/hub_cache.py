"""Published weights by way of the hub client: its cache first, and one error instead of a minute of retries."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from huggingface_hub import constants, try_to_load_from_cache
from open_clip.constants import HF_WEIGHTS_NAME
from open_clip.pretrained import _get_safe_alternatives

# Seconds in which the hub must answer at all.
PATIENCE = 10.0


def cached_weights(values: Mapping[str, Any]) -> str | None:
    """Return the file of a tag of open_clip that an earlier fetch left in the hub client's cache; the hub is not asked.

    Args:
        values: what open_clip records of the tag.
    """
    repository, file = os.path.split(values.get("hf_hub") or "")
    if not repository:
        return None
    name = file or HF_WEIGHTS_NAME
    for each in (*_get_safe_alternatives(name), name):
        found = try_to_load_from_cache(repository, each)
        if isinstance(found, str):
            return found
    return None


@contextmanager
def quiet_hub(values: Mapping[str, Any]) -> Iterator[None]:
    """Let the hub client fetch the file of a tag without its log of retries.

    Raises:
        OSError: there is no way to the hub; the client would find that out in most of a minute.
    """
    with quiet_log():
        if values.get("hf_hub"):
            check_reachable(constants.ENDPOINT)
        yield


@contextmanager
def quiet_log() -> Iterator[None]:
    """Keep the hub client's log of retries to itself; what fails in the end raises."""
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def check_reachable(url: str) -> None:
    """Ask a server for anything at all.

    Raises:
        OSError: it does not answer.
    """
    try:
        urlopen(Request(url, method="HEAD"), timeout=PATIENCE).close()
    except HTTPError as error:
        # It answers.
        error.close()
    except URLError as error:
        # The client has certificates of its own.
        if not isinstance(error.reason, ssl.SSLError):
            raise OSError(f"{url} cannot be reached: {error.reason}") from error
