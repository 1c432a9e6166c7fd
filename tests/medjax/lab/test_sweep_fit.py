"""The number of runs side by side, as the memory of the compiled program decides."""

import functools
import json
import shutil

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from medjax import sharding
from medjax.lab.commands import run
from medjax.lab.commands.sweep import main
from medjax.lab.data import load
from medjax.lab.machine import memory
from medjax.lab.sweeps import execute, grid, store
from medjax.lab.sweeps import fit as fitting
from medjax.lab.sweeps.fit import Work, fit
from medjax.lab.sweeps.inputs import Inputs
from medjax.lab.sweeps.plan import make_chunks, make_groups

# One program of 16 runs, 2 seeds by 8 settings.
QUICK = ("--dataset", "digits", "--model", "logistic", "--steps", "4", "--eval-every", "2")
GRID = (*QUICK, "--rule", "sign", "--lr", *map(str, range(1, 9)), "--seeds", "2")
DIGITS = {"dataset": ["digits"], "model": ["logistic"]}
EXHAUSTED = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory in memory space hbm")


pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module", autouse=True)
def compiled_once_of_each_size():
    """Compile a task for arguments of some shapes once."""
    compiled, compile_program = {}, fitting.compile_program

    def known(program, *arguments):
        *inputs, _, mesh = arguments
        key = (program, mesh, *(x.shape for x in jax.tree.leaves(inputs)))
        if key not in compiled:
            compiled[key] = compile_program(program, *arguments)
        return compiled[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "many_runs", functools.cache(fitting.many_runs))
        patch.setattr(fitting, "compile_program", known)
        yield


@pytest.fixture(scope="module")
def group():
    axes = {"rule": ["sign"], "lr": [*range(1, 9)], "seed": [0, 1]}
    (group,) = make_groups(grid.expand(DIGITS | axes), {("digits", None): load("digits")})
    return group


@pytest.fixture
def sizes(monkeypatch):
    """The number of runs and of bytes of each program that is compiled."""
    compiled, compile_program = [], fitting.compile_program

    def counted(program, values, *arguments):
        found = compile_program(program, values, *arguments)
        compiled.append((values.lr.size, found.num_bytes))
        return found

    monkeypatch.setattr(fitting, "compile_program", counted)
    return compiled


def planned(group, most, *, begun=False):
    return Work(0, group, most, dict(enumerate(make_chunks(group, most))), begun)


def fitted(group, most, limit, *, begun=False):
    work = planned(group, most, begun=begun)
    return fit(work, Inputs(), None, limit, {})


@pytest.mark.slow
def test_what_fits_is_compiled_once(group, sizes):
    work, compiled = fitted(group, 16, None)
    assert (work.runs_side_by_side, work.chunk_size) == (16, 16)
    assert sizes == [(16, compiled.num_bytes)]


@pytest.mark.slow
def test_half_as_many_or_fewer_where_they_do_not_fit(group, sizes):
    _, all_of_them = fitted(group, 16, None)
    work, compiled = fitted(group, 16, all_of_them.num_bytes - 1)
    assert work.chunk_size == 8
    assert compiled.num_bytes < all_of_them.num_bytes
    # 2 × 8 runs in chunks that have every run once.
    assert sum(int(chunk.new.sum()) for chunk in work.chunks.values()) == 16
    assert [size for size, _ in sizes] == [16, 16, 8]
    # Where it is far too much, halving isn't repeated: it goes by the share that fits.
    work, compiled = fitted(group, 16, all_of_them.num_bytes // 4)
    assert work.chunk_size < 4
    assert [size for size, _ in sizes[3:5]] == [16, 4]


@pytest.mark.slow
def test_more_where_the_estimate_was_far_too_high(group, sizes):
    work, _ = fitted(group, 2, 1 << 40)
    assert (work.chunk_size, len(work.chunks)) == (16, 1)
    assert [size for size, _ in sizes] == [2, 16]  # once more, and no more
    sizes.clear()
    # Not on a CPU, which has no limit, nor where a fifth more would fit.
    assert fitted(group, 2, None)[0].chunk_size == 2
    assert fitted(group, 8, int(1.2 * fitted(group, 8, None)[1].num_bytes))[0].chunk_size == 8
    assert [size for size, _ in sizes] == [2, 8, 8]


@pytest.mark.slow
def test_too_many_more_are_fewer_again(group, sizes):
    _, four = fitted(group, 4, None)
    work, compiled = fitted(group, 1, four.num_bytes)
    assert 1 <= work.chunk_size <= 4
    assert compiled.num_bytes <= four.num_bytes
    assert len(sizes) <= 1 + 4


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 1 << 40])
def test_what_was_begun_stays(limit, group, sizes):
    assert fitted(group, 4, limit, begun=True)[0].chunk_size == 4
    assert [size for size, _ in sizes] == [4]


@pytest.mark.slow
def test_one_run_at_a_time_needs_only_what_is_free(group):
    # The limit is there to decide alike in every session, not to refuse what can be run.
    assert fitted(group, 16, 1)[0].chunk_size == 1


@pytest.mark.slow
def test_on_a_mesh_each_device_keeps_one_run(group, sizes):
    mesh = sharding.make_mesh(workers=1, grid=2)
    work = Work(0, group, 16, dict(enumerate(make_chunks(group, 16, 2))))
    work, _ = fit(work, Inputs(mesh), mesh, 1, {})
    assert work.chunk_size == 2
    assert [size for size, _ in sizes] == [16, 2]
    assert all(chunk.new.shape == (1, 2) for chunk in work.chunks.values())


