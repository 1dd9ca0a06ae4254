"""Tumors: the law of the causal benchmarks met on its own paths, closed forms, and what treatment does."""

import jax
import numpy as np
import pytest

from hybridtwin.errors import DeclarationError, RecordError
from hybridtwin.interventions import Do
from hybridtwin.physiology import REGISTRY
from hybridtwin.physiology.reference import lived
from hybridtwin.records import Person
from hybridtwin.signals import Regimen, Signal
from hybridtwin.simulate.steppers import RK4
from hybridtwin.simulate.verb import simulate


def given(days, amount, unit):
    return Regimen.bolus(amount, unit, at=[float(d) for d in np.flatnonzero(days)])


def test_the_daily_law_meets_the_simulator_that_publishes_its_counterfactuals(shared_data):
    """lung_pkpd is noise free and starts a new path at every patient: volumes and drug to 1e-5 over 59 days."""
    stored = np.load(shared_data("tumour/lung_pkpd/cancer_seed1.npz"))
    states, actions = stored["test_states"][:3], stored["test_actions"][:3]
    law = REGISTRY["Geng2017Daily"](rho=0.01453, alpha=0.0398, beta_c=0.028, V0=1.0, dead_at=1e9)
    for path, done in zip(states, actions, strict=True):
        days = len(path)
        late = np.roll(done[:, 0] > 0, 1)  # there the drug of a day is in the next row; our dose is when it is in the blood
        late[0] = False
        doses = {"chemo": given(late, float(done[:, 0].max()) or 5.0, "mg/m^3"),
                 "radio": given(done[:, 1] > 0, float(done[:, 1].max()) or 2.0, "Gy")}  # fmt: skip
        doses = {name: regimen for name, regimen in doses.items() if len(regimen.doses)}
        day = Person.of("p", start=0.0, stop=float(days), time="d", doses=doses)
        found = simulate(law.with_values({"V0": float(path[0, 0])}), day, at=np.arange(days, dtype=float))
        np.testing.assert_allclose(found["volume"][0], path[:, 0], rtol=1e-5)


# ------------------------------------------------------------------------- the simulator of the causal benchmarks


class Benchmark:
    """Test patients of cancer_sim at one strength of confounding, as records and as what was stored of them."""

    def __init__(self, path):
        self.stored = dict(np.load(path))
        self.plans = {name: np.unpackbits(self.stored[name], axis=1)[:, :60] for name in ("chemo", "radio")}

    def law(self, i, **changes):
        values = {name: float(self.stored[name][i]) for name in ("alpha", "rho", "beta_c")}
        ratio = float(self.stored["alpha"][i]) / float(self.stored["beta"][i])
        return REGISTRY["Geng2017Daily"](V0=float(self.stored["volume"][i, 0]), ratio=ratio, **values).with_values(changes)

    def chance(self, i, begin=0):
        """The stored noise from a day on: that of day t + 1 acts on the day that begins at t."""
        noise = self.stored["noise"][i, begin + 1 :]
        return Signal.steps(np.arange(len(noise), dtype=float), noise.astype(float), "1/d")

    def lived(self, i, days=None, draw=1.0):
        """The record of a patient, all its treatment and noise in it."""
        doses = {"chemo": given(self.plans["chemo"][i], 5.0, "mg/m^3"), "radio": given(self.plans["radio"][i], 2.0, "Gy")}
        late = 64.0 if days is None else float(days)
        doses = {name: r.only(0.0, late) if len(r) else Regimen.none(r.unit) for name, r in doses.items()}
        draws = Signal.steps([-1.0, late - 1.0], [1.0, draw], "1")
        return Person.of(str(i), start=0.0, stop=late, time="d", doses=doses, signals={"noise": self.chance(i), "draw": draws})

    def factual(self, i):
        """(what was stored, our day by day): the last day of a path is that of death, of recovery, or the 59th."""
        path = self.stored["volume"][i, : int(self.stored["length"][i])].astype(float)
        day = self.lived(i, len(path) - 1, draw=0.0 if path[-1] == 0.0 else 1.0)
        return path, simulate(self.law(i), day, at=np.arange(len(path), dtype=float))

    def counterfactual(self, k):
        """(what was stored, ours by `do`, ours from the stored day on) of plan k, five days."""
        i, first = int(self.stored["cf_patient"][k]), int(self.stored["cf_t"][k]) + 1
        at, plan = first + 1.0 + np.arange(5), {}
        for name, amount, unit in (("chemo", 5.0, "mg/m^3"), ("radio", 2.0, "Gy")):
            bits = self.stored[f"cf_{name}"][k]
            plan[name] = Regimen.bolus(amount, unit, at=list(first + np.flatnonzero(bits).astype(float)))
        done = Do({**plan, "inside": 1e-7}, start=first)
        ours = simulate(self.law(i), self.lived(i), at=at, do=[done])["volume"][0]
        left = 5.0 * sum(float(c) * 0.5 ** (first - t) for t, c in enumerate(self.plans["chemo"][i, :first]))
        again = {"chemo": plan["chemo"].shift(-first, "d") + Regimen.bolus(left, "mg/m^3", at=0.0),
                 "radio": plan["radio"].shift(-first, "d")}  # fmt: skip
        rest = Person.of(str(i), start=0.0, stop=5.0, time="d", doses=again, signals={"noise": self.chance(i, first)})
        law = self.law(i, V0=float(self.stored["volume"][i, first]), inside=1e-7)
        return self.stored["cf_volume"][k].astype(float), ours, simulate(law, rest, at=at - first)["volume"][0]


