"""The body clock against the package `circadian` 1.0.3: derivatives, trajectories and phase markers, all from its own files."""

import csv
import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from hybridtwin import outcomes
from hybridtwin.errors import DeclarationError, InterventionError
from hybridtwin.physiology import REGISTRY, Breslow13, Forger99, Jewett99, T1DDay, Warfarin
from hybridtwin.physiology.circadian.common import hours_on
from hybridtwin.physiology.circadian.markers import cbtmin, daily, dlmo, lowest
from hybridtwin.records import Person
from hybridtwin.signals import Regimen, Signal
from hybridtwin.simulate.verb import simulate

# derivative vectors of the package's own test notebook at 1 lux; a state, other inputs, derivatives
VECTORS = {
    "Forger99": ((-0.3, -1.13, 0.0), {}, (-0.28846216, 0.1267787, 0.03077935)),
    "Jewett99": ((0.1, 0.1, 0.1), {}, (0.03019473, -0.02595055, -0.0425285)),
    "Hilaire07": ((0.1, 0.1, 0.1), {"wake": 0.0}, (0.02610988, -0.0258909, -0.04145146)),
    "Hannay19": ((0.1, 0.1, 0.1), {}, (0.0007973, 0.26058529, -0.04471049)),
    "Hannay19TP": ((0.1,) * 5, {}, (0.00063553, 0.00209955, 0.25906153, 0.26179939, -0.04471049)),
}
STATES = {name: tuple(REGISTRY[name].spec.states) for name in VECTORS}


@pytest.mark.parametrize("name", VECTORS)
def test_derivatives(name):
    state, more, expected = VECTORS[name]
    body, spec = REGISTRY[name]().typical(), REGISTRY[name].spec
    with jax.enable_x64(True):
        x = spec.state({p: jnp.float64(v) for p, v in zip(spec.states, state, strict=True)})
        found = spec.flatten(body.rates(0.0, x, spec.input({"light": 1.0, **more})))
    np.testing.assert_allclose([float(v) for v in found.values()], expected, atol=1e-6)


@pytest.fixture(scope="session")
def reference(shared_data):
    """(days, states, person, rows) of a scenario of the package."""
    scenarios = json.loads(shared_data("circadian/model_reference/scenarios.json").read_text())

    def read(name, scenario):
        told = scenarios[f"{name}/{scenario}"]
        with gzip.open(shared_data(f"circadian/model_reference/{name.lower()}.csv.gz"), "rt") as file:
            rows = [row for row in csv.DictReader(file) if row["scenario"] == scenario]
        course = {key: np.array([float(row[key]) for row in rows]) for key in rows[0] if key != "scenario"}
        signals = {"light": Signal.steps(*zip(*told["light_segments"], strict=True), "lux")}
        if "second_input_segments" in told:
            signals["wake"] = Signal.steps(*zip(*told["second_input_segments"], strict=True), "1")
        day = Person.of(scenario, start=0.0, stop=24.0 * told["days"], time="h", signals=signals)
        return told, course, day

    return read


STEPPED = {  # as the package runs them: its names of the states, and where the initial condition goes
    "Skeldon23Stepped": ({"asleep": "sleep_state"}, {"x": "x0", "xc": "xc0", "n": "n0", "H": "H00"}),
    "Breslow13Stepped": ({"pineal": "H1", "plasma": "H2", "gut": "H3"}, {"x": "x0", "xc": "xc0", "n": "n0"}),
}


def held_against(reference, name, scenario):
    """Largest deviation of any state, and of the daily DLMO [h] as located, and as the package locates it on its grid."""
    told, course, day = reference(name.removesuffix("Stepped"), scenario)
    spec, system = REGISTRY[name].spec, REGISTRY[name]
    words, places = STEPPED.get(name, ({}, {path: f"{path}0" for path in spec.states}))
    start = dict(zip(places.values(), told["initial_condition"], strict=False))
    if name in STEPPED:
        body = system(model=REGISTRY[name.removesuffix("Stepped")](**start)).typical()
    else:
        body = system(**start).typical()
    found = simulate(body, day, tol=1e-6)
    every = np.searchsorted(found.time, course["t_h"] - 1e-6)
    off = max(np.abs(found[path][0][every] - course[words.get(path, path)]).max() for path in spec.states)
    theirs = np.array(told["dlmo_h"])
    if name == "Breslow13Stepped":  # where two minima of a day are an hour apart the package counts both
        theirs = np.array([theirs[np.argmin(np.abs(theirs - one))] for one in daily(found, body)[0]])
    located, on_grid = (daily(found, body, grid=grid)[0][: len(theirs)] - theirs for grid in (None, "0.05 h"))
    return off, np.abs(located).max(), np.abs(on_grid).max()


