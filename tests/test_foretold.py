"""Doses foretold by readings beyond the model: what a hidden reason leaves in a record, and how often nothing is taken for it."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from small import drip_twin
from test_policies import Flare, activity
from test_refute import Gain

import hybridtwin as ht
from hybridtwin.causal import foretold
from hybridtwin.causal.foretold import Pair, how_much, judged, pairs_of, told, whether
from hybridtwin.causal.refute import refute
from hybridtwin.system import Scalar


def wave(count, rng, memory=0.85):
    """(N,) of unit variance, each with `memory` of the one before."""
    found = rng.standard_normal(count)
    for i in range(1, count):
        found[i] = memory * found[i - 1] + np.sqrt(1 - memory**2) * found[i]
    return found


def rhythm(rng, errors, seen):
    """Doses of 100 readings: a tenth of them at fixed distances, amounts by what was seen."""
    given = np.zeros(len(errors))
    given[::10] = np.exp(0.5 * seen[::10] + 0.2 * rng.standard_normal(len(seen[::10])))
    return given


@pytest.mark.parametrize("memory", [0.0, 0.7], ids=["white", "with a memory"])
def test_doses_that_nothing_foretells_are_told_so(memory):
    """Both tests hold their level for doses by lot and in a fixed rhythm, for errors with and without a memory."""
    rng, alarms = np.random.default_rng(0), []
    for _ in range(400):
        errors = wave(100, rng, memory)
        lot = np.where(rng.random(100) < 0.15, rng.lognormal(0.0, 0.5, 100), 0.0)
        fixed = rhythm(rng, errors, rng.standard_normal(100))
        alarms.append([whether(errors, lot) < 0.05, whether(errors, fixed) < 0.05, how_much(errors, fixed, rng) < 0.05])
    rates = np.mean(alarms, axis=0)
    assert (rates < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)).all() and (rates[[0, 2]] > 0.02).all(), rates


def test_a_hidden_reason_is_found_in_when_and_in_how_much():
    """The errors hold a state that care saw: half of their variance, seen with a third of its size as error."""
    rng, when, much = np.random.default_rng(1), [], []
    for _ in range(100):
        hidden = wave(100, rng)
        errors = np.sqrt(0.5) * (hidden + rng.standard_normal(100))
        seen = hidden + 0.3 * rng.standard_normal(100)
        when.append(whether(errors, (seen > 1.0).astype(float)) < 0.05)
        much.append(how_much(errors, rhythm(rng, errors, seen), rng) < 0.05)
    assert np.mean(when) > 0.7 and np.mean(much) > 0.3, (np.mean(when), np.mean(much))


def test_what_is_asked_and_how_it_is_told():
    rng = np.random.default_rng(2)
    errors, given = rng.standard_normal(60), np.zeros(60)
    none = judged([Pair("iv", "C", errors, given)], rng)
    assert none.fine and np.isnan(none.p) and told(none).startswith("not asked")
    given[np.argsort(errors)[-12:]] = 50.0
    one, two = Pair("iv", "C", errors, given), Pair("iv", "D", rng.permutation(errors), given)
    found = judged([one], rng)
    assert not found.fine and found.about == "whether" and found.tests == 1 and found.pair is one
    assert "readings of C in front of iv lie" in told(found) and "above the others" in told(found) and one.gap > 1.0
    assert "only who knows can tell" in told(found) and found.earlier > 0.05
    both = judged([one, two], rng)
    assert both.tests == 2 and both.p == pytest.approx(2 * found.p), "told for as many as were asked"
    every = judged([Pair("iv", "C", errors, 50.0 + 0 * errors)], rng)
    assert np.isnan(every.p), "a dose of the same amount after every reading says nothing of when"


def fitted(model, person):
    return ht.personalize(model, person, ht.Laplace(draws=100, starts=1), key=0, progress=False)


def test_a_dose_counts_for_the_reading_in_front_of_it():
    """By time, and by the record's order where the times are equal; repeats are doses of their own; errors are standardized."""
    times, values = np.arange(0.0, 24.0, 1.0), np.r_[1.0, np.full(23, 3.0)]
    doses = ht.Regimen.bolus([10.0, 20.0], "mg", at=[3.5, 6.0]) + ht.Regimen.bolus(5.0, "mg", at=9.2).every("12 h", times=2)
    person = ht.Person.of("ria", time="h", start=0.0, stop=24.0, doses={"iv": doses}, readings={"y": (times, values, "mg")})
    twin = fitted(ht.Model(Gain(g=0.0), y=ht.sensors.Gaussian("y", sd=0.5)), person)
    (pair,) = pairs_of(twin, ("iv",))
    bound = twin.fits[0].problem.bound
    given: Any = bound.inputs["iv"]
    first = {d.time: d.order for d in given.doses}[6.0]
    at_six = 6 if bound.readings["y"].order[6] <= first else 5
    wanted = np.zeros(24)
    wanted[[3, at_six, 9, 21]] = 10.0, 20.0, 5.0, 5.0
    np.testing.assert_array_equal(pair.given, wanted)
    base = np.mean(twin.fits[0].values["base"])
    np.testing.assert_allclose(pair.errors, (values - base) / 0.5, atol=1e-9)
    series = dataclasses.replace(person.series["y"], censored=np.r_[-1, np.zeros(23, int)])
    (other,) = pairs_of(fitted(twin.fits[0].model, dataclasses.replace(person, series={"y": series})), ("iv",))
    assert len(other.errors) == 23, "a reading below its limit has no error"


