"""The engine of a cluster gives what the local one gives; what cannot be served is refused and not waited for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

import mote_fast
from mote_fast import VideoClassifier, batch
from mote_fast.batch.ray_engine import Cluster, plan_actors
from mote_fast.errors import BackendError, ConfigError


def node(cpus: float, gpus: float = 0.0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus, **({"GPU": gpus} if gpus else {})}}


@pytest.mark.parametrize(
    ("nodes", "asked", "planned"),
    [
        ([node(2)], {}, (1, 2, 0)),
        ([node(1)], {}, (1, 1, 0)),
        ([node(2)], {"actors": 2}, (2, 1, 0)),
        ([node(16, 2)], {}, (2, 8, 1)),
        ([node(8, 1), node(8, 1), node(4, 1, alive=False)], {}, (2, 8, 1)),
        ([node(8, 1)], {"gpus": 0.0, "actors": 3}, (3, 2, 0)),
        ([node(8, 1)], {"gpus": 0.5, "workers": 4}, (2, 4, 0.5)),
    ],
)
def test_actors_are_divided(
    nodes: list[dict[str, Any]], asked: dict[str, Any], planned: tuple[int, int, float]
) -> None:
    """A model for each GPU, and the processors among the models."""
    assert plan_actors(nodes, Cluster(**asked)) == planned


@pytest.mark.parametrize(
    ("nodes", "asked"),
    [
        ([], {}),
        ([node(2)], {"actors": 3}),
        ([node(2)], {"workers": 3}),
        ([node(4), node(4)], {"actors": 2, "workers": 6}),
        ([node(8, 1)], {"actors": 2}),
        ([node(8)], {"gpus": 1.0}),
    ],
)
def test_what_does_not_fit_is_refused(nodes: list[dict[str, Any]], asked: dict[str, Any]) -> None:
    """Ray would wait for ever."""
    with pytest.raises(BackendError, match="give fewer actors or fewer workers"):
        plan_actors(nodes, Cluster(**asked))


def test_what_the_engine_needs_is_named(
    tiny: VideoClassifier, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra, before a model is made; a model of this process is none of an actor; options of the other engine."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendError, match=r"mote_fast\[ray\]"):
        batch.embed(collection, tmp_path / "out", model="none", engine="ray")
    monkeypatch.setitem(sys.modules, "ray", os)
    with pytest.raises(ConfigError, match="makes the model in its actors"):
        batch.embed(collection, tmp_path / "out", model=tiny, engine="ray")
    for options in ({"actors": 2}, {"address": "auto"}):
        with pytest.raises(ConfigError, match="of the engine 'ray'"):
            batch.embed(collection, tmp_path / "out", model=tiny, **options)
    assert not list((tmp_path / "out").iterdir())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two processors, which the runs of this file share."""
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=100 << 20)
    yield ray
    ray.shutdown()


LABELS = ["archery", "juggling balls", "playing the cello"]


def make_model() -> VideoClassifier:
    torch.manual_seed(0)
    return mote_fast.create_model("ViT-test")


def make_another(driver: int) -> VideoClassifier:
    """Make the model, and another one in other processes than one."""
    model = make_model()
    if os.getpid() != driver:
        model.clip.model.logit_scale.data.add_(0.5)
    return model


@pytest.mark.slow
def test_a_cluster_gives_the_same_rows(cluster: Any, collection: Path, tmp_path: Path) -> None:
    """Faults included, with two processors; one engine goes on with the output of the other."""
    given: dict[str, Any] = {"model": make_model, "labels": LABELS, "durable_every": 3}
    expected = batch.classify(collection, tmp_path / "local", **given)
    assert batch.classify(collection, tmp_path / "ray", **given, engine="ray") == expected
    local, ray = (pq.read_table(tmp_path / name).sort_by("id") for name in ("local", "ray"))
    assert local.equals(ray)
    (tmp_path / "local" / "part-0000-00000001.parquet").unlink()
    assert batch.classify(collection, tmp_path / "local", **given, engine="ray") == expected
    assert pq.read_table(tmp_path / "local").sort_by("id").equals(ray)
    (collection / "damaged.mp4").unlink()
    found = batch.retry(tmp_path / "ray", model=make_model, engine="ray", only=["undecodable"])
    assert found.failed == {"missing": 2, "undecodable": 1}
    with pytest.raises(BackendError, match="do not fit into the cluster"):
        batch.classify(collection, tmp_path / "other", **given, engine="ray", actors=3)
    other = {**given, "model": partial(make_another, os.getpid())}
    with pytest.raises(BackendError, match="other weights"):
        batch.classify(collection, tmp_path / "other", **other, engine="ray")
    assert batch.classify(collection, tmp_path / "other", **given).done == 7


def make_nothing(driver: int) -> VideoClassifier:
    """Fail in every process but one, as where a package is missing."""
    if os.getpid() != driver:
        raise ModuleNotFoundError("No module named 'theirs'")
    return make_model()


@pytest.mark.slow
def test_an_actor_that_cannot_be_made_ends_the_run(cluster: Any, collection: Path, tmp_path: Path) -> None:
    """It would fail again on every try."""
    with pytest.raises(BackendError, match=r"cannot be made .*No module named 'theirs'"):
        batch.embed(collection, tmp_path / "out", model=partial(make_nothing, os.getpid()), engine="ray")


@pytest.mark.slow
def test_classifiers_serve_data_sets(cluster: Any, collection: Path) -> None:
    """The form of other pipelines: map_batches with a pool of actors."""
    data = pytest.importorskip("ray.data")
    paths = [str(path) for path in sorted(collection.iterdir())]
    arguments = {"model": make_model, "labels": LABELS, "workers": 1}
    found = data.from_items([{"path": path} for path in paths]).map_batches(
        batch.Classifier, fn_constructor_kwargs=arguments, batch_size=4, compute=data.ActorPoolStrategy(size=1)
    )
    rows = {row["path"]: row for row in found.take_all()}
    assert sorted(rows) == paths
    assert [rows[path]["error_kind"] for path in paths].count(None) == 5