SCENARIOS = ("regular_150lux", "regular_1000lux_late", "constant_dark", "slam_shift_8h", "social_jetlag_2h", "shift_work")


@pytest.mark.parametrize(
    ("name", "scenario"),
    [pytest.param(name, s, marks=[] if (name, s) == ("Jewett99", "slam_shift_8h") else pytest.mark.heavy)
     for name in VECTORS for s in SCENARIOS]
    + [(f"{name}Stepped", s) for name in ("Skeldon23", "Breslow13") for s in ("regular_150lux", "slam_shift_8h")],
)  # fmt: skip
def test_trajectories_and_melatonin_onset(reference, name, scenario):
    off, located, on_grid = held_against(reference, name, scenario)
    print(f"{name} {scenario}: states {off:.2g}, DLMO {located:.3f} h located, {on_grid:.3f} h on the package's grid")
    assert off < 1e-4
    assert on_grid < 0.02 and located < 0.03  # the package's minima lie on its grid: half a step of 0.05 h from where they are


@pytest.mark.heavy
@pytest.mark.parametrize("scenario", ["regular_150lux", "slam_shift_8h"])
def test_the_clock_with_melatonin_is_that_of_the_package(reference, scenario):
    """Melatonin within what the package makes in one of its steps, with which it passes the moments of beginning and end; with
    those steps it is the package's to 1e-4 (`Breslow13Stepped` above)."""
    told, course, day = reference("Breslow13", scenario)
    found = simulate(Breslow13().typical(), day, tol=1e-6)
    every = np.searchsorted(found.time, course["t_h"] - 1e-6)
    for ours, theirs in {"x": "x", "xc": "xc", "n": "n", "pineal": "H1", "plasma": "H2"}.items():
        most = 3.75192 * 0.05 if theirs.startswith("H") else 1e-6
        assert np.abs(found[ours][0][every] - course[theirs]).max() < most, ours
    theirs = np.array(told["dlmo_h"])  # where two minima of a day are an hour apart the package counts both
    assert all(np.abs(theirs - one).min() < 0.03 for one in daily(found, Breslow13())[0])


@pytest.mark.heavy
def test_melatonin_is_made_at_night_and_stopped_by_light_as_written_apart():
    """The law as published, its fading end and its guard included, in tiny steps of SciPy; a lamp at 05:30 empties the gland."""
    body, value = Breslow13().typical(), {k: float(v) for k, v in Breslow13().typical().values().items()}
    light = Signal.steps([0.0, 7.0, 23.0, 29.5, 30.5], [0.0, 150.0, 0.0, 250.0, 0.0], "lux")
    on, off = value["phi_on"], value["phi_off"]

    def law(t, y):
        x, xc, n, pineal, plasma = y
        lux = float(light(t))
        alpha = 0.1 * (lux / 9500.0) ** 0.5 * lux / (lux + 100.0)
        B = 37.0 * (1 - n) * alpha * (1 - 0.4 * x) * (1 - 0.4 * xc)
        M = 0.019513 / (1 + np.exp((861.0 - plasma) / 50.0))
        theta = np.arctan2(x, xc)
        night = -np.expm1(-600 * max(on - theta, 0.0)) / -np.expm1(-600 * (on - off))
        made = night if off < theta < on else np.exp(-15.36 * (on - off))
        made *= 3.75192 * (1 - 7 * B) * (0.0 if pineal < 0.001 and 1 - 7 * B < 0 else 1.0)
        own = (24.0 / (0.99729 * 24.1)) ** 2 + 0.55 * B
        bent = 0.13 * (x / 3 + 4 / 3 * x**3 - 256 / 105 * x**7)
        return [np.pi / 12 * (xc + bent + B - 0.04 * M), np.pi / 12 * (B * xc / 3 - x * own - 0.54 * M),
                60 * (alpha * (1 - n) - 0.007 * n), made - 2.8188 * pineal, 2.8188 * pineal - 1.206 * plasma]  # fmt: skip

    start, at = [value["x0"], value["xc0"], value["n0"], 0.0, 0.0], np.arange(0.25, 36.0, 0.25)
    apart = solve_ivp(law, (0.0, 36.0), start, t_eval=at, max_step=0.005, rtol=1e-8, atol=1e-10)
    day = Person.of("p", start=0.0, stop=36.0, time="h", signals={"light": light})
    found = simulate(body, day, at=at, tol=1e-6)
    for row, name in enumerate(("x", "xc", "n", "pineal", "plasma")):
        np.testing.assert_allclose(found[name][0], apart.y[row], atol=5e-3 if row > 2 else 1e-6, err_msg=name)
    lit = (at > 30.0) & (at < 30.5)
    assert found["plasma"].max() > 2.9 and found["pineal"][0][lit].max() < 2e-3