def check_path(path, found):
    np.testing.assert_allclose(found["volume"][0], path, rtol=3e-5)
    died, recovered = path[-1] > 1150.3, path[-1] == 0.0
    assert found["dead"][0].max() == found["dead"][0, -1] == died
    assert found["recovered"][0].max() == found["recovered"][0, -1] == recovered


def check_plan(stored, ours, exact):
    np.testing.assert_allclose(exact, stored, rtol=5e-7)
    np.testing.assert_allclose(ours, stored, rtol=3e-5)  # from day 0 in numbers stored to seven digits


def test_paths_of_the_causal_benchmark_are_rebuilt_with_their_noise(shared_data):
    """Patients who live on, die and recover, and what other treatments would have done to them."""
    bench = Benchmark(shared_data("tumour/cancer_sim/gamma2_test.npz"))
    for i in (0, 83, 69, 38):  # 59 days, death, recovery by chance, nothing left
        check_path(*bench.factual(i))
    for k in (0, 7000, 14321, 22879):
        check_plan(*bench.counterfactual(k))


@pytest.mark.heavy
@pytest.mark.parametrize("gamma", [0, 2, 4])
def test_many_paths_of_the_causal_benchmark_are_rebuilt(shared_data, gamma):
    bench = Benchmark(shared_data(f"tumour/cancer_sim/gamma{gamma}_test.npz"))
    ends = np.array([bench.stored["volume"][i, n - 1] for i, n in enumerate(bench.stored["length"])])
    some = {*range(0, 1000, 5), *np.flatnonzero(ends > 1150.3), *np.flatnonzero(ends == 0.0)}
    for i in sorted(some):
        check_path(*bench.factual(int(i)))
    for k in range(0, len(bench.stored["cf_t"]), 61):
        check_plan(*bench.counterfactual(k))


