"""Quarter turns on straightened coordinates: against closed forms, and against the No-U-Turn sampler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import hybridtwin as ht
from hybridtwin.engine import double
from hybridtwin.errors import ParameterError
from hybridtwin.inference import diagnostics, joint, turning
from hybridtwin.inference.kept import Work
from hybridtwin.inference.pooled import Group
from hybridtwin.physiology import OneCompartmentOral
from hybridtwin.system import Input, Scalar, State, System


def test_turns_sample_what_is_not_quite_normal():
    """Student's t and normals of other widths than the turning takes them for, beside a standard normal."""
    widths, freedom = jnp.array([0.8, 1.0, 1.3]), 8.0

    def density(y, shift):
        return -0.5 * jnp.sum((y[:3] / widths) ** 2) - 0.5 * (freedom + 1) * jnp.log1p((y[3] - shift) ** 2 / freedom)

    with double():
        begin, go = turning.programs(density, 400)
        given = (jnp.asarray(0.5),)
        stand = begin(jnp.zeros((16, 4)), given)
        stand, _ = go(stand, jax.random.key(0), np.int32(2), given)
        _, out = go(stand, jax.random.key(1), np.int32(2), given)
    y = np.moveaxis(np.asarray(out.y), (0, 1, 2), (2, 1, 0))  # (4, C, n)
    assert np.asarray(out.accept).mean() > 0.8
    laws = [*(stats.norm(0, s) for s in (0.8, 1.0, 1.3)), stats.t(freedom, 0.5)]
    for draws, law in zip(y, laws, strict=True):
        count = diagnostics.ess_bulk(draws[None])[0]
        assert count > 0.3 * draws.size
        for q in (0.05, 0.25, 0.5, 0.75, 0.95):
            inside = draws < law.ppf(q)
            few = min(diagnostics.ess_bulk(inside.astype(float)[None])[0], inside.size)
            assert abs(inside.mean() - q) < 4 * np.sqrt(q * (1 - q) / few)


def test_steps_follow_acceptance():
    assert turning.steps_for(0.9, 3, 0.9) == 3
    assert turning.steps_for(0.5, 3, 0.9) == 6  # at most twice as many
    assert turning.steps_for(0.99, 4, 0.8) == 2
    assert turning.steps_for(1.0, 1, 0.8) == 1
    assert turning.steps_for(0.0, turning.MOST, 0.9) == turning.MOST


class Level(System):
    """A level that stays."""

    time = "h"

    class State(State):
        y: Scalar = ht.state("mg/L", positive=False)

    class Input(Input):
        pass

    level: Scalar = ht.parameter(ht.normal(1.0, 2.0), "mg/L", "level")

    def rates(self, t, x, u):
        return self.State(y=ht.const(0.0, "1/h") * x.y)

    def initial(self, u):
        return self.State(y=self.level)

    def outputs(self, x, u):
        return {"y": ht.output(x.y, "mg/L")}


def levels(omega=1.5, sd=0.8, counts=(1, 2, 3, 5, 8)):
    """(model, cohort, everybody's readings): known spread and error."""
    rng = np.random.default_rng(2)
    people, seen = [], []
    for i, n in enumerate(counts):
        y = 2.0 + omega * rng.normal() + sd * rng.normal(size=n)
        seen.append(y)
        readings = {"y": (np.linspace(0.5, 4.0, n), y, "mg/L")}
        people.append(ht.Person.of(str(i), start=0.0, stop=5.0, time="h", readings=readings))
    pooling = ht.Pooling(omega={"level": omega}, typical={"level": ht.normal(0.0, 4.0)})
    return ht.Model(Level(), y=ht.sensors.Gaussian("y", sd=sd), pooling=pooling), ht.Cohort(people), seen


