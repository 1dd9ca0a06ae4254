"""Compiled functions of many lanes: packing loses nothing, modes of differentiation agree, threads change no bit."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from small import MESH, mesh_person

import hybridtwin as ht
from hybridtwin import engine
from hybridtwin.engine import double, side_by_side
from hybridtwin.errors import ParameterError
from hybridtwin.inference import personalize
from hybridtwin.model import bind, lived_world
from hybridtwin.packing import Packing
from hybridtwin.program import WIDTHS, Program, backward, by_tangents
from hybridtwin.simulate import pilot


def bowl(z, numbers):
    """A density with a gradient that is known: -(w . (z - m)**2) / 2, through a scan and a branch."""
    total = jax.lax.scan(lambda c, row: (c + row[0] * (row[2] - row[1]) ** 2, None), 0.0,
                         jnp.stack([numbers["w"], numbers["m"], z], axis=1))[0]  # fmt: skip
    return jnp.where(numbers["on"], -0.5 * total, 0.0 * total)


NUMBERS = {"w": np.array([1.0, 2.5, 0.3]), "m": np.array([0.1, -0.7, 2.0]), "on": np.bool_(True), "k": np.arange(4)}


def exact(z):
    off = z - NUMBERS["m"]
    return -0.5 * np.sum(NUMBERS["w"] * off**2, axis=-1), -NUMBERS["w"] * off


def test_packing_gives_back_every_number_with_its_kind():
    tree = {"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b": (np.array([True]), np.float64(0.1)), "c": np.zeros((0, 3))}
    packing = Packing.of(tree)
    assert packing == Packing.of(jax.tree.map(lambda a: a, tree)) and hash(packing) == hash(Packing.of(tree))
    with double():
        back = jax.jit(packing.open)(jnp.asarray(packing.pack(tree)))
        for old, new in zip(jax.tree.leaves(tree), jax.tree.leaves(back), strict=True):
            assert np.asarray(old).dtype == new.dtype
            np.testing.assert_array_equal(old, np.asarray(new))


@pytest.mark.parametrize("array", [np.array([2**60 + 1]), np.array([1j]), np.array(["a"])])
def test_what_a_float_cannot_hold_is_not_packed(array):
    with pytest.raises(ParameterError, match="packed"):
        Packing.of({"a": array})


@pytest.mark.parametrize("count", [1, 3, 16, 70, 600])
def test_any_number_of_lanes(count):
    z = np.random.default_rng(count).normal(size=(count, 3))
    value, slope = exact(z)
    for reverse in (None, True, False):
        program = Program(bowl, NUMBERS, reverse=reverse)
        np.testing.assert_allclose(program(z), value, rtol=1e-14)
        found = program.gradient(z)
        np.testing.assert_allclose(found[0], value, rtol=1e-14)
        np.testing.assert_allclose(found[1], slope, rtol=1e-14, atol=1e-15)


def test_one_lane_as_one_function_is_the_same_number():
    z = np.array([0.3, -1.2, 0.8])
    for whole in (True, False):
        program = Program(bowl, NUMBERS, whole=whole)
        assert program(z).shape == () and program.gradient(z)[1].shape == (3,)
        np.testing.assert_allclose(program(z), exact(z)[0], rtol=1e-15)
    text = Program(bowl, NUMBERS, whole=True).compiled(1, 3, True)
    with double():
        vector = np.append(Packing.of(NUMBERS).pack(NUMBERS), 1.0)
        assert "while" in text.lower(z[None], vector).as_text()


def test_a_lane_has_its_bits_whoever_is_beside_it_and_on_any_number_of_threads(monkeypatch):
    z = np.random.default_rng(0).normal(size=(3 * WIDTHS[-1], 3))
    program = Program(bowl, NUMBERS)
    two = program.gradient(z)
    monkeypatch.setenv("HYBRIDTWIN_THREADS", "1")
    assert engine.cores() == 1
    for a, b in zip(two, program.gradient(z), strict=True):
        np.testing.assert_array_equal(a, b)
    poisoned = z.copy()
    poisoned[::2] = np.nan
    np.testing.assert_array_equal(program(poisoned)[1::2], two[0][1::2])
    np.testing.assert_array_equal(program(z[::-1])[::-1], two[0])


def test_the_density_of_a_record_by_both_modes_and_all_widths():
    problem = bind(MESH, mesh_person())
    z = 0.3 * np.random.default_rng(1).normal(size=(70, problem.kernel.size))
    with double():
        plain = jax.vmap(lambda z: problem.kernel.log_density(z, problem.data, problem.kernel.untempered()))
        value, slope = np.asarray(plain(z)), np.asarray(jax.vmap(jax.grad(lambda z: plain(z[None])[0]))(jnp.asarray(z)))
    np.testing.assert_allclose(problem.density(z), value, rtol=1e-12)
    found = problem.density.gradient(z)
    scale = np.abs(slope).max()
    np.testing.assert_allclose(found[1], slope, rtol=1e-12, atol=1e-12 * scale)
    for row in (0, 5):
        one = problem.density.gradient(z[row])
        np.testing.assert_allclose(one[0], value[row], rtol=1e-12)
        np.testing.assert_allclose(one[1], slope[row], rtol=1e-12, atol=1e-12 * scale)


def test_people_of_one_shape_share_programs():
    first, second = (bind(MESH, mesh_person(name)).density for name in ("a", "b"))
    assert first.compiled(4, 2, False) is second.compiled(4, 2, False)


def test_backward_wins_with_lanes_and_unknowns():
    assert not backward(5, 1) and backward(5, 256) and not backward(2, 256) and backward(100, 1)


def needs_two():
    if engine.cores() < 2:
        pytest.skip("one core")


def test_calls_run_at_the_same_time_in_their_order_and_in_double_precision():
    needs_two()
    meet = threading.Barrier(2, timeout=20)

    def call(i):
        if i < 2:
            meet.wait()  # passes only if both are under way
        return i, jnp.zeros(1).dtype

    assert side_by_side([lambda i=i: call(i) for i in range(7)]) == [(i, np.dtype("float64")) for i in range(7)]


@pytest.mark.parametrize(
    ("given", "alone", "wanted"),
    [("", True, ("small_while_loop", "optimization_level=1")), ("", False, ("small_while_loop",)),
     ("--xla_backend_optimization_level=3", True, ("optimization_level=3", "small_while_loop"))],
)  # fmt: skip
def test_what_is_asked_of_xla(monkeypatch, given, alone, wanted):
    """Quick compilation is asked for only where no accelerator's compiler would hear it, and nothing that somebody has set."""
    monkeypatch.setattr(engine, "backend_started", lambda: False)
    monkeypatch.setattr(engine, "_cpu_alone", lambda: alone)
    monkeypatch.delenv("HYBRIDTWIN_XLA_FLAGS", raising=False)
    monkeypatch.setenv("XLA_FLAGS", given)
    engine.prepare()
    flags = os.environ["XLA_FLAGS"].split()
    assert len(flags) == len(wanted) and all(any(word in flag for flag in flags) for word in wanted)
    monkeypatch.setenv("HYBRIDTWIN_XLA_FLAGS", "0")
    monkeypatch.setenv("XLA_FLAGS", given)
    engine.prepare()
    assert os.environ["XLA_FLAGS"] == given


