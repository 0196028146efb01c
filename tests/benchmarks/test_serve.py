"""The benchmark of the server runs, and its arms agree."""

from __future__ import annotations

import pytest
import serve

pytest.importorskip("fastapi")


@pytest.mark.slow
def test_a_round() -> None:
    """Servers of the command line, two requests each; every arm has its figures, and the bound is above them."""
    table = serve.measure("tiny", requests=2, clients=2, rounds=1)
    bound = table.pop("bound")["requests_per_second"]
    assert len(table) >= 3
    assert all(0 < row["requests_per_second"] < 2 * bound for row in table.values())
