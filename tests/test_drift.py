"""Parameters that drift: against the normal that a walk under log-normal readings is, alone and pooled."""

import math

import numpy as np
import pytest
from scipy import stats

import hybridtwin as ht
from hybridtwin.engine import double
from hybridtwin.inference.conditional import Marginal
from hybridtwin.inference.pooled import gather
from hybridtwin.system import Input, Scalar, State, System

SD, STEP, PRIOR = 0.2, 0.3, 0.5  # of a reading, of the walk, of the level, all of logarithms
DAYS, EACH = 6, 2


class Level(System):
    """A level that is read as it is."""

    time = "h"

    class State(State):
        one: Scalar = ht.state("1")

    class Input(Input):
        pass

    level: Scalar = ht.parameter(ht.lognormal(5.0, PRIOR), "mg/L", "level")

    def rates(self, t, x, u):
        return self.State(one=ht.const(0.0, "1/h") * x.one)

    def initial(self, u):
        return self.State(one=1.0)

    def outputs(self, x, u):
        return {"y": ht.output(self.level * x.one, "mg/L")}


def model(spread=STEP, **given):
    return ht.Model(Level(), y=ht.sensors.LogNormal("y", sd=SD), varies={"level": ht.drift("day", spread)}, **given)


def someone(name, seed, days=DAYS):
    """(record, logarithms of her levels (days,), of her readings (days, EACH))."""
    rng = np.random.default_rng(seed)
    walk = math.log(5.0) + PRIOR * rng.normal() + STEP * np.concatenate([[0.0], np.cumsum(rng.normal(size=days - 1))])
    seen = walk[:, None] + SD * rng.normal(size=(days, EACH))
    times = (24.0 * np.arange(days)[:, None] + np.array([8.0, 16.0])).ravel()
    readings = {"y": (times, np.exp(seen).ravel(), "mg/L")}
    return ht.Person.of(name, start=0.0, stop=24.0 * days, time="h", readings=readings), walk, seen


def covariance(days=DAYS):
    """Of the logarithms of the levels (days, days): the level's own, and the steps up to each day."""
    return PRIOR**2 + STEP**2 * np.minimum.outer(np.arange(days), np.arange(days))


def smoothed(seen):
    """Mean and covariance of the logarithms of the levels given the readings."""
    known = np.linalg.inv(covariance(len(seen))) + np.eye(len(seen)) * EACH / SD**2
    spread = np.linalg.inv(known)
    pull = (seen - math.log(5.0)).sum(axis=1) / SD**2
    return math.log(5.0) + spread @ pull, spread


@pytest.fixture(scope="module")
def walked():
    """(twin, mean, covariance) of one person; nothing is approximate in Laplace's method here."""
    person, _, seen = someone("a", 1)
    twin = ht.personalize(model(), person, ht.Laplace(draws=4000), key=0, progress=False)
    return twin, *smoothed(seen)


def logs(twin):
    """Logarithms of the levels of every draw (n, days)."""
    values = twin.fits[0].values
    steps = np.asarray(values["level@day"]).reshape(len(values["level"]), -1)
    walk = np.concatenate([np.zeros((len(steps), 1)), np.cumsum(steps, axis=1)], axis=1)
    return np.log(np.asarray(values["level"]))[:, None] + STEP * walk


def test_a_walk_under_lognormal_readings_is_the_normal_that_it_is(walked):
    twin, mean, spread = walked
    assert twin.fits[0].kernel.size == DAYS  # a level and one step a night
    assert twin.fits[0].stats["share"] > 0.99  # the approximation is the posterior
    found, sds = logs(twin), np.sqrt(np.diag(spread))
    np.testing.assert_allclose(found.mean(axis=0), mean, atol=4.5 * sds.max() / np.sqrt(len(found)))
    np.testing.assert_allclose(np.cov(found.T) / np.outer(sds, sds), spread / np.outer(sds, sds), atol=0.1)


