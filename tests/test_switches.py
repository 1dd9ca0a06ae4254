"""Switches of a system itself: each lane's at its own moment, differentiable, counted; sleep against the package `circadian`."""

import csv
import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybridtwin import sensors
from hybridtwin.errors import DeclarationError, UnitError
from hybridtwin.inference.methods import NUTS, Variational
from hybridtwin.inference.personalize import personalize
from hybridtwin.interventions import Do, When, World
from hybridtwin.model import Model
from hybridtwin.physiology import Skeldon23, TwoProcess
from hybridtwin.records import Person
from hybridtwin.signals import Signal
from hybridtwin.simulate.mesh import lay, layout_of
from hybridtwin.simulate.rules import LAST
from hybridtwin.simulate.solve import Extras, first, observer, states
from hybridtwin.simulate.steppers import RK4
from hybridtwin.simulate.verb import simulate
from hybridtwin.system import Input, Scalar, State, System, const, lognormal, output, parameter, signal, state, switch


class Heated(System):
    r"""A room that is heated between two temperatures.    dT/dt = up on - down (1 - on)          d on/dt = 0"""

    time = "h"
    grid = "0.5 h"

    class State(State):
        T: Scalar = state("1", "temperature")
        on: Scalar = state("1", "1 while heated")

    class Input(Input):
        off: Scalar = signal("1", "1 while the heating is locked")

    up: Scalar = parameter(lognormal(2.0, 0.3), "1/h", "how fast it warms")
    down: Scalar = parameter(lognormal(0.5, 0.3), "1/h", "how fast it cools")

    def rates(self, t, x, u):
        return self.State(T=self.up * x.on - self.down * (1.0 - x.on), on=0.0)

    def switches(self, x, u):
        return {
            "goes on": switch(18.0 - x.T, {"on": 1.0}, only=(x.on < 0.5) & (u.off < 0.5), at_most="2/h"),
            "goes off": switch(x.T - 20.0, {"on": 0.0}, only=x.on > 0.5, at_most="2/h"),
        }

    def outputs(self, x, u):
        return {"T": output(x.T, "1", "temperature")}

    def initial(self, u):
        return self.State(T=19.0, on=0.0)


def moments(up, down, stop):
    """(on, off) times in closed form: 19 falls to 18, then triangles."""
    on, t = [], 1.0 / down
    off = []
    while t <= stop:
        on.append(t)
        off.append(t + 2.0 / up)
        t = off[-1] + 2.0 / down
    return np.array(on), np.array([s for s in off if s <= stop])


UP, DOWN = 1.9, 0.47  # so that no moment falls on a node, where it has no derivative
DAY = Person.of("room", start=0.0, stop=24.0, time="h")


def test_every_lane_switches_at_its_own_moments():
    found = simulate(Heated(), DAY, draws=3, key=2)
    assert not found.failed.any()
    for act, which in zip(found.acts, (0, 1), strict=True):
        assert act.does == "switch" and act.name == ("goes on", "goes off")[which]
        for i in range(3):
            expected = moments(found.parameters["up"][i], found.parameters["down"][i], 24.0)[which]
            times = act.times[i][np.isfinite(act.times[i])]
            np.testing.assert_allclose(times, expected, atol=1e-9)
    assert len({int(n) for n in found.acts[0].count}) > 1 and np.ptp(found.acts[0].times[:, 0]) > 0.1
    assert "goes on: " in repr(found) and set(found.acted()["name"]) == {"goes on", "goes off"}
    assert found["T"].max() <= 20.0 + 1e-9 and found["T"].min() >= 18.0 - 1e-9


def test_a_signal_locks_a_switch_and_a_rule_of_care_works_beside_it():
    body = Heated(up=2.0, down=0.5)
    locked = simulate(body, DAY, do=[Do({"off": Signal.constant(1.0, "1")}), When("T", below=(12.0, "1"), stop="off")])
    on, off = locked.acts[1].times[0], locked.acts[2].times[0]
    assert locked.acts[0].times[0, 0] == pytest.approx(14.0), "the rule unlocks the heating at 12"
    assert on[0] == pytest.approx(14.0) and off[0] == pytest.approx(18.0)
    assert locked["T"][0, 28] == pytest.approx(12.0, abs=1e-9)