def test_a_linear_population_is_the_normal_that_it_is():
    """Mean and covariance of population and people in closed form."""
    omega, sd = 1.5, 0.8
    model, cohort, seen = levels(omega, sd)
    twins = ht.personalize(model, cohort, ht.HMC(draws=500), key=0, progress=False)
    assert twins.population.computed.level == "OK"
    assert twins.population.stats["leapfrogs"] == 1.0  # nothing is left to step
    # theta and the levels together: prior precision plus that of the readings
    precision, pull = np.zeros((6, 6)), np.zeros(6)
    precision[0, 0] = 1 / 16
    for i, y in enumerate(seen, 1):
        precision[np.ix_([0, i], [0, i])] += np.array([[1, -1], [-1, 1]]) / omega**2
        precision[i, i] += len(y) / sd**2
        pull[i] = y.sum() / sd**2
    covariance = np.linalg.inv(precision)
    mean = covariance @ pull
    drawn = [twins.population.samples["level"], *(t.fits[0].values["level"] for t in twins.values())]
    found = np.stack([np.asarray(v).reshape(-1) for v in drawn])
    sds = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(found.mean(axis=1), mean, atol=4.5 * sds.max() / np.sqrt(2000))
    np.testing.assert_allclose(np.cov(found) / np.outer(sds, sds), covariance / np.outer(sds, sds), atol=0.12)


@pytest.mark.parametrize(("method", "rounds"), [(ht.HMC(draws=60, warmup=100, most=1), (1, 3, 5)), (ht.FOCEI(draws=20), (1, 2))])
def test_an_interrupted_population_goes_on_to_the_same_bits(method, rounds, tmp_path, monkeypatch):
    """Cut off in the search, in the warm-up, at its refitted coordinates, among the draws; or by a file half written."""
    model, cohort, _ = levels()
    whole = ht.personalize(model, cohort, method, key=3, progress=False)
    save = Work.save
    for k in rounds:
        left = [k]

        def broken(work, tree, left=left):
            save(work, tree)
            left[0] -= 1
            if not left[0]:
                raise RuntimeError("power is gone")

        monkeypatch.setattr(Work, "save", broken)
        with pytest.raises(RuntimeError, match="power"):
            ht.personalize(model, cohort, method, key=3, keep=tmp_path, progress=False)
        assert list(tmp_path.glob("*.npz"))
    monkeypatch.setattr(Work, "save", save)
    again = ht.personalize(model, cohort, method, key=3, keep=tmp_path, progress=False)
    np.testing.assert_array_equal(again.population.u, whole.population.u)
    for name, twin in whole.items():
        np.testing.assert_array_equal(again[name].fits[0].values["level"], twin.fits[0].values["level"])
    names = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    ht.personalize(model, cohort, method, key=4, keep=tmp_path, progress=False)
    assert len(set(tmp_path.glob("*.npz"))) == 2 * len(names)  # another key is other work


def test_whom_the_steps_change_is_told():
    """Weights are of the whole cohort; the person behind them is named."""
    rng = np.random.default_rng(0)
    coarse = np.zeros((400, 3))
    fine = np.stack([np.zeros(400), 0.01 * rng.normal(size=400), 1.5 * rng.normal(size=400)], axis=1)
    group = Group(None, (), None, np.array([2, 0, 1]))
    pick, told = joint._corrected([((coarse,), (fine,))], ("a", "b", "c"), [group], jax.random.key(0))
    assert told["mesh_worst"] == "b" and told["mesh_sd"] == pytest.approx(1.5, rel=0.1)
    assert told["mesh_share"] < 0.5 and len(set(pick.tolist())) < 300
    pick, told = joint._corrected([((coarse,), (coarse + 3.0,))], ("a", "b", "c"), [group], jax.random.key(0))
    assert told["mesh_share"] == pytest.approx(1.0) and pick.tolist() == list(range(400))


