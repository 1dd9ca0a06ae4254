"""Treatment policies in the model: decisions are readings of what care saw, and the graph shows the reason of a treatment."""

import numpy as np
import pytest
from scipy import stats

import hybridtwin as ht
from hybridtwin.errors import DeclarationError, RecordError
from hybridtwin.system import Scalar

BASE, FADE, OUT, LEVEL, SEES, SD, DOSE = 5.0, 0.08, 0.5, 6.0, 0.4, 0.3, 4.0


class Flare(ht.System):
    """A flare B that fades by itself and that a drug A takes down: dB/dt = -fade (B - base) - effect A, dA/dt = -out A."""

    time = "h"

    class State(ht.State):
        B: Scalar = ht.state("mg", "activity of the disease", positive=False)
        A: Scalar = ht.state("mg", "drug")

    class Input(ht.Input):
        drug: Scalar = ht.dose("mg", into="A")

    flare: Scalar = ht.parameter(ht.normal(0.0, 1.5), "mg", initial=True)
    effect: Scalar = ht.parameter(ht.normal(0.3, 0.15), "1/h")
    base: Scalar = ht.constant(BASE, "mg")
    fade: Scalar = ht.constant(FADE, "1/h")
    out: Scalar = ht.constant(OUT, "1/h")

    def rates(self, t, x, u):
        return self.State(B=-self.fade * (x.B - self.base) - self.effect * x.A, A=-self.out * x.A)

    def initial(self, u):
        return self.State(B=self.base + self.flare, A=0.0 * self.flare)


def activity(flare, effect, dose, t, at=1.0):
    """B in closed form: the flare fades; of the dose at 1 h a fraction is gone, the rest has acted."""
    gone = np.maximum(t - at, 0.0)
    acted = DOSE * effect * (np.exp(-FADE * gone) - np.exp(-OUT * gone)) / (OUT - FADE)
    return BASE + flare * np.exp(-FADE * t) - dose * acted


READ = np.array([6.0, 10.0])


def record(name, treated, values):
    doses = {"drug": ht.Regimen.bolus(DOSE, "mg", at=1.0)} if treated else {}
    return ht.Person.of(name, time="h", start=0.0, stop=10.0, doses=doses, readings={"activity": (READ, values, "mg")})


SENSOR = ht.sensors.Gaussian("B", sd=SD)
POLICY = ht.Decisions("B", dose="drug", every="24 h", first="1 h", above=True, level=LEVEL, error=SEES)


def test_the_density_is_that_of_readings_and_decisions():
    """Density at any body = prior, readings and one probit factor a look, against NumPy; unknown level and error included."""
    policy = ht.Decisions("B", dose="drug", every="2 h", above=True, level=ht.normal(LEVEL, 1.0), error=ht.lognormal(0.5, 0.3),
                          wait="5 h")  # fmt: skip
    person = ht.Person.of("kim", time="h", start=0.0, stop=10.0, doses={"drug": ht.Regimen.bolus(DOSE, "mg", at=2.0)},
                          readings={"activity": (READ, [4.0, 4.6], "mg")})  # fmt: skip
    problem = ht.Model(Flare(), activity=SENSOR, treated=policy).bind(person)
    seen = problem.bound.readings["treated"]
    np.testing.assert_allclose(seen.time, [2.0, 8.0])  # at 4 and 6 it waits
    np.testing.assert_allclose(seen.value, [1.0, 0.0])
    z = np.random.default_rng(0).normal(size=(12, 4))
    place = {name: i for i, name in enumerate(problem.kernel.names)}
    flare, effect = 1.5 * z[:, place["flare"]], 0.3 + 0.15 * z[:, place["effect"]]
    level, error = LEVEL + z[:, place["treated.level"]], 0.5 * np.exp(0.3 * z[:, place["treated.error"]])
    wanted = stats.norm.logpdf(z).sum(axis=1)
    for t, r in zip(READ, [4.0, 4.6], strict=True):
        wanted += stats.norm.logpdf(r, activity(flare, effect, 1.0, t, at=2.0), SD)
    for t, given in ((2.0, 1), (8.0, 0)):
        side = 1 if given else -1
        wanted += stats.norm.logcdf(side * (activity(flare, effect, 1.0, t, at=2.0) - level) / error)
    np.testing.assert_allclose(problem.density(z), wanted, rtol=1e-5, atol=1e-4)