@pytest.mark.slow
def test_examples_of_fewer_seeds_where_all_do_not_fit(group, monkeypatch):
    (chunk,) = make_chunks(group, 16)
    (x, y), sizes = Inputs().of(group, chunk)[1].examples, group.indices.sizes
    assert x.shape[:2] == sizes.shape == (2, 10)
    monkeypatch.setattr(memory, "free_bytes", lambda: int(0.75 * (x.nbytes + y.nbytes)))
    work, _ = fitted(group, 16, None)
    assert work.chunks[0].new.shape[0] == 1
    assert sum(int(chunk.new.sum()) for chunk in work.chunks.values()) == 16


@pytest.mark.slow
def test_a_compiler_that_refuses(group, sizes, monkeypatch):
    counted = fitting.compile_program

    def refusing(program, values, *arguments):
        if values.lr.size > 4:
            sizes.append((values.lr.size, None))
            raise EXHAUSTED
        return counted(program, values, *arguments)

    monkeypatch.setattr(fitting, "compile_program", refusing)
    assert fitted(group, 16, None)[0].chunk_size == 4
    assert [size for size, _ in sizes] == [16, 8, 4]
    with pytest.raises(memory.TooLarge, match="begun with 8 runs side by side"):
        fitted(group, 8, None, begun=True)


def test_other_errors_of_the_compiler_are_no_lack_of_memory(group, monkeypatch):
    def broken(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    monkeypatch.setattr(fitting, "compile_program", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        fitted(group, 16, None)


def table(folder):
    return pq.read_table(folder / store.TABLE)


@pytest.mark.slow
def test_a_sweep_keeps_the_number_that_fits(group, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "sweep"
    _, all_of_them = fitted(group, 16, None)
    data = sum(x.nbytes for x in jax.tree.leaves(Inputs().of(group, make_chunks(group, 16)[0])[1]))
    little = (all_of_them.num_bytes - data) // 2

    with monkeypatch.context() as patch:
        patch.setattr(memory, "free_bytes", lambda: little)
        assert main([*GRID, "--out", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "1 chunk of up to 16 runs side by side" in printed
    (most,) = json.loads((folder / "config.json").read_text())["runs_side_by_side"]
    assert most < 16
    assert f"; up to {most} runs side by side" in printed
    assert len(table(folder)) == 16 * 3

    # Whatever memory there is later, what isn't finished is the same chunk.
    whole = table(folder)
    parts = sorted(folder.glob("parts/*"))
    assert len(parts) > 1
    parts[-1].unlink()
    (folder / store.TABLE).unlink()
    shutil.copytree(folder, tmp_path / "less")
    assert main([*GRID, "--out", str(folder)]) == 0
    assert sorted(folder.glob("parts/*")) == parts
    assert table(folder).equals(whole)

    monkeypatch.setattr(memory, "free_bytes", lambda: little // 8)
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main([*GRID, "--out", str(tmp_path / "less")])
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_damaged_configuration_gets_one_line(tmp_path, error_of):
    assert main([*GRID, "--out", str(tmp_path)]) == 0
    path = tmp_path / "config.json"
    record = json.loads(path.read_text())
    damages = [{"memory_limit": limit} for limit in (0, -1, 1.5, True, "1 GiB")]
    for damage in (*damages, {"checkpoint_every": 0}):
        path.write_text(json.dumps(record | damage))
        assert "isn't as the sweep left it" in error_of(main, *GRID, "--out", str(tmp_path))


@pytest.mark.slow
def test_memory_used_up_on_the_way_gets_one_line(tmp_path, monkeypatch, capsys):
    def exhausted(*_, **__):
        raise EXHAUSTED

    monkeypatch.setattr(execute, "train", exhausted)
    monkeypatch.setattr(run, "train", exhausted)
    for command, flags in ((main, GRID), (run.main, QUICK)):
        with pytest.raises(SystemExit) as exit_info:
            command([*flags, "--out", str(tmp_path / command.__module__)])
        assert exit_info.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("error: the memory of a device is used up: fewer ")
        assert error.count("\n") == 1


@pytest.mark.slow
def test_a_program_too_large_for_memory_gets_one_line(tmp_path, monkeypatch, capsys):
    # Enough for the workers' 147 examples of 65 numbers each, but not for a step.
    monkeypatch.setattr(memory, "free_bytes", lambda: 1 << 20)
    settings = ("--dataset", "digits", "--rule", "median", "--steps", "1", "--seeds", "1")
    with pytest.raises(SystemExit) as exit_info:
        main([*settings, "--out", str(tmp_path / "sweep")])
    assert exit_info.value.code == 2
    error = capsys.readouterr().err  # after the plan
    assert error.startswith("error: a step, or a measurement, takes ")
    assert "fewer workers" in error
    assert error.count("\n") == 1
    assert [x.name for x in tmp_path.rglob("*.parquet")] == ["runs.parquet"]


def test_examples_and_held_out_data_are_placed_once(group):
    inputs, chunks = Inputs(), make_chunks(group, 4)
    made = [inputs.of(group, chunk) for chunk in chunks]
    assert len({tuple(chunk.seeds) for chunk in chunks}) == 2
    assert len({id(workers) for _, workers, *_ in made}) == 2
    assert len({id(held_out) for *_, held_out in made}) == 1
    # Another program's are those of this one if they are equal.
    axes = {"rule": ["mean"], "validation": [0.1, 0]}
    same, other = make_groups(grid.expand(DIGITS | axes), {("digits", None): load("digits")})
    _, workers, _, held_out = inputs.of(same, make_chunks(same, 1)[0])
    assert held_out is made[0][-1]
    assert workers is not made[-1][1]
    np.testing.assert_array_equal(held_out["test"][1], same.task.held_out["test"][1])
    assert inputs.of(other, make_chunks(other, 1)[0])[-1].keys() == {"test"}
