"""The workers of a cluster: a process for each GPU, or for each node that has none."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from medjax.lab.sweeps.cluster.node import Description, Node
from medjax.lab.sweeps.cluster.parcel import Conditions
from medjax.lab.sweeps.cluster.places import Place, places

_SECONDS_BETWEEN_LOOKS = 5.0  # for nodes that are new, or free again
_SECONDS_TO_GATHER = 30.0  # after which the first workers don't wait for the others
_SECONDS_TO_TELL = 15.0
_MOST_LOSSES = 3  # of a node's workers before they have begun


class Lost(OSError):
    """The error of work whose processes die each time, in one line."""


@dataclass(eq=False)
class Worker:
    """A process on a node.

    Attributes:
        node: the node's identity at Ray.
        host: its address.
        gpu: whether it has been given a GPU.
        actor: Ray's handle of the `Node` there.
        joining: its description to come; None once it has come.
        stream: the news of the chunk that it is running; None if it is idle.
        program: the program that it has compiled last.
    """

    node: str
    host: str
    gpu: bool
    actor: Any
    joining: Any
    stream: Any = None
    program: int | None = None

    @property
    def idle(self) -> bool:
        """Tell if it could take a chunk."""
        return self.joining is None and self.stream is None


class Cluster:
    """A cluster that this process is connected to.

    Args:
        ray: the package, initialised.
        conditions: what its nodes are to compute with.
    """

    def __init__(self, ray: Any, conditions: Conditions) -> None:
        self.ray = ray
        self.workers: list[Worker] = []
        self._conditions = conditions
        self._losses: Counter[str] = Counter()
        self._looked = -_SECONDS_BETWEEN_LOOKS
        self._descriptions: list[tuple[str, Description]] = []

    @property
    def platform(self) -> str:
        """The platform of the nodes' devices, those of the first."""
        return self._first.device["platform"]

    @property
    def free_bytes(self) -> int:
        """The memory that a program may take on every node."""
        return min(found.free_bytes for _, found in self._descriptions)

    @property
    def _first(self) -> Description:
        return self._descriptions[0][1]

    def described(self) -> dict[str, Any]:
        """Describe the workers for the record of a session."""
        each = [{"host": host} | found.device for host, found in self._descriptions]
        return {"device": self._first.device, "cluster": each}

    def gather(self, tell: Callable[[str], None]) -> None:
        """Take all nodes that are free as workers, and wait for the first.

        Args:
            tell: takes a line for the user.

        Raises:
            ValueError: if a node can't compute as this process does.
        """
        begun, told = time.monotonic(), False
        while True:
            self.look()
            waiting = [worker.joining for worker in self.workers if worker.joining is not None]
            if waiting:
                self.ray.wait(waiting, timeout=0.2)
                self.welcome()
            elif not self.workers:
                time.sleep(0.2)
            seconds = time.monotonic() - begun
            ready = sum(worker.idle for worker in self.workers)
            if ready and (ready == len(self.workers) or seconds > _SECONDS_TO_GATHER):
                break
            if seconds > _SECONDS_TO_TELL and not ready and not told:
                told = True
                tell("waiting for a node of the cluster that is free")
        tell(self._line())

    def _line(self) -> str:
        kinds = Counter(
            found.device["processor"] + f", {found.device['cores']} cores"
            if found.device["platform"] == "cpu"
            else found.device["kind"]
            for _, found in self._descriptions
        )
        line = "cluster    " + "; ".join(f"{count} × {kind}" for kind, count in kinds.items())
        return line + "; which are different: the same figures to rounding" * (len(kinds) > 1)

    def look(self) -> None:
        """Ask for a worker wherever one is missing, now and then."""
        if time.monotonic() - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = time.monotonic()
        there = Counter(worker.node for worker in self.workers)
        on_cpus = (self._conditions.flags["jax_platforms"] or "").partition(",")[0] == "cpu"
        for place in places(self.ray.nodes(), on_cpus=on_cpus):
            for _ in range(place.number - there[place.node]):
                self._ask(place)

    def _ask(self, place: Place) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(place.node, soft=False)
        options = {"scheduling_strategy": there, "num_gpus": place.gpus, "num_cpus": place.cpus}
        actor = self.ray.remote(Node).options(**options).remote()
        joining = actor.join.remote(self._conditions)
        self.workers.append(Worker(place.node, place.host, place.gpus > 0, actor, joining))

    def welcome(self) -> None:
        """Take in the workers that have joined.

        Raises:
            ValueError: if one can't compute as this process does.
        """
        errors = self.ray.exceptions
        for worker in [x for x in self.workers if x.joining is not None]:
            if not self.ray.wait([worker.joining], timeout=0)[0]:
                continue
            try:
                found = self.ray.get(worker.joining)
            except errors.RayTaskError as error:
                raise ValueError(f"node {worker.host}: {reason(error)}") from None
            except errors.RayError as error:
                self.lose(worker)
                self._losses[worker.node] += 1
                if self._losses[worker.node] == _MOST_LOSSES:
                    raise ValueError(f"node {worker.host}: {reason(error)}") from None
                continue
            self._check(worker, found)
            worker.joining = None
            self._descriptions.append((worker.host, found))

    def _check(self, worker: Worker, found: Description) -> None:
        if found.other:
            raise ValueError(f"node {worker.host} has {found.other}: install the same on both")
        if worker.gpu and found.device["platform"] == "cpu":
            raise ValueError(
                f"node {worker.host} has GPUs that JAX doesn't find there; JAX_PLATFORMS=cpu, set "
                "for this command, does without them"
            )

    def lose(self, worker: Worker) -> None:
        """Part with a worker that is lost; its node gets another one if it is still there."""
        self.workers.remove(worker)
        self.ray.kill(worker.actor)

    def release(self) -> None:
        """Part with the workers that have nothing to do, for others to take their nodes."""
        for worker in [x for x in self.workers if x.stream is None]:
            self.lose(worker)

    def dismiss(self) -> None:
        """End all workers, whatever they do."""
        for worker in list(self.workers):
            self.lose(worker)


def reason(error: Exception) -> str:
    """Return the last line of what Ray says, which is what has happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