@pytest.mark.heavy
def test_tablets_in_the_afternoon_advance_the_clock_and_those_of_the_small_hours_delay_it():
    def day(hour):
        doses = {} if hour is None else {"melatonin": Regimen.bolus(5000.0, "pmol/L", at=[24.0 * d + hour for d in (8, 9, 10)])}
        signals = {"light": hours_on(150.0, "lux", 7.0, 23.0, 8)}
        return Person.of("p", start=0.0, stop=24.0 * 13, time="h", signals=signals, doses=doses)

    last = {hour: lowest(found.time, found["x"][0])[-1]
            for hour in (None, 15.0, 3.0) for found in [simulate(Breslow13().typical(), day(hour))]}  # fmt: skip
    assert last[15.0] < last[None] - 0.04 and last[3.0] > last[None] + 0.04, last


def test_minima_are_located_between_nodes():
    time = np.arange(0.0, 96.0, 0.5)
    value = -np.cos(2 * np.pi * (time - 5.13) / 24.2)
    np.testing.assert_allclose(lowest(time, value), 5.13 + 24.2 * np.arange(4), atol=1e-3)
    assert lowest(time, time).size == 0


def test_minima_on_a_grid_need_that_grid():
    trajectory = fake(lambda t: -np.cos(2 * np.pi * (t - 29.2) / 24.0))
    np.testing.assert_allclose(daily(trajectory, Forger99, grid="1 h") % 24.0, [[22.0, 22.0], [23.0, 23.0]])
    np.testing.assert_allclose(daily(trajectory, Forger99) % 24.0, [[22.2, 22.2], [23.45, 23.45]], atol=1e-2)
    with pytest.raises(InterventionError, match=r"not known at every multiple of 0.3 h. Simulate with at="):
        daily(trajectory, Forger99, grid="0.3 h")


def fake(course, name="x"):
    """A trajectory of one output at half-hour nodes."""
    from hybridtwin.clock import Clock
    from hybridtwin.simulate.trajectory import Trajectory

    time = np.arange(0.0, 48.5, 0.5)
    values = np.stack([course(time), course(time - 1.25)])
    clock = Clock(unit="h", start=0.0, stop=48.0)
    return Trajectory(time, {name: values}, {name: "1"}, clock, np.zeros(2, int), np.zeros(2, bool), 0.0)


def test_markers_are_outcomes():
    trajectory = fake(lambda t: -np.cos(2 * np.pi * (t - 29.0) / 24.0))
    found = dlmo(Jewett99, 12.0, 44.0)
    np.testing.assert_allclose(found.of(trajectory), np.array([29.0, 30.25]) + 0.8 - 7.0, atol=1e-3)
    np.testing.assert_allclose(cbtmin(Forger99(), 12.0, 44.0).of(trajectory), [29.0, 30.25], atol=1e-3)
    assert found.settled(trajectory).unit == "h" and "melatonin onset" in found.settled(trajectory).label
    assert np.isnan(cbtmin(Forger99, 30.0, 40.0).of(trajectory)[0]), "the minimum lies before the window"
    np.testing.assert_allclose(daily(trajectory, Jewett99) % 24.0, [[22.8, 22.8], [0.05, 0.05]], atol=1e-2)
    peak = outcomes.time_of_peak("x", 12.0, 24.0, later="-30 min")
    np.testing.assert_allclose(peak.of(trajectory), [16.5, 17.75], atol=1e-3)
    assert dlmo(T1DDay).of(trajectory).tolist() == dlmo(Forger99).of(trajectory).tolist(), "a whole that holds a clock"
    with pytest.raises(DeclarationError, match="no model of the body clock"):
        dlmo(Warfarin)


