"""A trial and a clinic: where doses are randomized groups tell the truth, where care chose them by levels only the twins do."""

import numpy as np
import pytest

import hybridtwin as ht
from hybridtwin.physiology import OneCompartment

PEOPLE, FIRST, LOW, HIGH = 60, 200.0, 200.0, 400.0
READ = np.array([2.0, 8.0, 16.0, 24.0])


def levels(CL, V, second, t):
    """Concentration after a first dose at 0 and a second at 12, in closed form."""
    k = CL / V
    return (FIRST * np.exp(-k * t) + np.where(t >= 12, second * np.exp(-k * np.maximum(t - 12, 0.0)), 0.0)) / V


def exposure(CL, V, second):
    """Area from 12 to 36 h."""
    at_12 = FIRST * np.exp(-12 * CL / V) + second
    return at_12 / CL * (1 - np.exp(-24 * CL / V))


def people(randomized: bool, rng):
    """Bodies, the second dose of each, and their records: by lot, or the larger one where the level of 8 h is low."""
    CL, V = np.exp(rng.normal(np.log(4.0), 0.4, PEOPLE)), np.exp(rng.normal(np.log(40.0), 0.15, PEOPLE))
    seen = levels(CL[:, None], V[:, None], 0.0, READ[None, :2]) * np.exp(0.05 * rng.normal(size=(PEOPLE, 2)))
    treated = rng.random(PEOPLE) < 0.5 if randomized else seen[:, 1] < np.median(seen[:, 1])
    second = np.where(treated, HIGH, LOW)
    after = levels(CL[:, None], V[:, None], second[:, None], READ[None, 2:]) * np.exp(0.05 * rng.normal(size=(PEOPLE, 2)))
    records = [
        ht.Person.of(f"p{i}", time="h", start=0.0, stop=36.0, readings={"level": (READ, np.append(seen[i], after[i]), "mg/L")},
                     doses={"iv": ht.Regimen.bolus([FIRST, second[i]], "mg", at=[0.0, 12.0])})
        for i in range(PEOPLE)
    ]  # fmt: skip
    return CL, V, treated, records


@pytest.mark.parametrize("randomized", [True, False], ids=["trial", "clinic"])
def test_an_effect_by_groups_and_by_twins(randomized):
    CL, V, treated, records = people(randomized, np.random.default_rng(11))
    truth = float(np.mean(exposure(CL, V, HIGH) - exposure(CL, V, LOW)))
    outcome = exposure(CL, V, np.where(treated, HIGH, LOW))
    naive = outcome[treated].mean() - outcome[~treated].mean()
    error = np.sqrt(outcome[treated].var() / treated.sum() + outcome[~treated].var() / (~treated).sum())
    body = OneCompartment(CL=ht.lognormal(4.0, 0.4), V=ht.lognormal(40.0, 0.15))
    model = ht.Model(body, level=ht.sensors.LogNormal("C", sd=0.05))
    twins = ht.personalize(model, ht.Cohort(records), ht.Laplace(draws=100, starts=2), key=0, progress=False)
    high, low = (twins.do(iv=ht.Regimen.bolus(dose, "mg", at=12.0), start=11.0, stop=13.0) for dose in (HIGH, LOW))
    found = ht.contrast(high, low, ht.outcomes.auc("C", 12, 36, better="lower")).averages.iloc[0]
    assert found["average_q05"] < truth < found["average_q95"], "the twins"
    assert abs(found["average"] - truth) < 0.03 * truth
    if randomized:
        assert abs(naive - truth) < 2.5 * error, "a trial's groups"
    else:
        assert abs(naive - truth) > 0.5 * truth > 2.5 * error, "care chose: the groups differ in their bodies"
    reason = ht.identify(model, "iv", "C", decided_by=[] if randomized else ["level"])
    assert reason.identified and (reason.adjust_for == ()) == randomized