def test_amounts_say_what_care_saw():
    """A dose chosen in proportion to what was seen, closed form: readings, amount and prior are all Gaussian in the flare."""
    policy = ht.Amounts("B", dose="drug", base=-2.0, gain=1.0, spread=0.5)
    person = ht.Person.of("kim", time="h", start=0.0, stop=10.0, doses={"drug": ht.Regimen.bolus(5.5, "mg", at=1.0)},
                          readings={"activity": (READ, [5.0, 4.6], "mg")})  # fmt: skip
    model = ht.Model(Flare(effect=0.25), activity=SENSOR, chosen=policy)
    twin = ht.personalize(model, person, ht.Laplace(draws=400, starts=1), key=0, progress=False)
    rows = np.append(np.exp(-FADE * READ), np.exp(-FADE))
    rest = np.append(activity(0.0, 0.25, 5.5 / DOSE, READ), BASE - 2.0)
    seen, sd = np.array([5.0, 4.6, 5.5]), np.array([SD, SD, 0.5])
    cov = 1.5**2 * np.outer(rows, rows) + np.diag(sd**2)
    assert twin.fits[0].log_evidence == pytest.approx(stats.multivariate_normal(rest, cov).logpdf(seen), abs=1e-5)
    assert twin.mode()["flare"] == pytest.approx(1.5**2 * rows @ np.linalg.solve(cov, seen - rest), abs=1e-5)
    both = ht.Model(Flare(), activity=SENSOR, treated=POLICY, chosen=policy)
    assert set(ht.graph(both).parents("drug")) == {"treated", "chosen"}


def clinic(count, rng):
    """People with a flare that nobody recorded: care saw it at 1 h, with its error, and treated the worse ones."""
    flare, effect = 1.5 * rng.normal(size=count), 0.3 + 0.15 * rng.normal(size=count)
    treated = activity(flare, effect, 0.0, 1.0) + SEES * rng.normal(size=count) > LEVEL
    values = activity(flare[:, None], effect[:, None], treated[:, None], READ) + SD * rng.normal(size=(count, 2))
    return effect, treated, [record(f"p{i}", treated[i], values[i]) for i in range(count)]


@pytest.mark.heavy
def test_a_reason_that_nobody_recorded_biases_and_the_policy_takes_the_bias_away():
    """Treated people's own effects: without the policy the dose takes the blame for the flare, with it nothing is left.

    By the law of total expectation the mean error of a right posterior mean is zero in any group chosen by what it was given.
    """
    effect, treated, people = clinic(160, np.random.default_rng(5))
    chosen = [p for p, t in zip(people, treated, strict=True) if t]
    method, errors = ht.Importance(draws=400, starts=2, batch=512), {}
    for name, sensors in {"ignored": {}, "held": {"treated": POLICY}}.items():
        twins = ht.personalize(ht.Model(Flare(), activity=SENSOR, **sensors), ht.Cohort(chosen), method, key=0, progress=False)
        found = np.array([twins[p.id].fits[0].values["effect"].mean() for p in chosen])
        errors[name] = found - effect[treated]
    mean, se = {n: e.mean() for n, e in errors.items()}, {n: e.std() / np.sqrt(len(e)) for n, e in errors.items()}
    assert mean["ignored"] < -4 * se["ignored"], (mean, se)
    assert abs(mean["held"]) < 2.5 * se["held"], (mean, se)
    assert np.mean(errors["held"] ** 2) < 0.8 * np.mean(errors["ignored"] ** 2)


