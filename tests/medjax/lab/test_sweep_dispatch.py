"""Chunks given to workers that are played here: lost ones, and programs that don't fit."""

from types import SimpleNamespace

import numpy as np
import pytest

from medjax.lab.data import load
from medjax.lab.machine.memory import TooLarge
from medjax.lab.storage import results
from medjax.lab.sweeps import execute as execution
from medjax.lab.sweeps import grid, store
from medjax.lab.sweeps.cluster import parcel
from medjax.lab.sweeps.cluster.dispatch import execute
from medjax.lab.sweeps.cluster.node import Fitted, Node, Order
from medjax.lab.sweeps.cluster.places import places
from medjax.lab.sweeps.cluster.workers import Cluster, Lost, Worker
from medjax.lab.sweeps.execute import Cost, unfinished
from medjax.lab.sweeps.plan import make_chunks, make_groups
from medjax.lab.task.training import Stop

DATASETS = {("digits", None): load("digits")}


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        super().__init__(f"a trace\n{cause}")
        self.cause = cause


class Ray:
    """The part of Ray that is needed: everything is there at once."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def put(self, value):
        return value

    def get(self, value):
        if isinstance(value, Exception):
            raise value
        return value

    def wait(self, streams, timeout):
        return streams, []

    def nodes(self):
        return []

    def kill(self, actor):
        pass


class Actor:
    """A worker that plays what a function of the order says."""

    def __init__(self, play):
        self.run = self
        self._play = play
        self.orders = []

    def options(self, num_returns):
        return self

    def remote(self, order, problem, dataset):
        self.orders.append(order)
        return iter([*self._play(order)])


@pytest.fixture(scope="module")
def group():
    axes = {"dataset": ["digits"], "model": ["logistic"], "rule": ["mean"], "seed": [0, 1]}
    axes |= {"lr": [0.1, 0.2], "steps": [4], "eval_every": [4]}
    (group,) = make_groups(grid.expand(axes), DATASETS)
    return group


def measured(group, order):
    """The rows of a chunk whose training loss is the run's step size, and its accuracy the seed."""
    chunk = make_chunks(group, order.runs_side_by_side)[order.chunk]
    lr = np.array([[group.settings[h].lr for h in chunk.settings] for _ in chunk.seeds])
    seed = np.array([[group.seeds[s] for _ in chunk.settings] for s in chunk.seeds])
    return {"step": np.array([0, 4]), "lr": np.stack([lr] * 2), "seed": np.stack([seed] * 2)}


def fitted(number):
    return Fitted(Cost(1.0, 1000), number)


def run(folder, group, most, *plays, stop=None):
    """Run a sweep with workers that play; return its news, and what each was asked for."""
    cluster = Cluster(Ray(), None)
    actors = [Actor(play) for play in plays]
    cluster.workers = [Worker("", "10.0.0.1", False, actor, None) for actor in actors]
    cluster._looked = float("inf")
    news = execute(cluster, folder, unfinished(folder, [group], [most]), DATASETS, stop or Stop())
    return news, [actor.orders for actor in actors], cluster


def one_by_one(group):
    """Make a worker that fits one run and then does a chunk after the other."""

    def play(order):
        yield from [] if order.begun else [fitted(1)]
        yield 4
        yield measured(group, order)

    return play


def table(folder, group):
    read = [results.read_table(path).to_pydict() for path in store.parts(folder)]
    rows = [row for part in read for row in zip(part["run"], part["lr"], part["seed"], strict=True)]
    places = {
        int(group.runs[s, h]): (group.settings[h].lr, group.seeds[s])
        for s in range(2)
        for h in range(2)
    }
    assert sorted(rows) == sorted((run, *places[run]) for run in places for _ in range(2))


def test_every_chunk_is_run_once_and_written(tmp_path, group):
    news, orders, cluster = run(tmp_path, group, 1, *[one_by_one(group)] * 2)
    news = list(news)
    assert sorted(order.chunk for each in orders for order in each) == [0, 1, 2, 3]
    assert sum(each.run_steps for each in news) == 4 * 4
    assert sum(each.finished for each in news) == 4
    assert cluster.workers == []
    table(tmp_path, group)


def test_the_others_wait_for_the_first_and_take_as_many_as_fit(tmp_path, group):
    def play(order):
        if not order.begun:
            yield fitted(2)
            yield RayError("lost when nobody waits for it")
            return
        assert order.runs_side_by_side == 2
        yield measured(group, order)

    news, orders, _ = run(tmp_path, group, 4, play, play)
    sizes = [each.runs_side_by_side for each in news if each.compiled]
    assert sizes == [2]
    assert [order.begun for order in orders[0] + orders[1]].count(False) == 1
    table(tmp_path, group)


def test_a_lost_chunk_is_run_again(tmp_path, group):
    def dies(order):
        yield from [fitted(1), 4, RayError("the worker died")]

    news, _, _ = run(tmp_path, group, 1, dies, one_by_one(group))
    news = list(news)
    assert [x.note for x in news if x.note] == [
        "a worker on node 10.0.0.1 is lost: its chunk is run again"
    ]
    assert sum(each.run_steps for each in news) == 4 * 4
    table(tmp_path, group)


def test_nothing_is_run_again_if_a_worker_is_lost_after_its_chunk(tmp_path, group):
    def play(order):
        yield from [] if order.begun else [fitted(4)]
        yield measured(group, order)
        yield RayError("lost when nobody waits for it")

    news, (orders,), _ = run(tmp_path, group, 4, play)
    assert [x.note for x in news if x.note] == []
    assert len(orders) == 1
    table(tmp_path, group)