def test_people_recover_as_often_as_their_chance_says(shared_data):
    """10000 people of the training set by the law's own rates: who dies is who reaches 13 cm, and recoveries are as many as
    the chances of their days add up to."""
    stored = dict(np.load(shared_data("tumour/cancer_sim/gamma2_train.npz")))
    law, some = REGISTRY["Geng2017Daily"](), np.flatnonzero(stored["length"] > 0)
    chemo, radio = (np.unpackbits(stored[n], axis=1)[:, :60].astype(float) for n in ("chemo", "radio"))
    drug = np.zeros_like(chemo)
    for t in range(60):
        drug[:, t] = 5.0 * chemo[:, t] + (0.5 * drug[:, t - 1] if t else 0.0)
    volume = stored["volume"].astype(float)
    person, day = np.nonzero(np.arange(59)[None, :] < stored["length"][:, None])

    def tomorrow(value, volume, drug, field):
        x = law.State(volume=volume, drug=drug, field=field, dead=0.0, recovered=0.0)
        body = law.typical().with_values(value)
        return volume + body.rates(0.0, x, law.Input(noise=0.0, draw=2.0 + 0.0 * volume)).volume

    with jax.enable_x64(True):
        own = {name: stored[name][person].astype(float) for name in ("alpha", "rho", "beta_c")}
        states = (a[person, day] for a in (volume, drug, 2.0 * radio))
        left = np.asarray(jax.vmap(tomorrow)(own, *states))
    chance = np.exp(-5.8e8 * left)
    ended = day + 1 == stored["length"][person]
    recovered = stored["recovered"][person] & ended
    spread = np.sqrt(np.sum(chance * (1.0 - chance)))
    assert abs(recovered.sum() - chance.sum()) < 4.0 * spread and recovered.sum() == stored["recovered"].sum() > 500
    assert set(person[stored["died"][person] & ended]) == set(some[volume[some, stored["length"][some]] > 1150.3])


def test_death_is_for_good_and_cure_is_a_chance():
    law = REGISTRY["Geng2017Daily"]
    sick = lived(law).again(parameters={"V0": 1100.0, "rho": 0.02}, doses={})
    day = np.argmax(sick["dead"])
    assert 0 < day < 10 and sick["dead"][day:].min() == 1.0
    np.testing.assert_allclose(sick["volume"][day:], 1150.3465099894624, rtol=1e-12)
    assert lived(law)["cured"].max() < 1e-12
    with pytest.raises(DeclarationError, match="difference equation"):
        simulate(law().typical(), law.protocol.person("d"), solver=RK4())


def test_untreated_growth_is_gompertz_and_a_fraction_is_linear_quadratic():
    typical = lived(REGISTRY["Geng2017"])
    body, day = typical.body, typical.protocol
    wild = typical.again(doses={})
    size = np.log(14.1 / body.K)
    np.testing.assert_allclose(np.log(wild["volume"] / body.K), size * np.exp(-body.rho * wild.time), rtol=1e-6)
    halved = simulate(body, day.person("d"), at=typical.time, do=[Do({"radio": lambda r: 0.5 * r})], tol=1e-5)
    assert typical["absorbed"][-1] == pytest.approx(60.0) and halved["absorbed"][0, -1] == pytest.approx(30.0)
    alone = typical.again(doses={"radio": Regimen.bolus(2.0, "Gy", at=1.0)})
    killed = float(body.alpha) * 2.0 * (1.0 + 2.0 / float(body.ratio))
    step = np.log(alone.at("volume", 1.5) / body.K) - np.log(wild.at("volume", 1.5) / body.K)
    np.testing.assert_allclose(step, -killed * np.exp(-body.rho * 0.5), rtol=1e-4)


def test_what_fox_saw_is_drawn_from_the_volume_at_which_irradiation_begins():
    """24.7 % less at 30 Gy and 44.3 % at 50 Gy of Gompertz' seven days, and of seven steps of the daily law."""
    largest, began, daily = np.pi / 6.0 * 30.0**3, 14.1, 14.1
    for _ in range(7):
        daily *= 1.0 + 0.0073 * np.log(largest / daily)
    wild = largest * np.exp(np.log(began / largest) * np.exp(-0.0073 * 7.0))
    for name, before in (("Geng2017", wild), ("Geng2017Daily", daily)):
        drawn = {r.drawn[1]: r.expected for r in REGISTRY[name].references if r.drawn}
        assert drawn == {26.5: pytest.approx(0.753 * before, abs=0.006), 40.5: pytest.approx(0.557 * before, abs=0.006)}
        absorbed = [np.sum([d.amount for d in REGISTRY[name].protocol.doses["radio"].doses if d.time <= t]) for t in drawn]
        np.testing.assert_allclose(absorbed, [30.0, 50.0])