def test_a_clamped_state_is_not_switched():
    found = simulate(Heated(up=2.0, down=0.5), DAY, do=[Do({"on": 0.0}, start=2.5, stop=22.0)])
    assert found.acts[0].times[0, 0] == pytest.approx(2.0)
    assert found.acts[0].times[0, 1] == pytest.approx(22.0), "free again, and far below: at once"
    assert found["T"][0, 44] == pytest.approx(19.0 - 0.5 * 19.5) and not found.failed.any()


def test_gradients_go_through_the_switches():
    spec = Heated.spec
    bound = DAY.bind(spec)
    world = World(bound.inputs, bound.start, bound.stop)
    layout = layout_of([world], spec)
    mesh = lay([world], spec, layout, [(10.0, LAST), (20.0, LAST)], max_step=1.0)[0]

    def run(p):
        body = Heated(up=UP, down=DOWN).with_values({"up": p[0], "down": p[1]})
        extras = Extras(jnp.zeros(0), jnp.zeros(0), jnp.zeros(0))
        here, u = first(body, layout, mesh, extras)
        path, acts = states(body, layout, RK4(), mesh, here.initial(u), extras, observer(("T",)))
        return jnp.append(path[mesh.read][:, 0], acts.times[:, 1])

    with jax.enable_x64(True):
        slope = np.asarray(jax.jit(jax.jacfwd(run))(jnp.array([UP, DOWN])))
    on = np.array([-2.0 / UP**2, -3.0 / DOWN**2])  # of the second "on", at 3/down + 2/up
    off = np.array([-4.0 / UP**2, -3.0 / DOWN**2])  # of the second "off", 2/up later
    np.testing.assert_allclose(slope[2:], [on, off], rtol=1e-9)
    left = 10.0 - 3.0 / DOWN - 4.0 / UP
    np.testing.assert_allclose(slope[0], [DOWN * off[0], -left + DOWN * off[1]], rtol=1e-9)  # T = 20 - down (10 - off)


def test_a_draw_that_switches_too_often_is_failed_and_explained():
    quick = Heated(up=200.0, down=200.0)
    found = simulate(quick, DAY)
    assert found.failed.all() and "met a rule more often" in repr(found) and "ht.switch a larger at_most=" in repr(found)


def declared(made):
    class Wrong(System):
        """One state that a switch sets."""

        time = "h"

        class State(State):
            A: Scalar = state("mg", "amount")

        k: Scalar = parameter(lognormal(1.0, 0.1), "1/h", "rate")

        def rates(self, t, x, u):
            return self.State(A=-self.k * x.A)

        def switches(self, x, u):
            return made(x)

    return Wrong


def test_switches_that_cannot_be():
    for made, error, says in (
        (lambda x: {"s": switch(x.A - const(1.0, "mg"), {"B": 1.0})}, DeclarationError, "sets 'B', which is no state"),
        (lambda x: {"s": switch(x.A - const(1.0, "mg"), {})}, DeclarationError, "sets nothing"),
        (lambda x: {"s": 1.0}, DeclarationError, "Write ht.switch"),
        (lambda x: {"s": switch(x.A - const(1.0, "mg"), {"A": const(1.0, "mL")})}, UnitError, "needs \\[mg\\]"),
        (lambda x: {"s": switch(x.A - const(1.0, "mL"), {"A": 0.0 * x.A})}, UnitError, "mL"),
    ):
        with pytest.raises(error, match=says):
            declared(made)
    fine = declared(lambda x: {"s": switch(x.A - const(1.0, "mg"), {"A": 0.0 * x.A}, at_most="1/min")})
    assert fine.spec.switches[0].at_most == pytest.approx(60.0)


# ------------------------------------------------------------------------------------------- sleep


def sleep_of(course, mu=17.78, chi=45.0):
    """(onsets, wakings) of the package: its column changes between two rows half an hour apart; pressure between them, which
    is known in closed form, says when.
    """
    t, H, S = course["t_h"], course["H"], course["sleep_state"]
    onsets, wakings = [], []
    for i in np.flatnonzero(np.diff(S)):
        grown = np.exp((t[i + 1] - t[i]) / chi)
        if S[i] == 0:
            onsets.append(t[i] + chi * np.log((H[i + 1] * grown - H[i] + mu) / mu))
        else:
            wakings.append(t[i] + chi * np.log((H[i] - (H[i + 1] - mu) * grown) / mu))
    return np.array(onsets), np.array(wakings)