def test_a_chunk_that_is_lost_each_time_ends_the_sweep(tmp_path, group):
    def dies(order):
        yield RayError("first line\nout of memory")

    news, _, _ = run(tmp_path, group, 1, dies, dies, dies)
    with pytest.raises(Lost, match="is lost, as 2 others were with the same chunk: out of memory"):
        list(news)
    assert store.parts(tmp_path) == []


def test_a_mistake_on_a_node_is_told_in_a_line(tmp_path, group):
    def play(order):
        yield RayTaskError(TooLarge("a step takes 2 GiB"))

    news, _, _ = run(tmp_path, group, 1, play)
    with pytest.raises(ValueError, match=r"^node 10.0.0.1: a step takes 2 GiB$"):
        list(news)


def test_a_stopped_sweep_writes_no_more(tmp_path, group):
    stop = Stop()

    def play(order):
        stop.requested = True
        yield measured(group, order)

    news, _, cluster = run(tmp_path, group, 1, play, stop=stop)
    assert list(news) == []
    assert cluster.workers == []
    assert store.parts(tmp_path) == []


def test_a_stopped_sweep_goes_on_with_what_is_unfinished(tmp_path, group):
    stop = Stop()
    news, _, _ = run(tmp_path, group, 1, one_by_one(group), stop=stop)
    for each in news:
        stop.requested = stop.requested or bool(each.finished)
    assert len(store.parts(tmp_path)) == 1
    news, orders, _ = run(tmp_path, group, 1, *[one_by_one(group)] * 2)
    assert sum(each.finished for each in news) == 3
    assert all(order.begun for each in orders for order in each)
    assert all(orders)  # neither waits for the other
    assert sorted(order.chunk for each in orders for order in each) == [1, 2, 3]
    table(tmp_path, group)


def test_places_are_gpus_or_nodes():
    def node(name, alive=True, **resources):
        found = {"NodeID": name, "NodeManagerAddress": f"at-{name}", "Alive": alive}
        return found | {"Resources": resources}

    nodes = [node("a"), node("b", CPU=8.0), node("c", CPU=4.0, GPU=2.0), node("d", False, CPU=1.0)]
    assert [tuple(x) for x in places(nodes)] == [("c", "at-c", 2, 1, 0.0)]
    cpus = [("b", "at-b", 1, 0, 8.0), ("c", "at-c", 1, 0, 4.0)]
    assert [tuple(x) for x in places(nodes, on_cpus=True)] == cpus


@pytest.mark.slow
def test_a_node_makes_the_same_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def half(vectors):\n    return 0.5 * vectors.mean(0)\n")
    rules = ["noisy_./mine.py:half", "krum"]
    axes = {"dataset": ["digits"], "model": ["logistic"], "rule": rules, "seed": [0, 3]}
    axes |= {"lr": ["0.1", "1e-7"], "b": ["adaptive:0.3"], "attack": ["none", "ipm:tau=0.7"]}
    for group in make_groups(grid.expand(axes | {"byzantine": [2]}), DATASETS):
        problem = parcel.packed(group)
        monkeypatch.chdir("/")  # the file isn't there: its text is sent
        again = parcel.unpacked(problem, DATASETS["digits", None])
        monkeypatch.chdir(tmp_path)
        assert again.seeds == group.seeds
        assert np.array_equal(again.indices.examples, group.indices.examples)
        for one, other in zip(group.settings, again.settings, strict=True):
            assert {**vars(one), "rule": ""} == {**vars(other), "rule": ""}


@pytest.mark.slow
def test_a_node_runs_a_chunk_as_one_machine_does(tmp_path, group):
    work = unfinished(tmp_path, [group], [4])
    for _ in execution.execute(tmp_path, work, Stop()):
        pass
    node, conditions = Node(), parcel.conditions()
    assert node.join(conditions).device["platform"] == "cpu"
    problem, data = parcel.packed(group), DATASETS["digits", None]
    first, *news = node.run(Order(0, 4, False, 0, None), problem, data)
    assert first.runs_side_by_side == 4
    assert sum(news[:-1]) == 4
    again = [*node.run(Order(0, 4, True, 0, None), problem, data)]
    assert all(isinstance(each, int) for each in again[:-1])  # without compiling
    for rows in (news[-1], again[-1]):
        execution.write(tmp_path / "node", work[0], 0, rows)
        there, here = (store.part(x, 0, 0) for x in (tmp_path / "node", tmp_path))
        assert results.read_table(there).equals(results.read_table(here))


def test_a_file_that_has_changed_is_not_sent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def half(vectors):\n    return 0.5 * vectors.mean(0)\n")
    axes = {"dataset": ["digits"], "model": ["logistic"], "rule": ["./mine.py:half"]}
    (group,) = make_groups(grid.expand(axes), DATASETS)
    (tmp_path / "mine.py").write_text("half = sum\n")
    with pytest.raises(ValueError, match=r"'./mine.py' has changed since"):
        parcel.packed(group)


@pytest.mark.parametrize(
    ("name", "message"),
    [("medjax.rules:mean", "another one there"), ("nowhere:all", "no such module there")],
)
def test_a_module_that_a_node_lacks_is_named(name, message):
    problem = parcel.Problem([], [], {}, {name: "0123"})
    with pytest.raises(ValueError, match=f"{name}: there is {message}; install it"):
        parcel.unpacked(problem, DATASETS["digits", None])


def test_another_version_on_a_node_is_named():
    here = parcel.versions()
    assert parcel.difference(here, here) == ""
    said = parcel.difference(here, here | {"jax": "0.0.1"})
    assert said == f"jax 0.0.1, this machine {here['jax']}"
    assert parcel.difference(here, here | {"medjax's source": ""}) == "another source of medjax"