def test_the_doubling_in_the_picture_is_that_of_exponential_growth():
    """ln 2 / l0, from the moment at which the typical tumor weighs .25 g."""
    (doubling,) = [r for r in REGISTRY["Simeoni2004"].references if r.drawn]
    wild = lived(REGISTRY["Simeoni2004"]).again(doses={})
    assert doubling.ours(wild) == pytest.approx(np.log(2.0) / 0.273, rel=1e-3)
    assert wild.at("weight", doubling.drawn[1].moment) == pytest.approx(0.25, rel=2e-3)


def test_inhibition_is_its_closed_form():
    found = lived(REGISTRY["Claret2009"])
    b, t = found.body, found.time
    exact = b.y0 * np.exp(b.KL * t - b.KD * 2.3 / b.lam * (1.0 - np.exp(-b.lam * t)))
    np.testing.assert_allclose(found["size"], exact, rtol=1e-5)


def test_resistance_begins_with_the_treatment_and_not_with_the_record():
    """Claret's exp(-lam t) counts from the first exposure, in every world; a pause does not undo it."""
    system = REGISTRY["Claret2009"]
    b, day = system().typical(), system.protocol.person("wk")
    at, late, pause = np.array([0.0, 6.0, 12.0, 20.0, 40.0, 52.0]), 12.0, (20.0, 30.0)
    held = lambda t: b.KD * 2.3 / b.lam * (1.0 - np.exp(-b.lam * np.maximum(t, 0.0)))
    later = simulate(b, day, at=at, do=[Do({"exposure": 0.0}, stop=late)], tol=1e-7)
    np.testing.assert_allclose(later["size"][0], b.y0 * np.exp(b.KL * at - held(at - late)), rtol=1e-6)
    np.testing.assert_allclose(later["response"][0], np.exp(-b.lam * np.maximum(at - late, 0.0)), rtol=1e-6)
    paused = simulate(b, day, at=at, do=[Do({"exposure": 0.0}, *pause)], tol=1e-7)
    missed = held(np.clip(at, *pause)) - held(pause[0])
    np.testing.assert_allclose(paused["size"][0], b.y0 * np.exp(b.KL * at - held(at) + missed), rtol=1e-6)
    naive = Person.of("n", start=0.0, stop=52.0, time="wk")
    begun = simulate(b, naive, at=at, do=[Do({"exposure": 2.3}, start=late)], tol=1e-7)
    np.testing.assert_allclose(begun["size"], later["size"], rtol=1e-6)


def test_cells_hit_by_the_drug_are_not_lost_at_once():
    """Above the threshold concentration nothing grows, and what was hit leaves through three stages."""
    found = lived(REGISTRY["Simeoni2004"])
    late = found.again(doses={"iv": Regimen.infusion(800.0, "mg/kg", at=8.0, over="10 d")})
    inside = (late.time > 9.0) & (late.time < 17.9)
    assert (late["C"][inside] > found.body.l0 / found.body.k2).all()
    assert (np.diff(late["growing"][inside]) < 0.0).all() and late["weight"][-1] < found.again(doses={})["weight"][-1]


@pytest.mark.parametrize("case", ["dose", "signal", "reading", "window"])
def test_what_falls_inside_a_step_of_a_difference_equation_is_refused(case):
    doses = {"chemo": Regimen.bolus(5.0, "mg/m^3", at=2.5 if case == "dose" else 2.0)}
    signals = {"noise": Signal.steps([0.0, 1.5 if case == "signal" else 2.0], [0.0, 0.1], "1/d")}
    person = Person.of("p", start=0.0, stop=10.0, time="d", doses=doses, signals=signals)
    do = [Do({"rho": 0.01}, start=3.25)] if case == "window" else ()
    with pytest.raises(RecordError, match=r"falls inside one.*whole number of steps"):
        simulate(REGISTRY["Geng2017Daily"]().typical(), person, at=[1.0, 4.5 if case == "reading" else 4.0], do=do)
