"""Personalize a cohort to a pooled model: the population first or jointly, then a twin for everybody.

A twin's own model is that of a new person of the inferred population (`Population.person`), so that its prior is what the
others say, `Twin.mode` is the empirical Bayes estimate, and a contrast's "prior-only" answer is that of a person like them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin import progress as bars
from hybridtwin.engine import double, prepare
from hybridtwin.errors import DeclarationError, ParameterError, SolveError
from hybridtwin.fit import Judgment
from hybridtwin.inference import focei
from hybridtwin.inference.conditional import Marginal, Order
from hybridtwin.inference.kept import Sampled, Work
from hybridtwin.inference.methods import FOCEI, HMC, NUTS
from hybridtwin.inference.modes import laplace
from hybridtwin.inference.own import asked, finished, own_problems
from hybridtwin.inference.pooled import LOG_2PI, Group, Pool, gather
from hybridtwin.inference.population import Population
from hybridtwin.keys import as_key, folded, person_key
from hybridtwin.records import Cohort
from hybridtwin.twin import Twin, Twins

_FINEST = 16  # most sub-steps that the marginal likelihood is computed with
_STILL = 0.3  # change of the objective by halved steps at which a search may begin
_MATTERS = 0.1  # change by halved steps, of the objective or in standard errors, after which the search goes on with them


def personalize(models, cohort, method, *, key, temper=1.0, keep=None, progress=True) -> Twins:
    """See `inference.personalize.personalize`. **Raises:** DeclarationError, ParameterError for what cannot be pooled."""
    if not isinstance(cohort, Cohort):
        raise ParameterError(
            f"{type(method).__name__} pools a cohort; give an ht.Cohort, or use ht.Auto() or ht.NUTS() for one person."
        )
    if len(models) > 1:
        raise DeclarationError("several structures cannot be pooled in one call. Personalize the cohort to one model at a time.")
    if temper != 1:
        raise ParameterError("temper is for a person alone: a pooled likelihood is not tempered. Leave it at 1.")
    if not isinstance(method, FOCEI | HMC | NUTS):
        raise ParameterError(
            f"a pooled model is fitted by ht.HMC(), ht.NUTS() or ht.FOCEI(), not by {type(method).__name__}. "
            "Without pooling each person is personalized alone."
        )
    prepare()
    root = as_key(key)
    people = list(cohort.values())
    with double(), bars.bar(f"pooling {len(people)} people", enabled=progress) as tell:
        pool, groups = gather(models[0], people)
        if not pool.size and not isinstance(method, FOCEI):
            raise ParameterError(
                "of this population nothing is left to infer. Personalize everybody alone, by ht.Auto(), or look at the "
                "population that was given by ht.FOCEI()."
            )
        work = Work.of(keep, pool, groups, root, method)
        if isinstance(method, FOCEI):
            population = _maximized(pool, groups, [p.id for p in people], method, tell, work)
            fits = _given_the_population(population, root)
        else:
            from hybridtwin.inference import joint

            population, fits = joint.sampled(pool, groups, [p.id for p in people], method, root, tell, work)
    seed = str(key) if isinstance(key, int | np.integer) else "key"
    twins = {p.id: Twin.of(p, [fits[i]], person_key(root, p.id), seed) for i, p in enumerate(people)}
    return Twins(twins, population)


def substeps_for(marginal: Marginal, u) -> int:
    """Fewest sub-steps at which halving them again leaves the objective as it is."""
    if all(group.kernel.stepper.refined() is None for group in marginal.groups):
        return 1
    steps, old = int(marginal.substeps), None
    while True:
        marginal.substeps = np.int32(steps)
        new = marginal.each(u)[0].sum()
        if old is not None and abs(new - old) < _STILL:
            return steps // 2
        if steps >= _FINEST:
            return steps
        old, steps = new, 2 * steps


class Halved(NamedTuple):
    """What halving the steps does to a maximum of the likelihood."""

    change: float  # of the objective, with everybody's mode found anew
    move: float  # of the estimate that would move most, in standard errors

    @property
    def matters(self) -> bool:
        return not (abs(self.change) < _MATTERS and self.move < _MATTERS)

    def __str__(self):
        return f"half the steps change the objective by {self.change:.2g} and an estimate by {self.move:.2g} standard errors"


def halved(marginal: Marginal, found: focei.Estimate) -> Halved:
    """The objective under half the steps, and where one Newton step from its gradient there would lead."""
    steps, warm = marginal.substeps, marginal.warm
    if all(group.kernel.stepper.refined() is None for group in marginal.groups):
        return Halved(0.0, 0.0)
    marginal.substeps = np.int32(2 * int(steps))
    marginal.settle(found.u)
    change, move = float(marginal.each(found.u)[0].sum()) - found.objective, 0.0
    at = np.flatnonzero(found.free)
    half = found.hessian[np.ix_(at, at)] / 2
    if len(at) and np.isfinite(half).all() and np.linalg.eigvalsh(half).min() > 0:
        inverse = np.linalg.inv(half)
        errors = np.ones(len(found.u))
        errors[at] = np.sqrt(np.diag(inverse))
        pull = (marginal.slopes(found.u, np.clip(1e-2 * errors, 1e-5, 1e-2)) - found.slopes).sum(axis=1)[at] / 2
        move = float(np.max(np.abs(inverse @ pull) / errors[at]))
    marginal.substeps, marginal.warm = steps, warm
    return Halved(change, move)


def _maximized(pool: Pool, groups: list[Group], ids, method: FOCEI, tell, work) -> Population:
    marginal = Marginal(pool, groups, method.laplace, order=Order(method.conditional, method.interaction))

    def report(done, total):
        tell(done, total, "")

    marginal.substeps = np.int32(substeps_for(marginal, pool.start))
    found = focei.maximize(marginal, report, method.rounds, work=work.part(0))
    if not np.isfinite(found.objective):
        raise SolveError("the marginal likelihood is not a number at the start. Check units and initial estimates with ht.check.")
    # the steps that serve the start may be too long for the optimum
    rounds, further = found.rounds, halved(marginal, found)
    while further.matters and int(marginal.substeps) < _FINEST:
        marginal.substeps = np.int32(2 * int(marginal.substeps))
        found = focei.maximize(marginal, report, method.rounds, found.u, work=work.part(int(marginal.substeps)))
        rounds, further = rounds + found.rounds, halved(marginal, found)
    modes = tuple(marginal.settle(found.u))
    judge = Judgment()
    if method.rounds:
        judge.above(found.left, 0.01, 1.0, f"the search stopped with {found.left:.2g} of the objective to gain")
    if further.matters:
        judge.say("CAUTION", f"the steps are too long: {further}")
    gone = float(1 - np.mean(np.concatenate([m.arrived for m in modes])))
    judge.above(gone, 0.0, 0.1, f"the conditional mode of {100 * gone:.0f} % of the people was not found")
    places = {s.name: pool.place(s.name) for s in pool.sites}
    held = [name for name, at in places.items() if found.u[at] <= found.low[at] + 1e-9]
    lost = [name for name, at in places.items() if not found.free[at] and name not in held]
    if lost and method.rounds:
        judge.say("CAUTION", f"the readings do not determine {', '.join(lost)}; fix it, or take it out of the random effects")
    if held and method.rounds:
        judge.say("CAUTION", f"{', '.join(held)} went to zero; fix it at 0 or take it out of the random effects")
    spreads = sum(s.kind == "omega" for s in pool.sites)
    if len(ids) <= spreads and method.rounds:
        judge.say("CAUTION", f"{len(ids)} people cannot tell {spreads} between-person spreads; fix them, or give more people")
    if not (held or lost) and not np.isfinite(found.covariance()).all():
        judge.say("CAUTION", "the curvature of the objective is not positive; standard errors are not known")
    stats = {"rounds": rounds, "left": found.left, "start": found.start,
             "mesh_change": further.change, "mesh_move": further.move}  # fmt: skip
    return Population(pool, tuple(groups), tuple(ids), method, found.u, found.covariance(), found.sandwich(), None, modes,
                      stats, judge.part, int(marginal.substeps))  # fmt: skip


def _given_the_population(population: Population, root):
    """Fits of everybody given the population: draws from the Gaussian at each conditional mode."""
    problems, fits, method = own_problems(population), {}, population.method
    for group, modes in zip(population.groups, population.modes, strict=True):
        drawn = []
        for p, place in enumerate(group.rows):
            problem, key = problems[place], person_key(root, population.ids[place])
            d, b = modes.b.shape[1], modes.b[p]
            fit = laplace(b, modes.curvature[p], -modes.joint[p] - 0.5 * (d + problem.n_gaussian) * LOG_2PI)
            noise = np.array(jax.random.normal(folded(key, 2), (method.draws, d), float))
            constant = 0.5 * d * np.log(2 * np.pi) + np.linalg.slogdet(fit.scale)[1]
            stats = {"log_proposal": -0.5 * np.sum(noise**2, axis=1) - constant, "rivals": 0.0, "gradient": 0.0}
            drawn.append(Sampled((b + noise @ fit.scale.T)[None], stats, [fit], problem.kernel.untempered()))
        # given the population, a person's own coordinates are her standardized effects
        b, u = np.stack([one.z[0] for one in drawn], axis=1), np.tile(population.u, (method.draws, 1))
        data, told = jax.tree.map(jnp.asarray, group.data), []
        for substeps in (population.substeps, 2 * population.substeps):
            exact = told and group.kernel.stepper.refined() is None
            told.append(told[0] if exact else asked(population.pool, group, data, u, b, substeps))
        fits |= finished(population, group, drawn, told, root)
    return fits
