"""The population that a cohort was drawn from, as it was inferred: typical values, spread, correlations, error, and what
a pharmacometrician reads off them.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist

from hybridtwin.coordinates import around, natural, normal_based
from hybridtwin.engine import double
from hybridtwin.fit import Part, unit_of
from hybridtwin.inference.pooled import LOG_2PI, Group, Pool
from hybridtwin.model import Model
from hybridtwin.pooling import Pooling, block
from hybridtwin.priors import lognormal, normal
from hybridtwin.varying import Drift

_WORDS = {"typical": "typical value", "omega": "between-person sd", "corr": "correlation", "shared": "shared",
          "sensor": "error", "spread": "within-person sd"}  # fmt: skip


@functools.lru_cache(maxsize=64)
def _over_draws(pool: Pool, name: str):
    """A method of the pool, compiled over draws (n, p)."""
    return jax.jit(jax.vmap(getattr(pool, name)))


@dataclasses.dataclass(frozen=True, eq=False)
class Population:
    """What a cohort has in common, inferred by `personalize(model, cohort, FOCEI() or NUTS(), key=...)`.

    `estimates`: parameter -> number in natural units (the maximum of the likelihood, or posterior medians): typical values
    under the parameter's own name, `omega.X` (between-person sd on the eta scale), `corr.X.Y`, shared parameters and those of
    the sensors. `objective` is NONMEM's: -2 log marginal likelihood without its constant N log(2 pi).
    """

    pool: Pool
    groups: tuple[Group, ...]
    ids: tuple[str, ...]
    method: Any
    u: np.ndarray  # (p,) the estimate as coordinates
    covariance: np.ndarray  # (p, p) of the coordinates; NaN where nothing is known
    robust: np.ndarray  # (p, p) sandwich estimate; NaN where there is none
    draws: np.ndarray | None  # (C, N, p) draws of the coordinates
    modes: tuple[Any, ...]  # conditional.Modes of each group at u
    stats: Mapping[str, Any]
    computed: Part
    substeps: int = 1

    # ------------------------------------------------------------------ numbers

    @property
    def model(self) -> Model:
        """The model that was fitted to the cohort."""
        return self.pool.model

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the estimates."""
        return tuple(self.estimates)

    @functools.cached_property
    def samples(self) -> dict[str, np.ndarray] | None:
        """Posterior draws in natural units, name -> (n,); None where the method made none."""
        if self.draws is None:
            return None
        with double():
            values = _over_draws(self.pool, "values")(self.draws.reshape(-1, self.draws.shape[-1]))
        return {name: np.asarray(values[name]) for name in self.pool.names}

    @functools.cached_property
    def estimates(self) -> dict[str, float]:
        """Parameter -> estimate in natural units."""
        if self.samples is not None:
            return {name: float(np.median(v)) for name, v in self.samples.items()}
        with double():
            return {name: float(v) for name, v in self.pool.values(self.u).items()}

    @functools.cached_property
    def _jacobian(self):
        with double():
            slopes = jax.jacfwd(self.pool.values)(self.u)
        return np.array([slopes[name] for name in self.names]).reshape(len(self.names), len(self.u))

    def errors(self, *, robust: bool = False) -> dict[str, float]:
        """Parameter -> standard error (of the posterior, its standard deviation); `robust`: of the sandwich estimate."""
        if self.samples is not None and not robust:
            return {name: float(np.std(v, ddof=1)) for name, v in self.samples.items()}
        covariance = self.robust if robust else self.covariance
        known = np.isfinite(np.diag(covariance))
        variance = np.einsum("np,pq,nq->n", self._jacobian, np.nan_to_num(covariance), self._jacobian)
        lost = (np.abs(self._jacobian[:, ~known]) > 0).any(axis=1)
        error = np.where(lost, np.nan, np.sqrt(np.maximum(variance, 0.0)))
        return dict(zip(self.names, map(float, error), strict=True))

    def interval(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Parameter -> central interval: of the draws, or of the normal approximation on the coordinates."""
        if self.samples is not None:
            tails = [(1 - level) / 2, (1 + level) / 2]
            found = {name: np.quantile(v, tails) for name, v in self.samples.items()}
            return {name: (float(low), float(high)) for name, (low, high) in found.items()}
        from scipy.special import ndtri

        reach, errors, found = float(ndtri((1 + level) / 2)), self.errors(), {}
        for name, value in self.estimates.items():
            found[name] = _bounds(self, name, value, reach * errors[name])
        return found

    @property
    def readings(self) -> int:
        """Number of readings in the likelihood."""
        return sum(problem.n_readings for group in self.groups for problem in group.problems)

    @property
    def objective(self) -> float:
        """NONMEM's objective function value at the estimate."""
        return float(sum(np.sum(m.objective) for m in self.modes))

    @functools.cached_property
    def fit_measures(self) -> dict[str, float]:
        """Objective, -2 log likelihood with its constant, AIC and BIC (n: readings), and the condition number.

        The constant is that of the readings with a Gaussian density: one that is censored or counted has none (as in NONMEM).
        """
        gaussian = sum(problem.n_gaussian for group in self.groups for problem in group.problems)
        whole, free = self.objective + gaussian * LOG_2PI, len(self.u)
        spread = self.covariance[np.ix_(*[np.isfinite(np.diag(self.covariance))] * 2)]
        ratio = float("nan")
        if len(spread):
            sd = np.sqrt(np.diag(spread))
            values = np.linalg.eigvalsh(spread / np.outer(sd, sd))
            ratio = float(values[-1] / values[0])
        return {"objective": self.objective, "minus2LL": whole, "AIC": whole + 2 * free,
                "BIC": whole + free * float(np.log(self.readings)), "condition_number": ratio}  # fmt: skip

    # ------------------------------------------------------------------ people

    @functools.cached_property
    def etas(self):
        """Empirical Bayes estimates of the random effects on the eta scale: a data frame, a row a person."""
        import pandas as pd

        return pd.DataFrame(
            self._placed([m.b for m in self.modes]), index=list(self.ids), columns=list(self.pool.omegas)
        )

    def _placed(self, effects):
        """Random effects on the eta scale (P, m) from standardized ones of each group, in the order of the cohort."""
        with double():
            root = np.asarray(self.pool.root(self.u))
        found, m = np.zeros((len(self.ids), len(root))), len(root)
        for group, b in zip(self.groups, effects, strict=True):
            found[group.rows] = b[:, :m] @ root.T
        return found

    @functools.cached_property
    def eta_covariances(self) -> np.ndarray:
        """Conditional covariance of everybody's random effects on the eta scale (P, m, m), given the population."""
        with double():
            root = np.asarray(self.pool.root(self.u))
        m, found = len(root), np.zeros((len(self.ids), len(root), len(root)))
        for group, modes in zip(self.groups, self.modes, strict=True):
            found[group.rows] = root @ np.linalg.inv(modes.curvature)[:, :m, :m] @ root.T
        return found

    @functools.cached_property
    def shrinkage(self) -> dict[str, float]:
        """Shrinkage in percent: of each random effect (1 - sd of the estimates / omega) and of each sensor's residuals.

        Above some 30 % plots of the estimates mislead (Savic and Karlsson 2009, doi:10.1208/s12248-009-9133-0).
        """
        with double():
            spreads = np.asarray(self.pool.spreads(self.u))
        found = {}
        for i, name in enumerate(self.pool.omegas):
            found[name] = 100 * (1 - _sd(self.etas.to_numpy()[:, i]) / float(spreads[i]))
        for name, frame in self.gof().table.groupby("sensor", sort=False):
            seen = frame["iwres"].dropna()
            found[f"{name} (residuals)"] = 100 * (1 - _sd(seen))
        return found

    # ------------------------------------------------------------------ what to do with it

    def person(self) -> Model:
        """The model of a new person of this population: what was inferred is the prior, correlations included.

        After `FOCEI` shared parameters and those of sensors are numbers; after `NUTS` they and the typical values stay as
        uncertain as the posterior left them.
        """
        with double():
            return person_model(self.pool, self.u, self.draws)

    def gof(self):
        """Goodness of fit: predictions and weighted residuals at every reading; see `GoodnessOfFit`."""
        from hybridtwin.inference.goodness import gof

        return gof(self)

    def vpc(self, *, key, **options):
        """A visual predictive check; see `goodness.vpc` for options."""
        from hybridtwin.inference.goodness import vpc

        return vpc(self, key=key, **options)

    def npde(self, *, key, replicates: int = 500):
        """Normalized prediction distribution errors; see `goodness.npde`."""
        from hybridtwin.inference.goodness import npde

        return npde(self, key=key, replicates=replicates)

    @functools.cached_property
    def table(self):
        """One row a parameter: estimate, standard error and relative one (percent), 95 % interval, CV, shrinkage, mixing.

        `se` is from the curvature of the objective, `se_robust` of the sandwich estimate that NONMEM prints.
        """
        import pandas as pd

        errors, interval, shrinkage, rows = self.errors(), self.interval(), self.shrinkage, []
        robust = None if self.draws is not None else self.errors(robust=True)
        for name, value in self.estimates.items():
            kind = _kind(self.pool, name)
            path = name.removeprefix("omega.")
            unit = "1" if kind in ("omega", "corr", "spread") else unit_of(self.model, name)
            row = {"parameter": name, "kind": _WORDS[kind], "unit": unit}
            row |= {
                "estimate": value,
                "se": errors[name],
                "rse_percent": 100 * errors[name] / abs(value) if value else np.nan,
            }
            row |= dict(zip(("q025", "q975"), interval[name], strict=True))
            row |= {} if robust is None else {"se_robust": robust[name]}
            logs = kind == "omega" and _is_log(self.pool.personal[path])
            row["cv_percent"] = 100 * float(np.sqrt(np.expm1(value**2))) if logs else np.nan
            row["shrinkage_percent"] = shrinkage.get(path, np.nan) if kind == "omega" else np.nan
            for word in ("rhat", "ess_bulk", "ess_tail"):
                if word in self.stats:
                    row[word] = float(self.stats[word].get(name, np.nan))
            rows.append(row)
        return pd.DataFrame(rows)

    def to_dataframe(self):
        """The same as `table`."""
        return self.table

    def plot(self):
        """Everybody's random effects with the population's spread; a matplotlib figure."""
        from hybridtwin.plots import population as pictures

        return pictures.population(self)

    def __repr__(self):
        how = f"{self.model.name}, {self.readings} readings, {type(self.method).__name__}"
        lines = [f"Population of {len(self.ids)} people ({how}): {self.computed.level}"]
        lines += [f"  {reason}" for reason in self.computed.reasons]
        steps = _halved(self.stats)
        lines += [f"  {steps}"] if steps else []
        measures = self.fit_measures
        lines.append(f"  objective {measures['objective']:.4f}, AIC {measures['AIC']:.1f}, BIC {measures['BIC']:.1f}")
        for row in self.table.to_dict("records"):
            extra = f", CV {row['cv_percent']:.0f} %" if np.isfinite(row["cv_percent"]) else ""
            extra += f", shrinkage {row['shrinkage_percent']:.0f} %" if np.isfinite(row["shrinkage_percent"]) else ""
            lines.append(
                f"  {row['parameter']:<16} {row['estimate']:.4g} ({row['q025']:.3g} to {row['q975']:.3g}) {row['unit']}, "
                f"RSE {row['rse_percent']:.0f} %{extra}"
            )
        return "\n".join(lines)


def _sd(x) -> float:
    """Standard deviation; NaN of one alone."""
    return float(np.std(x, ddof=1)) if len(x) > 1 else float("nan")


def _halved(stats) -> str:
    """What halving the steps does to a fit, in words; nothing where steps are exact."""
    if stats.get("mesh_change"):
        return (f"half the steps change the objective by {stats['mesh_change']:.2g}, no estimate by more than "
                f"{stats['mesh_move']:.2g} standard errors")  # fmt: skip
    if stats.get("mesh_sd"):
        return (f"under half the steps {100 * stats['mesh_share']:.0f} % of the draws count; most changed is "
                f"{stats['mesh_worst']} (log likelihood, sd {stats['mesh_sd']:.2g})")  # fmt: skip
    return ""


def _is_log(prior) -> bool:
    return isinstance(prior, dist.LogNormal)


def _kind(pool: Pool, name: str) -> str:
    if name.startswith("corr."):
        return "corr"
    return next(site.kind for site in pool.sites if site.name == name)


def _bounds(population, name, value, reach):
    """Interval of a maximum-likelihood estimate: on the logarithm where a parameter is positive, else on its own scale."""
    kind = _kind(population.pool, name)
    if kind == "corr":
        z, width = np.arctanh(value), reach / max(1 - value**2, 1e-12)
        return float(np.tanh(z - width)), float(np.tanh(z + width))
    prior = population.pool.personal.get(name)
    site = next((s for s in population.pool.sites if s.name == name), None)
    positive = kind in ("omega", "spread") or (prior is not None and _is_log(prior))
    positive = positive or (kind in ("sensor", "shared") and getattr(site.prior.support, "lower_bound", None) == 0.0)
    if positive and value > 0:
        factor = np.exp(reach / value)
        return float(value / factor), float(value * factor)
    return float(value - reach), float(value + reach)


def person_model(pool: Pool, u, draws=None) -> Model:
    """The model of one person of the population at u (p,), or of one whose population has these draws (C, N, p)."""
    model, omegas = pool.model, list(pool.omegas)
    flat = None if draws is None else draws.reshape(-1, draws.shape[-1])
    if flat is None:
        typical, unsure = {p: float(v) for p, v in pool.typical(u).items()}, {}
        root = np.asarray(pool.root(u))
        omega = root @ root.T
    else:
        each = _over_draws(pool, "typical")(flat)
        typical = {p: float(np.mean(v)) for p, v in each.items()}
        unsure = {p: float(np.std(v)) for p, v in each.items()}
        roots = np.asarray(_over_draws(pool, "root")(flat))
        centers = np.array([np.broadcast_to(np.asarray(each[p]), len(flat)) for p in omegas]).reshape(
            len(omegas), len(flat)
        )
        omega = np.einsum("nij,nkj->ik", roots, roots) / len(flat) + np.cov(centers).reshape(len(omegas), len(omegas))
    sds = np.sqrt(np.diag(omega))
    leaves = {}
    for path, prior in pool.personal.items():
        at = omegas.index(path) if path in omegas else None
        spread = (
            unsure.get(path, 0.0) if at is None else sds[at]
        )  # without a random effect only the typical value is unsure
        leaves[path] = around(prior, typical[path], spread) if spread else float(natural(prior, typical[path]))
    common = _common(pool, u, flat)
    leaves |= {name: v for name, v in common.items() if pool.common[name].kind == "system"}
    sensors = {}
    for name, sensor in model.sensors.items():
        own = {path: common[f"{name}.{path}"] for path in sensor.priors()}
        sensors[name] = sensor.with_values(own)
    varies = dict(model.varies)
    for path, group in model.varying:
        if group in ("day", "occasion"):
            made = (group, common.get(f"{path}@{group}.spread", model.spread(path)))
            varies[path] = Drift(*made) if model.drifts(path) else made
    blocks = []
    for one in pool.pooling.blocks:
        at = [omegas.index(p) for p in one.parameters]
        blocks.append(block(one.parameters, omega[np.ix_(at, at)]))
    blocked = {p for one in blocks for p in one.parameters}
    fixed = {p: float(s) for p, s in zip(omegas, sds, strict=True) if p not in blocked}
    known = Pooling([*blocks, fixed], {p: float(natural(pool.personal[p], typical[p])) for p in omegas})
    system = model.system.with_values(leaves)
    same: dict[str, Any] = {"name": model.name, "varies": varies, "noise": model.noise}
    return Model(system, start=model.start, pooling=known, **same, **sensors)


def _common(pool, u, flat):
    """Parameters that are one number for the cohort: that number, or a prior that stands for its draws."""
    if flat is None:
        values = pool.values(u)
        return {name: float(values[name]) for name in pool.common}
    found = {}
    values = _over_draws(pool, "values")(flat)
    for name, site in pool.common.items():
        base, drawn = normal_based(site.prior), np.asarray(values[name])
        if base is not None:
            column = flat[:, pool.place(name)]
            found[name] = around(site.prior, base[0] + base[1] * column.mean(), base[1] * column.std())
        elif (drawn > 0).all():
            found[name] = lognormal(float(np.exp(np.mean(np.log(drawn)))), float(np.std(np.log(drawn))))
        else:
            found[name] = normal(float(drawn.mean()), float(drawn.std()))
    return found
