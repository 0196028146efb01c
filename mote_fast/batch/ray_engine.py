"""The engine of a cluster: actors of Ray, each with a model and processes that decode; this process writes.

Blocks go to actors one at a time, and the next one goes when the rows of the last are on disk: so a kill costs at most
one block for each actor. The actors are Ray's plain ones. Its data sets would hold rows back until their end, need free
processors beside the actors, and repeat a video that kills an actor for ever.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from mote_fast.batch.block_classifier import Classifier
from mote_fast.batch.local_engine import Done, Judged
from mote_fast.batch.run_plan import Block
from mote_fast.batch.video_sources import Item
from mote_fast.errors import BackendError, MoteError, one_line
from mote_fast.runtime.extras import required

log = logging.getLogger(__name__)

# Starts a cluster of this machine alone, which ends with the run.
LOCAL = "local"

# Bytes of the memory that processes of such a cluster share: ids and rows go through it, and no frames.
SHARED_MEMORY = 200 << 20

# Seconds after which actors that do not start are given up.
START_LIMIT = 300.0

# Times that one block may lose its actor: by then it is the block, or the machine has too little memory.
MAX_DEATHS = 5

# Ray tells its makers about every cluster otherwise.
_STATISTICS = "RAY_USAGE_STATS_ENABLED"


class Cluster(NamedTuple):
    """What a run asks of Ray.

    Attributes:
        address: "local", or that of a cluster, such as "auto" on one of its machines.
        actors: models at work; None takes one for each GPU, or one.
        workers: processes that decode for each actor; None divides the processors among the actors.
        gpus: of each actor; None takes one where the cluster has any.
    """

    address: str = LOCAL
    actors: int | None = None
    workers: int | None = None
    gpus: float | None = None


class Judge:
    """What an actor is: a classifier, or why there is none."""

    def __init__(self, make: Callable[[int], Classifier], workers: int) -> None:
        self._made: Classifier | MoteError
        try:
            self._made = make(workers)
        except MoteError as error:
            # An error in here would reach the driver as the death of the actor.
            self._made = error

    def fingerprint(self) -> str:
        """Return that of the rows."""
        return self._classifier.fingerprint

    def judge(self, items: Sequence[Item]) -> Any:
        """Return the rows of a block as a table."""
        return self._classifier.table(list(self._classifier.rows(items)))

    @property
    def _classifier(self) -> Classifier:
        if isinstance(self._made, MoteError):
            raise self._made
        return self._made


def run_ray(
    make: Callable[[int], Classifier], fingerprint: str, cluster: Cluster, blocks: Iterable[Block], judged: Judged
) -> Generator[Done]:
    """Yield the rows of each block, in the order in which they are done.

    Args:
        make: makes a classifier with a number of workers, in an actor.
        fingerprint: that all of them must have.
        cluster: where.
        blocks: taken as actors become free.
        judged: see ``Judged``.

    Raises:
        BackendError: Ray is missing, or the cluster has too few processors or GPUs, does not start the actors, loses
            them, or has other weights or versions than this process.
        MoteError: what is not about one video.
    """
    ray = required("ray", "the engine 'ray'", "ray")
    with _connected(ray, cluster.address):
        actors, workers, gpus = plan_actors(ray.nodes(), cluster)
        remote = ray.remote(num_cpus=workers, num_gpus=gpus, max_restarts=0, max_task_retries=0)(Judge)
        run = _Run(ray, lambda: remote.remote(make, workers), fingerprint)
        try:
            yield from run.results(iter(blocks), actors, judged)
        finally:
            run.close()


def plan_actors(nodes: Iterable[dict[str, Any]], cluster: Cluster) -> tuple[int, int, float]:
    """Return the number of actors, and the processes and GPUs of each.

    Args:
        nodes: as ``ray.nodes()`` tells them.
        cluster: what is asked for.

    Raises:
        BackendError: the cluster cannot hold them; Ray itself would wait without a word.
    """
    held = [node.get("Resources", {}) for node in nodes if node.get("Alive")]
    processors = [int(each.get("CPU", 0)) for each in held]
    graphics = [each.get("GPU", 0.0) for each in held]
    gpus = cluster.gpus if cluster.gpus is not None else 1.0 if any(graphics) else 0.0
    actors = cluster.actors or max(1, int(sum(graphics) // gpus if gpus else 1))
    workers = cluster.workers or max(1, max(processors, default=0) * len(held) // max(actors, len(held)))
    places = [
        min(cpu // workers, int(gpu // gpus)) if gpus else cpu // workers
        for cpu, gpu in zip(processors, graphics, strict=True)
    ]
    if sum(places) < actors:
        needed = f"{actors} actors with {workers} processors" + (f" and {gpus:g} GPUs" if gpus else "") + " each"
        there = ", ".join(f"{cpu} and {gpu:g}" for cpu, gpu in zip(processors, graphics, strict=True))
        raise BackendError(
            f"{needed} do not fit into the cluster (processors and GPUs of its machines: {there or 'none'}); give "
            "fewer actors or fewer workers"
        )
    return actors, workers, gpus


class _Run:
    """Actors, and the block that each has."""

    def __init__(self, ray: Any, start: Callable[[], Any], fingerprint: str) -> None:
        self._ray, self._start, self._fingerprint = ray, start, fingerprint
        # By the answer that is waited for: the actor, and its block; None while it starts.
        self._waiting: dict[Any, tuple[Any, Block | None]] = {}
        self._again: list[Block] = []
        self._deaths = Counter[str]()

    def results(self, blocks: Iterator[Block], actors: int, judged: Judged) -> Generator[Done]:
        for _ in range(actors):
            self._begin()
        while self._waiting:
            answer = self._next()
            actor, block = self._waiting.pop(answer)
            try:
                found = self._ray.get(answer)
            except self._ray.exceptions.RayTaskError as error:
                raise _cause(error) from error
            except self._ray.exceptions.RayError as error:
                self._lose(block, error)
                continue
            if block is None:
                self._check(found)
            else:
                for kind in found.column("error_kind").to_pylist():
                    judged(kind)
                yield Done(block, found)
            following = self._again.pop() if self._again else next(blocks, None)
            if following is not None:
                self._waiting[actor.judge.remote(following.items)] = (actor, following)
            else:
                self._ray.kill(actor)

    def close(self) -> None:
        for actor, _ in self._waiting.values():
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)

    def _begin(self) -> None:
        actor = self._start()
        self._waiting[actor.fingerprint.remote()] = (actor, None)

    def _next(self) -> Any:
        while True:
            done, _ = self._ray.wait(list(self._waiting), timeout=START_LIMIT)
            if done:
                return done[0]
            if all(block is None for _, block in self._waiting.values()):
                raise BackendError(
                    f"no actor of Ray has started for {START_LIMIT:g} s: others use the cluster's processors or GPUs; "
                    "wait for them, or give fewer actors or workers"
                )

    def _lose(self, block: Block | None, error: Exception) -> None:
        """Start another actor in place of one that died, and let it do its block."""
        name = "the start" if block is None else block.name
        if "creation task" in str(error):
            # It would die of it again; Ray tells the cause in its last line.
            raise BackendError(
                f"an actor of Ray cannot be made ({one_line(error, 80)}: {str(error).strip().splitlines()[-1]}); "
                "its machine needs the same packages as this one, and what makes the model"
            ) from error
        self._deaths[name] += 1
        if self._deaths[name] > MAX_DEATHS:
            raise BackendError(f"{name}: {MAX_DEATHS + 1} actors of Ray died of it ({one_line(error)})") from error
        log.warning("an actor of Ray died, and another takes its place (%s)", one_line(error))
        if block is not None:
            self._again.append(block)
        self._begin()

    def _check(self, fingerprint: str) -> None:
        if fingerprint != self._fingerprint:
            raise BackendError(
                "a machine of the cluster has other weights, labels or versions than this one; install the same "
                "version on all, and give them the same files"
            )


def _cause(error: Any) -> MoteError:
    """What an actor raised, as this library's error."""
    cause = error.cause
    return cause if isinstance(cause, MoteError) else BackendError(f"an actor of Ray failed ({one_line(cause)})")


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Use the cluster of this process if it has one; otherwise connect, or start one, and leave it in the end."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.WARNING}
    if address == LOCAL:
        options |= {"include_dashboard": False, "object_store_memory": SHARED_MEMORY}
    before = os.environ.get(_STATISTICS)
    os.environ[_STATISTICS] = "0"
    try:
        ray.init(**options)
    except (OSError, RuntimeError, ValueError, ConnectionError) as error:
        raise BackendError(f"Ray does not connect to {address!r} ({one_line(error)})") from error
    finally:
        if before is None:
            del os.environ[_STATISTICS]
        else:
            os.environ[_STATISTICS] = before
    try:
        yield
    finally:
        ray.shutdown()
