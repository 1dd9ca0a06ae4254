"""The posteriors of a record cut at many times: updates against Gaussian conditioning, and against refits."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from test_lived_noise import K, Wanders

import hybridtwin as ht
from hybridtwin.inference.cuts import refits
from hybridtwin.records import Person


def test_cuts_are_updated_where_an_earlier_one_reaches_them():
    """A Gaussian body: evidence, means and covariance of every cut by conditioning. Most are updates; none uses the future.

    y(t) = m (1 - f) + y0 f + dose, f = exp(-k t), errors of a known size; forty readings, nine cuts.
    """
    times = np.linspace(0.2, 8.0, 40)
    fade = np.exp(-K * times)
    design = np.stack([1 - fade, fade], axis=1)
    prior, start = np.diag([0.8**2, 1.0]), np.array([1.5, 3.0])
    read = design @ [2.1, 2.4] + 0.8 * np.random.default_rng(4).standard_normal(40)
    model = ht.Model(Wanders(), noise=False, y=ht.sensors.Gaussian("y", sd=0.8))
    whole = Person.of("nora", time="h", start=0.0, stop=8.0, readings={"y": (times, read, "mg")})
    ends = [2.0, 2.7, 3.4, 4.1, 4.8, 5.5, 6.2, 6.9, 7.6]
    cuts = [whole.between(None, t, readings_only=True) for t in ends]
    past = [one.fits[0] for one in refits([model], cuts, ht.Importance(draws=2000), key=0, temper=1.0)]
    assert [fit.stage for fit in past].count("update") >= 6 and past[0].stage == "Importance"
    for fit in past:
        n = fit.problem.n_readings
        a, y = design[:n], read[:n]
        gain = prior @ a.T @ np.linalg.inv(a @ prior @ a.T + 0.64 * np.eye(n))
        mean, cov = start + gain @ (y - a @ start), prior - gain @ a @ prior
        sd, few = np.sqrt(np.diag(cov)), 1 / np.sqrt(fit.stats["ess"])
        drawn = np.stack([fit.values["m"], fit.values["y0"]], axis=1)
        np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=4.5 * sd.max() * few)
        np.testing.assert_allclose(drawn.std(axis=0), sd, rtol=4.5 * few)
        evidence = stats.multivariate_normal(a @ start, a @ prior @ a.T + 0.64 * np.eye(n)).logpdf(y)
        assert fit.log_evidence == pytest.approx(evidence, abs=4.5 * few), fit.told()
        assert fit.parts["computed"].level == "OK"
    late = dataclasses.replace(whole.series["y"], value=np.where(times >= 5.5, read + 9.0, read))
    moved = [dataclasses.replace(whole, series={"y": late}).between(None, t, readings_only=True) for t in ends]
    other = [one.fits[0] for one in refits([model], moved, ht.Importance(draws=2000), key=0, temper=1.0)]
    assert all(np.array_equal(a.z, b.z) for a, b in zip(past[:6], other, strict=False)), "to the last bit"
    assert other[-1].stage == "Importance", "what no earlier posterior reaches is personalized"
