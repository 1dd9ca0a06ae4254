"""Rival diagnoses on one circulation: undecided from pressure and pulse at rest, told apart after fluid and a look at flow."""

import functools

import numpy as np
import pytest

from hybridtwin import sensors
from hybridtwin.inference.compare import UNDECIDED, compare
from hybridtwin.inference.methods import Auto
from hybridtwin.model import Model
from hybridtwin.physiology import Zenker2007
from hybridtwin.records import Person
from hybridtwin.signals import Signal
from hybridtwin.simulate.verb import simulate
from hybridtwin.system import lognormal

BODIES = {
    "bleeding": Zenker2007(tau=20.0, blood=lognormal(3900.0, 0.06)),
    "failing pump": Zenker2007(tau=20.0, Wmin=13.0, Wmax=lognormal(35.0, 0.25)),
    "wide vessels": Zenker2007(tau=20.0, Rmin=0.27, Rmax=lognormal(0.9, 0.25)),
}
SENSORS = {"map": ("Pa", 4.0, "mmHg"), "hr": ("HR", 4.0, "bpm"), "output": ("CO", 0.5, "L/min")}
MINUTES = np.arange(5.0, 41.0)
PEOPLE = 2  # of each diagnosis


def models(*names):
    told = {name: sensors.Gaussian(SENSORS[name][0], sd=SENSORS[name][1]) for name in names}
    return {diagnosis: Model(body, name=diagnosis, **told) for diagnosis, body in BODIES.items()}


@functools.cache
def people(diagnosis):
    """Readings of drawn bodies whose pressure is low at minute 15; 500 mL run in during the ten minutes from then on."""
    fluid = {"infusion": Signal.steps([0.0, 15.0, 25.0], [0.0, 50.0, 0.0], "mL/min")}
    record = Person.of("bed", start=0.0, stop=40.0, time="min", signals=fluid)
    true = simulate(BODIES[diagnosis], record, at=MINUTES, draws=60, key=4)
    low = np.flatnonzero((true["Pa"][:, 10] > 52.0) & (true["Pa"][:, 10] < 62.0))[:PEOPLE]
    assert len(low) == PEOPLE
    found, rng = [], np.random.default_rng(6)
    for i in low:
        noisy = {n: true[of][i] + sd * rng.standard_normal(len(MINUTES)) for n, (of, sd, _) in SENSORS.items()}
        flow = (MINUTES[-1:], noisy["output"][-1:], "L/min")
        found.append({n: (MINUTES, noisy[n], SENSORS[n][2]) for n in ("map", "hr")} | {"output": flow})
    return record, found


def compared(diagnosis, which, *names, until=None):
    record, found = people(diagnosis)
    lived = record.with_readings({name: found[which][name] for name in names})
    lived = lived if until is None else lived.between(stop=until)
    return compare(models(*names), lived, Auto(), key=which, progress=False)


@pytest.mark.heavy
def test_after_the_challenge_the_evidence_favors_the_right_diagnosis():
    for diagnosis in BODIES:
        for which in range(PEOPLE):
            after = compared(diagnosis, which, "map", "hr", "output")
            assert after.candidates[0].name == diagnosis and after.answer in (diagnosis, UNDECIDED), after.text


@pytest.mark.heavy
def test_at_arrival_nobody_is_told_apart_and_fluid_alone_only_names_who_bleeds():
    for diagnosis in BODIES:
        at_rest = compared(diagnosis, 0, "map", "hr", until=15.0)
        assert at_rest.answer == UNDECIDED and len(at_rest.candidates) == 3, at_rest.text
        fluid = compared(diagnosis, 0, "map", "hr")
        if diagnosis == "bleeding":
            assert fluid.answer == diagnosis, fluid.text
        else:
            assert fluid.answer == UNDECIDED and fluid.candidates[-1].name == "bleeding", fluid.text