def test_calls_inside_calls_do_not_wait_for_themselves():
    def outer(i):
        return sum(side_by_side([lambda j=j: i * j for j in range(5)]))

    assert side_by_side([lambda i=i: outer(i) for i in range(8)]) == [10 * i for i in range(8)]


def test_who_is_idle_helps_inside_a_call():
    needs_two()
    meet = threading.Barrier(2, timeout=20)

    def outer(i):  # the second is over at once, so that its thread may help the first
        return side_by_side([meet.wait, meet.wait]) if i == 0 else []

    found, _ = side_by_side([lambda: outer(0), lambda: outer(1)])
    assert sorted(found) == [0, 1]


def test_the_first_error_reaches_the_caller_and_nothing_is_begun_after_it():
    needs_two()
    begun = []

    def call(i):
        begun.append(i)
        time.sleep(0.01)
        if i in (2, 3):
            raise ValueError(f"call {i}")
        return i

    with pytest.raises(ValueError, match=r"call [23]"):
        side_by_side([lambda i=i: call(i) for i in range(50)])
    assert len(begun) < 10
    time.sleep(0.05)
    assert len(begun) < 10, "work went on after the error"


def test_ctrl_c_in_a_thread_reaches_the_caller():
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side([stop, lambda: 1, lambda: 2])