def test_one_person_is_not_pooled():
    person = ht.Person.of("a", start=0.0, stop=5.0, time="h", readings={"y": ([1.0], [2.0], "mg/L")})
    model = ht.Model(Level(), y=ht.sensors.Gaussian("y", sd=0.8))
    with pytest.raises(ParameterError, match=r"ht\.Cohort"):
        ht.personalize(model, person, ht.HMC(), key=0, progress=False)
    with pytest.raises(ParameterError, match="a target between"):
        ht.HMC(target=1.0)


def oral(people=8, seed=4):
    """People after one dose by mouth, and the model that made them."""
    rng, times = np.random.default_rng(seed), np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
    made = []
    for i in range(people):
        ka, cl, v = np.exp(np.log([1.2, 3.0, 30.0]) + np.array([0.4, 0.3, 0.2]) * rng.normal(size=3))
        k = cl / v
        c = 300 * ka / (v * (ka - k)) * (np.exp(-k * times) - np.exp(-ka * times)) + 0.4 * rng.normal(size=6)
        dose = ht.Regimen.bolus(300, "mg", at=0.0)
        readings = {"C": (times, c, "mg/L")}
        made.append(ht.Person.of(str(i), start=0.0, stop=24.0, time="h", doses={"oral": dose}, readings=readings))
    body = OneCompartmentOral(tlag=0.0, ka=ht.lognormal(1.2, 0.5), CL=ht.lognormal(3.0, 0.4), V=ht.lognormal(30.0, 0.3))
    sensor = ht.sensors.Gaussian("C", sd=ht.lognormal(0.5, 0.7))
    return ht.Model(body, C=sensor, pooling=ht.Pooling()), ht.Cohort(made)


@pytest.mark.heavy
def test_turns_and_no_u_turns_agree_where_people_are_few():
    """Eight people: spreads are wide and skewed, where coordinates are at their worst."""
    model, cohort = oral()
    ours = ht.personalize(model, cohort, ht.HMC(draws=1500), key=0, progress=False)
    other = ht.personalize(model, cohort, ht.NUTS(draws=800), key=1, progress=False)
    assert ours.population.computed.level == "OK", ours.population.computed

    def compared(a, b, chains_a=4, chains_b=4):
        for q in (0.05, 0.5, 0.95):
            at = np.quantile(np.concatenate([a, b]), q)
            one, two = (a < at).reshape(chains_a, -1).astype(float), (b < at).reshape(chains_b, -1).astype(float)
            ess = [min(diagnostics.ess_bulk(x[None])[0], x.size) for x in (one, two)]
            yield (one.mean() - two.mean()) / np.sqrt(q * (1 - q) * (1 / ess[0] + 1 / ess[1]))

    scores = []
    for name, values in ours.population.samples.items():
        scores += compared(values, other.population.samples[name])
    for name, twin in ours.items():
        for p in ("ka", "CL", "V"):
            scores += compared(twin.fits[0].values[p].reshape(-1), other[name].fits[0].values[p].reshape(-1))
    assert np.max(np.abs(scores)) < 4.5
    assert np.mean(np.square(scores)) < 1.6


@pytest.mark.heavy
def test_a_later_fit_compiles_nothing():
    """The population is an argument of every program, those that make everybody's twin too."""
    from jax import monitoring

    model, cohort = oral(people=4)
    method, told = ht.HMC(draws=40, warmup=50, most=1), []
    ht.personalize(model, cohort, method, key=0, progress=False)

    def listen(event, seconds, **_):
        told.extend([event] if "backend_compile" in event else [])

    monitoring.register_event_duration_secs_listener(listen)
    try:
        twins = ht.personalize(model, cohort, method, key=1, progress=False)
    finally:
        monitoring.unregister_event_duration_listener(listen)
    assert not told
    again = ht.personalize(model, cohort, method, key=1, progress=False)
    np.testing.assert_array_equal(again.population.draws, twins.population.draws)  # same key, same bits
    np.testing.assert_array_equal(again["0"].fits[0].values["ka"], twins["0"].fits[0].values["ka"])