def test_skeldon_derivatives():
    body = Skeldon23().typical()
    with jax.enable_x64(True):
        x = body.State(*(jnp.float64(v) for v in (0.1, 0.1, 0.1, 0.1, 0.0)))
        found = Skeldon23.spec.flatten(body.rates(0.0, x, body.Input(light=1.0, awake=0.0)))
    expected = (0.02901846, -0.02013533, -0.0425285, 0.39288889, 0.0)
    np.testing.assert_allclose([float(v) for v in found.values()], expected, atol=1e-6)


@pytest.mark.heavy
@pytest.mark.parametrize("scenario", ["regular_150lux", "slam_shift_8h"])
def test_sleep_times_of_the_package(shared_data, scenario):
    told = json.loads(shared_data("circadian/model_reference/scenarios.json").read_text())[f"Skeldon23/{scenario}"]
    with gzip.open(shared_data("circadian/model_reference/skeldon23.csv.gz"), "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["scenario"] == scenario]
    course = {key: np.array([float(row[key]) for row in rows]) for key in rows[0] if key != "scenario"}
    light = Signal.steps(*zip(*told["light_segments"], strict=True), "lux")
    day = Person.of(scenario, start=0.0, stop=24.0 * told["days"], time="h", signals={"light": light})
    found = simulate(Skeldon23().typical(), day, tol=1e-6)
    off = []
    for act, theirs in zip(found.acts, sleep_of(course), strict=True):
        ours = act.times[0][np.isfinite(act.times[0])][: len(theirs)]
        off.append(60.0 * (ours - theirs))
    most = max(np.abs(part).max() for part in off)
    print(f"Skeldon23 {scenario}: {sum(map(len, off))} switches within {most:.2f} min of the package's")
    assert most < 5.0


@pytest.mark.heavy
def test_a_night_without_sleep_is_slept_after():
    """Kept awake through one night, sleep comes at once after and lasts longer; lanes of three bodies each at their own time."""
    kept = Signal.steps([0.0, 112.0, 136.0], [0.0, 1.0, 0.0], "1")
    week = Person.of("kept", start=0.0, stop=336.0, time="h", signals={"awake": kept})
    found = simulate(TwoProcess(cbtmin=4.9), week, draws=3, key=5)
    onset, waking = (act.times for act in found.acts)
    for i in range(3):
        assert not ((onset[i] > 112.0) & (onset[i] < 136.0)).any()
        first_after = onset[i][onset[i] >= 136.0 - 1e-9][0]
        assert first_after == pytest.approx(136.0, abs=1e-9)
        alone = simulate(TwoProcess(**{p: v[i] for p, v in found.parameters.items()}), week)
        np.testing.assert_allclose(alone.acts[0].times[0], onset[i], atol=1e-9)
        np.testing.assert_allclose(alone.acts[1].times[0], waking[i], atol=1e-9)
    assert np.ptp(onset[:, 1]) > 0.01


@pytest.mark.heavy
@pytest.mark.parametrize("method", [Variational(steps=400), NUTS(draws=100, warmup=100)], ids=["Variational", "NUTS"])
def test_a_body_that_switches_is_personalized(method):
    """Reverse mode does not go through the loop of a switch; the methods that ask for it are answered by forward mode.

    Warmed from 18 to 20 and cooled, readings off the closed form's triangles within .1: the true rates lie in the middle of it.
    """
    at = np.arange(1.0, 12.0)
    seen = simulate(Heated(up=1.9, down=0.47), DAY, at=at)["T"][0] + 0.1 * np.random.default_rng(0).normal(size=len(at))
    day = Person.of("room", start=0.0, stop=12.0, time="h", readings={"T": (at, seen, "1")})
    twin = personalize(Model(Heated(), T=sensors.Gaussian("T", sd=lognormal(0.1, 0.3))), day, method, key=0, progress=False)
    fit = twin.fits[0]
    assert fit.kernel.forward_only and not fit.kernel.backward(1000)
    for path, truth in (("up", 1.9), ("down", 0.47)):
        drawn = np.log(fit.values[path].reshape(-1) / truth)
        assert abs(drawn.mean()) < 3 * drawn.std() and drawn.std() < 0.25