def test_linear_algebra_is_quiet_in_every_thread_and_as_before_once_the_last_has_left():
    """Since 3.8 threadpoolctl obeys only the first thread that asked; sums of two BLAS threads round otherwise than of one."""
    from threadpoolctl import threadpool_info

    def threads():
        return max((lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"), default=1)

    def inside():
        with engine.quiet:
            return threads()

    before = threads()
    with ThreadPoolExecutor(2) as pool:
        assert [inside(), *pool.map(lambda _: inside(), range(4)), inside()] == [1] * 6
    assert threads() == before


def test_simulated_draws_and_a_cohort_have_the_same_bits_on_one_thread_and_on_two(monkeypatch):
    needs_two()
    people = ht.Cohort([mesh_person(f"p{i}") for i in range(40)])

    def both():
        course = ht.simulate(MESH.system, mesh_person(), at=[1.0, 7.0, 12.0], draws=300, key=0)
        twins = ht.personalize(MESH, people, ht.Laplace(draws=50, starts=2), key=0, progress=False)
        return [course["C"], *(twins[name].fits[0].z for name in twins)]

    side_by_side_runs = both()
    monkeypatch.setenv("HYBRIDTWIN_THREADS", "1")
    for two, one in zip(side_by_side_runs, both(), strict=True):
        np.testing.assert_array_equal(two, one)


def test_ctrl_c_stops_the_other_tiles_of_a_cohort(monkeypatch):
    needs_two()
    people, seen = ht.Cohort([mesh_person(f"p{i}") for i in range(160)]), []
    tile = personalize._tile

    def watched(problems, *rest):
        seen.append(len(problems))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return tile(problems, *rest)

    monkeypatch.setattr(personalize, "_tile", watched)
    with pytest.raises(KeyboardInterrupt):
        ht.personalize(MESH, people, ht.Laplace(draws=50, starts=2), key=0, progress=False)
    assert 3 <= len(seen) <= 5, "tiles were begun after Ctrl-C"


def test_people_who_live_the_same_day_share_a_pilot_and_others_do_not():
    first, same, other = (mesh_person("a"), mesh_person("b"), mesh_person("c", weight=90.0))
    worlds = [lived_world(bind(MESH, p).bound) for p in (first, same, other)]
    with double():
        days = [pilot._Day(MESH.system, world, "free") for world in worlds]
    assert days[0] == days[1] and hash(days[0]) == hash(days[1]) and days[0] != days[2]
    assert pilot._Day(MESH.system, worlds[0], "free") != days[0], "single precision taken for double"
    with double():
        for day in days:
            for found, again in zip(pilot._coarse(day), pilot._coarse.__wrapped__(day), strict=True):
                np.testing.assert_array_equal(found, again)


def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch):
    class Refused:
        def lower(self):
            raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: No such compile option")

    assert engine.batched()["xla_cpu_use_fusion_emitters"] is False
    monkeypatch.setattr(engine.jax, "jit", lambda *_, **__: Refused())
    engine.batched.cache_clear()
    assert engine.batched() == {}
    engine.batched.cache_clear()


def test_a_derivative_backward_of_what_only_forward_mode_goes_through():
    """x**4 by a loop of unknown length, 3 y beside it; and a slope that is no number counts as none."""

    def f(z):
        return lax.while_loop(lambda c: c[0] < 4, lambda c: (c[0] + 1, c[1] * z[0]), (0, jnp.ones(())))[1] + 3.0 * z[1]

    with double():
        both = jax.vmap(jax.value_and_grad(lambda z: 2.0 * by_tangents(f, z)))
        value, slope = jax.jit(both)(jnp.array([[1.5, 1.0], [2.0, -1.0]]))
        flat = jax.grad(lambda z: by_tangents(lambda z: jnp.sqrt(z[0]), z))(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(value, [2 * (1.5**4 + 3), 2 * (16 - 3)])
    np.testing.assert_allclose(slope, [[8 * 1.5**3, 6.0], [64.0, 6.0]])
    assert not flat.any()


def test_stiff_steps_are_differentiated_backward_sooner():
    assert [backward(n, 64) for n in (3, 4)] == [False, True] and [backward(n, 4) for n in (8, 9)] == [False, True]
    assert [backward(n, 4, stiff=True) for n in (1, 2)] == [False, True]
