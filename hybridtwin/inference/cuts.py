"""A person's record cut at many times: the posterior of every cut, drawn anew only where an earlier one does not reach it.

From one cut to the next the readings of a few hours are added, and their posteriors are near each other: draws of the earlier,
weighed by what the readings in between say, are draws of the later. Pareto smoothing says how far that carries (approximate
leave-future-out: Bürkner, Gabry and Vehtari 2020, doi:10.1080/00949655.2020.1783262); where it does not, that cut is
personalized, and carries on from there. Only earlier posteriors are used: they are wider, which weights can mend, and what they
were drawn by has not seen what is to be predicted.

All cuts have one shape, so all of them run on the programs of one person.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from hybridtwin.engine import double, prepare, side_by_side
from hybridtwin.fit import Fit
from hybridtwin.inference import modes
from hybridtwin.inference.finish import Readings, judged
from hybridtwin.inference.importance import FEW
from hybridtwin.inference.kept import Sampled
from hybridtwin.inference.methods import Laplace, Variational
from hybridtwin.inference.personalize import Job, one_shape, until_fine
from hybridtwin.inference.psis import kish, limit, psis, resampled
from hybridtwin.inference.readings import densities, generator, read
from hybridtwin.kernel import Temper
from hybridtwin.keys import as_key, folded, person_key
from hybridtwin.model import Problem, bind
from hybridtwin.twin import Twin


def refits(models, people, method, *, key, temper) -> list[Twin]:
    """Twins of many records of one person, one each: the record cut at many times, in their order. Errors as in `personalize`.

    Where the method draws from the posterior itself, a cut is updated from an earlier one as far as that carries.
    """
    prepare()
    root = as_key(key)
    columns = [_column(model, people, method, folded(root, i), float(temper)) for i, model in enumerate(models)]
    pairs = zip(people, zip(*columns, strict=True), strict=True)
    return [Twin.of(person, fits, person_key(root, person.id), "key") for person, fits in pairs]


def _column(model, people, method, key, temper) -> list[Fit]:
    """The fits of one model to every cut."""
    keys, job = [person_key(key, person.id) for person in people], Job(method, temper, None, 1)
    with double():
        problems = one_shape([bind(model, person, padded=True) for person in people])

    def fitted(i):
        def fit(problems, rows, _):
            return dict(zip(rows, job.fit(problems, [keys[i]], lambda *_: None), strict=True))

        with double():
            return until_fine([problems[i]], fit)[0]

    found, rest = [fitted(0)], range(1, len(people))  # alone, so that its programs are compiled once
    if isinstance(method, Laplace | Variational):  # such draws are not of the posterior, so no weights lead from one to the next
        return found + side_by_side([functools.partial(fitted, i) for i in rest])
    with double():
        source = _Source.of(problems[0], found[0])
    strengths = side_by_side([functools.partial(_strength, problems[i], keys[i], found[0]) for i in rest])
    for i, strength in zip(rest, strengths, strict=True):
        with double():
            reach = source.reach(problems[i], strength)
            fit = reach.fit(generator(keys[i], 10), keys[i], method) if reach is not None and reach.trusted else fitted(i)
            if reach is None or not reach.trusted:
                source = _Source.of(problems[i], fit)
        found.append(fit)
    return found


def _strength(problem: Problem, key, near: Fit) -> Temper:
    """How much the readings of a cut count, as `personalize` finds it; the ascent begins at the mode of another cut."""
    kernel, power = problem.kernel, near.temper
    with double():
        if power == 1 or not len(kernel.scales) or kernel.size != len(near.peak):
            return kernel.untempered()._replace(power=np.float64(power))
        data, plain = _one(problem.data, kernel.untempered())
        found, _ = modes.search(kernel, data, [key], near.peak[None, None], plain, most=1)
        return modes.anchored(kernel, found[0][0], power)


@dataclasses.dataclass(frozen=True)
class _Source:
    """A posterior that was drawn from: `log_density` (n,) of its draws z (n, d), which are worth `count` independent ones."""

    fit: Fit
    z: np.ndarray
    log_density: np.ndarray
    count: float

    @classmethod
    def of(cls, problem: Problem, fit: Fit) -> "_Source":
        """From a fit and its problem in the shape of all cuts."""
        z = fit.z.reshape(-1, fit.z.shape[-1])
        worth = float(np.min(fit.stats["ess_bulk"])) if "ess_bulk" in fit.stats else float(fit.stats.get("ess", len(z)))
        own = problem.with_stepper(fit.kernel.stepper)
        return cls(fit, z, _densities(own, z, fit.strength), min(worth, len(z)))

    def reach(self, problem: Problem, strength: Temper) -> "_Reach | None":
        """Its draws weighed for a later cut; None where that has other unknowns, or where these draws are not to be used."""
        problem = problem.with_stepper(self.fit.kernel.stepper)
        if problem.kernel != self.fit.kernel or self.fit.parts["computed"].level == "DO NOT USE":
            return None
        ratio = _densities(problem, self.z, strength) - self.log_density
        smoothed, khat = psis(ratio)
        return _Reach(self, problem, strength, ratio, smoothed, float(khat))


@dataclasses.dataclass(frozen=True)
class _Reach:
    """The draws of a source, weighed for a cut."""

    source: _Source
    problem: Problem
    strength: Temper
    log_ratio: np.ndarray
    log_weights: np.ndarray
    khat: float

    @property
    def share(self) -> float:
        """Of the draws, how many count."""
        return float(kish(self.log_weights)) / len(self.log_weights)

    @property
    def trusted(self) -> bool:
        """May the weighted draws be taken for the posterior of the cut?"""
        return self.khat < limit(self.share) and self.share * self.source.count >= FEW

    def fit(self, rng, key, method) -> Fit:
        """The fit of the cut: draws of equal weight, judged by their weights and by the fit that they come from."""
        source, d = self.source, self.source.z.shape[1]
        z = source.z[resampled(rng, self.log_weights, len(source.z))]
        top = self.log_ratio.max()
        gain = float(top + np.log(np.mean(np.exp(self.log_ratio - top))))
        highest = source.z[np.argmax(self.log_ratio + source.log_density)]
        evidence = source.fit.log_evidence + gain
        mode = modes.LaplaceFit(highest, np.linalg.cholesky(np.cov(z.T) + 1e-12 * np.eye(d)), 0.0, evidence, 0)
        before = source.fit.problem.n_readings
        told = f"{before} readings to {self.problem.n_readings}: k-hat {self.khat:.2f}, {100 * self.share:.0f} % of draws count"
        stats: dict[str, Any] = {
            "khat": self.khat, "share": self.share, "ess": self.share * source.count, "pool": len(z), "drift": 0.0,
            "gradient": 0.0, "rivals": source.fit.stats["rivals"], "log_evidence": evidence, "stage": "update", "why": told,
        }  # fmt: skip
        at = jax.tree.map(lambda a: a[0], _read(self.problem, z, self.strength))
        # The draws are of the posterior under halved steps already: there is nothing to correct.
        readings = Readings(at.log_likelihood, at.log_likelihood, at.log_density, at.residuals)
        fit = judged(self.problem, Sampled(z[None], stats, [mode], self.strength), readings, key, method)
        known = fit.parts["computed"].join(source.fit.parts["computed"])
        return dataclasses.replace(fit, parts={**fit.parts, "computed": known})


def _one(*trees):
    return jax.tree.map(lambda a: np.asarray(a)[None], trees)


def _read(problem: Problem, z, strength):
    """Draws z (n, d) at the readings of a cut, under halved steps."""
    substeps = 1 if problem.kernel.stepper.refined() is None else 2
    return read(problem.kernel, z[None], *_one(problem.data, strength), substeps=substeps)


def _densities(problem: Problem, z, strength) -> np.ndarray:
    """Log density (n,) of the tempered posterior of a cut at z (n, d), under halved steps."""
    substeps = 1 if problem.kernel.stepper.refined() is None else 2
    return densities(problem.kernel, z[None], *_one(problem.data, strength), substeps=substeps)[0]