def test_a_day_to_come_walks_on_from_the_last(walked):
    """Never from the first day, never without a step; the same steps in all worlds of that day."""
    twin, mean, spread = walked

    def level(other, at):
        return np.log(np.asarray(other.simulate(at=[at])["y"])).reshape(-1)

    ahead = twin.forecast("30 h")  # the lived record ends at midnight: one step, and a second at the next
    for hour, steps in ((6.0, 1), (26.0, 2)):
        found = level(ahead, 24.0 * DAYS + hour)
        wanted = math.sqrt(spread[-1, -1] + steps * STEP**2)
        assert found.mean() == pytest.approx(mean[-1], abs=5 * wanted / math.sqrt(len(found)))
        assert found.std() == pytest.approx(wanted, rel=0.1)
    np.testing.assert_array_equal(level(ahead, 24.0 * DAYS + 6.0), level(twin.forecast("30 h"), 24.0 * DAYS + 6.0))
    cut = twin.record.between(None, 24.0 * DAYS - 6.0)
    part = ht.personalize(model(), cut, ht.Laplace(draws=400), key=0, progress=False)
    late = level(part.forecast("3 h"), 24.0 * DAYS - 4.0)  # the same evening: no step
    np.testing.assert_allclose(late, level(part, 24.0 * DAYS - 6.1), rtol=1e-9)
    other = twin.on(ht.Person.of("a", start=0.0, stop=12.0, time="h"))  # a day of no known date is as the next
    assert level(other, 6.0).std() == pytest.approx(math.sqrt(spread[-1, -1] + STEP**2), rel=0.1)


@pytest.mark.heavy
def test_more_days_are_more_steps(walked):
    twin, _, _ = walked
    longer, _, seen = someone("a", 1, DAYS + 2)
    later = ht.update(twin, longer, key=1, progress=False)
    mean, _ = smoothed(seen)
    assert later.fits[0].kernel.size == DAYS + 2
    np.testing.assert_allclose(logs(later).mean(axis=0), mean, atol=0.03)
    one, _, _ = someone("a", 1, 1)
    assert model().bind(one).kernel.size == 1


@pytest.mark.heavy
def test_a_population_that_drifts():
    """The marginal likelihood in closed form, and the sd of the steps found again."""
    made = [someone(str(i), 10 + i) for i in range(12)]
    pooled = model(ht.lognormal(STEP, 0.7), omega={"level": ht.lognormal(PRIOR, 0.7)})
    with double():
        marginal = Marginal(*gather(pooled, [person for person, *_ in made]))
        found = marginal.each(marginal.pool.start)[0]
    wide = np.kron(covariance(), np.ones((EACH, EACH))) + SD**2 * np.eye(DAYS * EACH)
    law = stats.multivariate_normal(np.full(DAYS * EACH, math.log(5.0)), wide)
    exact = [-2 * (law.logpdf(seen.ravel()) - seen.sum()) - seen.size * math.log(2 * math.pi) for *_, seen in made]
    np.testing.assert_allclose(found, exact, rtol=1e-7)
    cohort = ht.Cohort([person for person, *_ in made])
    twins = ht.personalize(pooled, cohort, ht.FOCEI(draws=20), key=0, progress=False)
    found = twins.population
    assert found.estimates["level@day.spread"] == pytest.approx(STEP, abs=3 * found.errors()["level@day.spread"])
    assert found.person().drifts("level")
    assert found.person().spread("level") == pytest.approx(found.estimates["level@day.spread"])


def test_a_drift_is_checked():
    with pytest.raises(ht.errors.DeclarationError, match="Did you mean 'level'"):
        ht.Model(Level(), y=ht.sensors.LogNormal("y", sd=SD), varies={"levl": ht.drift("day", 0.1)})
    with pytest.raises(ht.errors.DeclarationError, match=r"ht\.drift"):
        ht.Model(Level(), y=ht.sensors.LogNormal("y", sd=SD), varies={"level": ht.drift("week", 0.1)})
    assert model().key != ht.Model(Level(), y=ht.sensors.LogNormal("y", sd=SD), varies={"level": ("day", STEP)}).key