@pytest.mark.heavy
def test_treated_or_not_says_how_bad_it_was():
    """Two people with the same readings: the one who was treated must have been worse, and her drug better; by a grid."""
    flare, effect = np.meshgrid(np.linspace(-6, 6, 601), np.linspace(-0.45, 1.05, 601), indexing="ij")
    values = np.array([5.0, 4.9])
    prior = stats.norm.logpdf(flare, 0, 1.5) + stats.norm.logpdf(effect, 0.3, 0.15)
    read = sum(stats.norm.logpdf(r, activity(flare, effect, 1.0, t), SD) for t, r in zip(READ, values, strict=True))
    saw = stats.norm.logcdf((activity(flare, effect, 0.0, 1.0) - LEVEL) / SEES)
    found = {}
    for name, sensors, height in (("ignored", {}, prior + read), ("held", {"treated": POLICY}, prior + read + saw)):
        weight = np.exp(height - height.max())
        weight /= weight.sum()
        model = ht.Model(Flare(), activity=SENSOR, **sensors)
        twin = ht.personalize(model, record("kim", True, values), ht.Importance(draws=2000, starts=2), key=0, progress=False)
        found[name] = twin.fits[0].values
        for site, grid in (("flare", flare), ("effect", effect)):
            mean = (weight * grid).sum()
            sd = np.sqrt((weight * (grid - mean) ** 2).sum())
            assert found[name][site].mean() == pytest.approx(mean, abs=0.12 * sd)
            assert found[name][site].std() == pytest.approx(sd, rel=0.1)
    assert found["held"]["flare"].mean() > found["ignored"]["flare"].mean() + 0.3
    assert found["held"]["effect"].mean() > found["ignored"]["effect"].mean()
    effect = ht.contrast(twin.do(drug=lambda d: 0.5 * d), twin, ht.outcomes.at("B", 6.0))
    assert "recorded drug was decided as the policy 'treated' says" in effect.assumptions
    assert "treated" not in twin.predict() and list(twin.counterfactual()) == ["activity"]
    assert np.array_equal(twin.do().counterfactual()["activity"].readings[0], values)


def test_the_graph_shows_the_reason_and_identify_reads_it():
    model = ht.Model(Flare(), activity=SENSOR, treated=POLICY)
    graph = ht.graph(model)
    assert graph.parents("drug") == ("treated",) and "B" in graph.parents("treated") and graph.nodes["treated"].kind == "policy"
    assert "drug" not in graph.exogenous and "drug[1]" in graph.unrolled(3).children("treated[1]")
    found = ht.identify(model, "drug", "B")
    assert not found.identified and "the policy 'treated'" in found.text and "treated[1]" in found.open_paths[0]
    assert ht.identify(ht.Model(Flare(), activity=SENSOR), "drug", "B").identified, "without it, it would be taken as randomized"


def test_policies_that_cannot_be():
    with pytest.raises(DeclarationError, match="no dose of Flare"):
        ht.Model(Flare(), treated=ht.Decisions("B", dose="drugs", level=1.0, error=1.0))
    with pytest.raises(DeclarationError, match="stretch of time"):
        ht.Model(Flare(), treated=ht.Decisions("B", dose="drug", level=1.0, error=1.0, every="0 h"))
    person = ht.Person.of("kim", time="h", start=0.0, stop=10.0, readings={"treated": (READ, [1.0, 0.0], "mg")})
    model = ht.Model(Flare(), activity=SENSOR, treated=POLICY)
    with pytest.raises(RecordError, match="is a policy"):
        model.bind(person)
    with pytest.raises(DeclarationError, match="decides on them by the body"):
        ht.calibrate(model, record("kim", True, [5.0, 4.9]), key=0)
    assert "treated" not in repr(ht.check(model, record("kim", True, [5.0, 4.9]), key=0))
