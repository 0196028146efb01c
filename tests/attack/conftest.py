"""The fixture that every attack counts its attempts with."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import pytest


class Attack:
    """Attempts of one attack, and those that succeeded against the library."""

    def __init__(self, full: bool) -> None:
        self.full = full
        self.attempts = 0
        self.failures: list[str] = []

    def size(self, quick: int, full: int) -> int:
        """Return the number of attempts of this run: `quick` in `make test`, `full` in `make attack`."""
        return full if self.full else quick

    @contextmanager
    def attempt(self, name: object) -> Generator[None]:
        """Count one attempt; what its block raises is a failure, and the attack goes on with the next attempt."""
        self.attempts += 1
        try:
            yield
        # An attack must report how many of its attempts failed, so one failure does not end it.
        except Exception as error:
            self.failures.append(f"{name}: {type(error).__name__}: {error}")


@pytest.fixture
def attack(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Iterator[Attack]:
    """Count the attempts of a test, and fail it at the end if one of them failed."""
    attack = Attack(request.config.getoption("--attack"))
    yield attack
    record_property("attack", [attack.attempts, len(attack.failures)])
    assert attack.attempts, "an attack without attempts proves nothing"
    assert not attack.failures, f"{len(attack.failures)} of {attack.attempts} attempts failed:\n" + "\n".join(
        attack.failures[:20]
    )