@pytest.mark.heavy
@pytest.mark.parametrize("name", VECTORS)
def test_regular_days_entrain_whatever_the_start(name):
    """Sixty clocks that stand up to half a day off are within a hundredth of an hour of each other after 60 regular days."""
    from hybridtwin.physiology.circadian.common import hours_on
    from hybridtwin.priors import normal

    signals = {"light": hours_on(1000.0, "lux", 7.0, 23.0, 60)}
    if "wake" in REGISTRY[name].spec.signals:
        signals["wake"] = hours_on(1.0, "1", 7.0, 23.0, 60)
    day = Person.of("regular", start=0.0, stop=1440.0, time="h", signals=signals)
    typical = REGISTRY[name]().typical().values()
    body = REGISTRY[name](**{p: typical[p] for p in REGISTRY[name]().priors() if p != "late"}, late=normal(0.0, 6.0))
    at = np.append(np.arange(0.0, 72.0, 0.1), np.arange(1392.0, 1440.0, 0.05))
    found = simulate(body, day, at=at, draws=60, key=1)
    phase = daily(found, body)
    first, last = phase[:, 1] % 24.0, np.array([row[np.isfinite(row)][-1] for row in phase]) % 24.0
    print(f"{name}: spread of DLMO on day 2 {np.ptp(first):.3g} h, on day 60 {np.ptp(last):.2g} h")
    assert np.ptp(first) > 4.0 and np.ptp(last) < 0.01


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["Forger99", "Jewett99", "Hannay19", "Hannay19TP"])
def test_a_recorded_week_of_light_by_the_minute(shared_data, name):
    """Each minute's light acts from the minute before until its own, from the first midnight on."""
    told = json.loads(shared_data("circadian/recordings/model_response_tum_participant.json").read_text())
    with gzip.open(shared_data("circadian/recordings/tum_participant_actlumus_1min.csv.gz"), "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["local_time"] >= told["time_zero"]]
    lux = np.array([float(row["photopic_lux"] or 0.0) for row in rows])
    minute = np.arange(len(lux)) / 60.0
    expected, spec = told["models"][name], REGISTRY[name].spec
    light = Signal.steps(minute[:-1], lux[1:], "lux")
    day = Person.of("tum", start=0.0, stop=float(minute[-1]), time="h", signals={"light": light})
    start = {f"{path}0": v for path, v in zip(STATES[name], expected["initial_condition"], strict=True)}
    body = REGISTRY[name](**start).typical()
    found = simulate(body, day, at=minute, tol=1e-6)
    ours, theirs = daily(found, body)[0], np.array(expected["dlmo_h"])
    end = np.array([found[path][0, -1] for path in spec.states])
    off, last = np.abs(ours[: len(theirs)] - theirs).max(), np.abs(end - expected["final_state"]).max()
    print(f"{name}: DLMO of {len(theirs)} days within {off:.3f} h, final state within {last:.2g}")
    assert off < 0.02 and last < 1e-4


@pytest.mark.heavy
def test_morning_light_advances_melatonin_in_a_contrast():
    """A twin of one body with phase readings: an hour of bright light after the minimum of temperature advances the clock."""
    import hybridtwin as ht

    model = ht.Model(Forger99(), x=ht.sensors.Gaussian("x", sd=0.1))
    light = Signal.steps([0.0, 8.0, 23.0, 32.0, 47.0, 56.0, 71.0], [0.0, 100.0, 0.0, 100.0, 0.0, 100.0, 0.0], "lux")
    blank = Person.of("ida", start=0.0, stop=84.0, time="h", signals={"light": light})
    seen = np.arange(2.0, 48.0, 4.0)
    truth = simulate(Forger99(taux=24.35, G=33.75, late=1.0), blank, at=seen)["x"][0]
    ida = Person.of("ida", start=0.0, stop=84.0, time="h", signals={"light": light}, readings={"x": (seen, truth, "1")})
    twin = ht.personalize(model, ida, ht.Laplace(), key=0)
    bright = twin.do(light=Signal.constant(5000.0, "lux"), start=32.0, stop=35.0)
    effect = ht.contrast(bright, twin, dlmo(Forger99, 72.0, 84.0))
    print(effect)
    row = effect.to_dataframe().iloc[0]
    assert row["unit"] == "h" and -0.4 < row["difference"] < -0.1 and row["q95"] < 0.0
    assert row["sd_ratio"] < 0.8, "her readings narrow the answer"