class Sugar(ht.System):
    """dG/dt = -k (G - base) + what is given."""

    time = "h"

    class State(ht.State):
        G: Scalar = ht.state("mg/dL")

    class Input(ht.Input):
        sugar: Scalar = ht.dose("mg/dL", into="G")

    base: Scalar = ht.parameter(ht.normal(100.0, 20.0), "mg/dL")
    k: Scalar = ht.constant(1.0, "1/h")

    def rates(self, t, x, u):
        return self.State(G=-self.k * (x.G - self.base))

    def initial(self, u):
        return self.State(G=self.base)


def test_readings_that_a_sensor_leaves_out_are_no_readings_here():
    """A CGM read every 5 min is used every 15: a dose stands behind the last one that was used."""
    times = np.arange(0.0, 12.0, 1 / 12)
    doses = ht.Regimen.bolus([10.0, 20.0], "mg/dL", at=[1.1, 6.2])
    rise = sum(a * np.exp(s - times) * (times >= s) for a, s in ((10.0, 1.1), (20.0, 6.2)))
    seen = 100.0 + rise + np.random.default_rng(0).standard_normal(144)
    person = ht.Person.of("uma", time="h", start=0.0, stop=12.0, doses={"sugar": doses},
                          readings={"cgm": (times, seen, "mg/dL")})  # fmt: skip
    twin = fitted(ht.Model(Sugar(), cgm=ht.sensors.CGM("G")), person)
    (pair,) = pairs_of(twin, ("sugar",))
    assert len(pair.errors) == 48 and np.abs(pair.errors).max() < 4.0
    np.testing.assert_array_equal(np.flatnonzero(pair.given), [4, 24])
    np.testing.assert_array_equal(pair.given[[4, 24]], [10.0, 20.0])


def test_refute_asks_it():
    lived = drip_twin()
    other = lived.do(iv=lambda b: 0.5 * b, start=8)
    found = refute(other, lived, ht.outcomes.mean("C", 12, 20), key=1, repeats=1, progress=False)
    check = found.checks[1]
    assert check.name == "doses foretold" and check.level == "OK" and check.reason.startswith("not asked: it needs 20 readings")


LOOKS = np.arange(0.5, 120.0, 1.0)


def somebody(name, care, rng):
    """120 readings of `Gain` (error 1 mg, gain 1) and doses of 4 to 6 mg: by lot, by a hidden wave of 1 mg in the readings, or by
    the last reading; never two within 2 h.
    """
    hidden = wave(len(LOOKS), rng) if care == "hidden" else np.zeros(len(LOOKS))
    base, given, read = 5.0 + 2.0 * rng.standard_normal(), [], []
    for t, more in zip(LOOKS, hidden, strict=True):
        rise = sum(a * 2.0 / 1.3 * (np.exp(-0.7 * (t - s)) - np.exp(-2.0 * (t - s))) for s, a in given)
        read.append(base + rise + more + rng.standard_normal())
        wanted = {"lot": rng.random() < 0.2, "hidden": more + 0.3 * rng.standard_normal() > 0.8}
        wanted["reads"] = read[-1] > base + 1.5
        if wanted[care] and (not given or t > given[-1][0] + 1.5):
            given.append((t + 0.25, 4.0 + 2.0 * rng.random()))
    times, amounts = zip(*given, strict=True)
    doses = ht.Regimen.bolus(list(amounts), "mg", at=list(times))
    return ht.Person.of(name, time="h", start=0.0, stop=120.0, doses={"iv": doses},
                        readings={"y": (LOOKS, np.array(read), "mg")})  # fmt: skip


@pytest.mark.heavy
def test_records_with_and_without_a_hidden_reason():
    """100 people each: 5 % are told where chance decides, most where care saw a hidden state; what the last reading decided is
    told, too (it does no harm), but never that the reading before it foretells.
    """
    told_of, earlier, gains = {}, {}, {}
    for care in ("lot", "hidden", "reads"):
        rng = np.random.default_rng(3)
        people = ht.Cohort(somebody(f"p{i}", care, rng) for i in range(100))
        model = ht.Model(Gain(), y=ht.sensors.Gaussian("y", sd=1.0))
        twins = ht.personalize(model, people, ht.Laplace(draws=40, starts=1), key=0, progress=False)
        found = [foretold.judged(pairs_of(twins[p], ("iv",)), np.random.default_rng(i)) for i, p in enumerate(people)]
        told_of[care] = np.mean([not one.fine for one in found])
        earlier[care] = np.mean([one.earlier < 0.05 for one in found])
        gains[care] = np.mean([twin.fits[0].values["g"].mean() for twin in twins.values()])
    assert told_of["lot"] <= 0.12 and told_of["hidden"] > 0.6, told_of
    assert earlier["reads"] <= 0.05 and earlier["hidden"] > earlier["reads"], earlier
    assert abs(gains["reads"] - 1.0) < 0.06 and gains["hidden"] > 1.2, "only a hidden reason biases the effect"


def test_decisions_of_a_policy_are_no_readings():
    rng = np.random.default_rng(4)
    times = np.arange(0.25, 24.0, 0.5)
    values = activity(4.0, 0.5, 1.0, times) + 0.3 * rng.standard_normal(48)
    policy = ht.Decisions("B", dose="drug", every="2 h", first="1 h", above=True, level=6.0, error=0.4)
    person = ht.Person.of("pia", time="h", start=0.0, stop=24.0, doses={"drug": ht.Regimen.bolus(4.0, "mg", at=1.0)},
                          readings={"activity": (times, values, "mg")})  # fmt: skip
    model = ht.Model(Flare(), activity=ht.sensors.Gaussian("B", sd=0.3), treated=policy)
    twin = fitted(model, person)
    assert [p.sensor for p in pairs_of(twin, ("drug",))] == ["activity"], "decisions are no readings"
