"""What a pharmacometrician looks at after a population fit: residuals, visual predictive checks, NPDE, individual curves.

Censored readings (below or above a limit) are treated as such everywhere: they have no residual, count by rank in percentiles,
and enter NPDE by a draw from what the model expects beyond the limit.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from hybridtwin.engine import double
from hybridtwin.errors import ParameterError
from hybridtwin.inference.pooled import Pool
from hybridtwin.kernel import Kernel, padded_to
from hybridtwin.keys import as_key, folded
from hybridtwin.simulate.mesh import lay
from hybridtwin.simulate.rules import FIRST, LAST
from hybridtwin.simulate.run import stack
from hybridtwin.simulate.steppers import Repeated

_PERCENTILES = (5.0, 50.0, 95.0)
_TILE = 16  # replicates of a cohort that are simulated in one call


# ---------------------------------------------------------------------------------------------- programs


def _here(kernel, substeps):
    return dataclasses.replace(kernel, stepper=Repeated(kernel.stepper, substeps))


@functools.lru_cache(maxsize=32)
def _predicted(pool: Pool, kernel: Kernel):
    """Compiled: (u, b (P, d), data, sub-steps) -> modelled values: sensor -> (P, N)."""

    def one(u, b, data, substeps):
        return _here(kernel, substeps).modelled(pool.constrain(kernel, pool.person(kernel, u, b)), data)

    return jax.jit(jax.vmap(one, (None, 0, 0, None)))


@functools.lru_cache(maxsize=32)
def _residuals(pool: Pool, kernel: Kernel):
    """Compiled: (u, b (P, d), data, sub-steps) -> (residual, log sd (P, N), slopes of the expectation over sd (P, N, d), is the
    row Gaussian? (P, N)).
    """

    def one(u, b, data, substeps):
        def rows(b):
            found = pool.rows(_here(kernel, substeps), pool.person(kernel, u, b), data)
            return found[:2], found[:2]

        (dr, ds), (residual, log_sd) = jax.jacfwd(rows, has_aux=True)(b)
        gaussian = jnp.concatenate([kernel.gaussian(name, data) for name in data.read])
        return residual, log_sd, -(dr + residual[:, None] * ds), gaussian

    return jax.jit(jax.vmap(one, (None, 0, 0, None)))


@functools.lru_cache(maxsize=32)
def _simulated(pool: Pool, kernel: Kernel):
    """Compiled: (keys (R,), u (R, p), data, sub-steps) -> readings of new people on everybody's design: sensor -> (R, P, N)."""

    def one(key, u, data, substeps):
        b = jax.random.normal(jax.random.fold_in(key, 0), (pool.effects(kernel),), float)
        values = pool.constrain(kernel, pool.person(kernel, u, b))
        modelled = _here(kernel, substeps).modelled(values, data)
        return {
            name: kernel.sensor_of(name, values).sample(jax.random.fold_in(key, 1 + i), modelled[name], data.seen[name])
            for i, name in enumerate(sorted(modelled))
        }

    def everybody(key, u, data, substeps):
        count = data.mesh.t.shape[0]
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count))
        return jax.vmap(one, (0, None, 0, None))(keys, u, data, substeps)

    return jax.jit(jax.vmap(everybody, (0, 0, None, None)))


def _replicates(population, key, count):
    """New cohorts on the same design: a list, group by group, of sensor -> (count, P, N)."""
    flat = None if population.draws is None else population.draws.reshape(-1, population.draws.shape[-1])
    at = np.linspace(0, (1 if flat is None else len(flat)) - 1, count).round().astype(int)
    us = np.broadcast_to(population.u, (count, len(population.u))) if flat is None else flat[at]
    found = []
    for g, group in enumerate(population.groups):
        program, parts = _simulated(population.pool, group.kernel), []
        keys = jax.random.split(folded(key, g), count)
        for i in range(0, count, _TILE):
            rows = np.minimum(np.arange(i, i + _TILE), count - 1)
            made = program(keys[rows], jnp.asarray(us[rows]), group.data, np.int32(population.substeps))
            parts.append({n: np.asarray(v)[: count - i] for n, v in made.items()})
        found.append({n: np.concatenate([p[n] for p in parts]) for n in parts[0]})
    return found


def _rows(population):
    """Every reading of the likelihood: (group, person in it, sensor, place, time, value, censored)."""
    for g, group in enumerate(population.groups):
        for p, problem in enumerate(group.problems):
            for name, index in problem.used.items():
                readings = problem.bound.readings[name]
                for n, i in enumerate(index):
                    yield g, p, name, n, float(readings.time[i]), float(readings.value[i]), int(readings.censored[i])


# ---------------------------------------------------------------------------------------------- goodness of fit


@dataclasses.dataclass(frozen=True, eq=False)
class GoodnessOfFit:
    """Predictions and weighted residuals at every reading.

    `table`: person, sensor, time, unit, dv, censored, pred (a typical person with her covariates and doses), ipred (at her own
    conditional mode), iwres ((dv - ipred) / sd), cwres (conditional weighted residuals, Hooker 2007,
    doi:10.1007/s11095-007-9361-x).
    """

    table: Any
    curves: Any  # person, sensor, time, pred, ipred on a fine grid

    def to_dataframe(self):
        """The same as `table`."""
        return self.table

    def plot(self):
        """DV against PRED and IPRED, CWRES against time and PRED, each with its trend; a matplotlib figure."""
        from hybridtwin.plots import population as pictures

        return pictures.goodness(self)

    def individuals(self, people=None):
        """Readings over everybody's own curve and the typical one; a matplotlib figure. `people`: ids, default the first 16."""
        from hybridtwin.plots import population as pictures

        return pictures.individuals(self, people)

    def __repr__(self):
        lines = [f"Goodness of fit at {len(self.table)} readings"]
        for name, frame in self.table.groupby("sensor", sort=False):
            seen = frame["cwres"].dropna()
            told = "no residuals"
            if len(seen) > 1:
                outside = 100 * float(np.mean(np.abs(seen) > 1.96))
                told = f"CWRES mean {seen.mean():+.2f}, sd {seen.std(ddof=1):.2f}, {outside:.0f} % beyond 1.96"
            lines.append(f"  {name}: {told} ({int((frame['censored'] != 0).sum())} censored)")
        return "\n".join(lines)


def gof(population) -> GoodnessOfFit:
    """Predictions and weighted residuals of a `Population` at every reading."""
    import pandas as pd

    parts = []
    with double():
        for group, modes in zip(population.groups, population.modes, strict=True):
            u, data, steps = (
                jnp.asarray(population.u),
                jax.tree.map(jnp.asarray, group.data),
                np.int32(population.substeps),
            )
            program = _predicted(population.pool, group.kernel)
            pred, ipred = ({n: np.asarray(v) for n, v in program(u, jnp.asarray(b), data, steps).items()}
                           for b in (np.zeros_like(modes.b), modes.b))  # fmt: skip
            program = _residuals(population.pool, group.kernel)
            residual, log_sd, slopes, gaussian = map(np.asarray, program(u, jnp.asarray(modes.b), data, steps))
            cwres = np.stack([_cwres(*one) for one in zip(residual, log_sd, slopes, gaussian, modes.b, strict=True)])
            at, places = 0, {}
            for name in pred:
                places[name] = at
                at += pred[name].shape[1]
            parts.append((pred, ipred, residual, cwres, gaussian, places))
        curves = _curves(population)
    rows = []
    for g, p, name, n, time, value, censored in _rows(population):
        pred, ipred, residual, cwres, gaussian, places = parts[g]
        at = places[name] + n
        plain = gaussian[p, at]  # what is censored or counted has no residual
        unit = population.model.unit_of(population.model.sensors[name].of)
        row = {"person": population.ids[population.groups[g].rows[p]], "sensor": name, "time": time, "unit": unit,
               "dv": value, "censored": censored, "pred": pred[name][p, n], "ipred": ipred[name][p, n]}  # fmt: skip
        rows.append(row | {"iwres": residual[p, at] if plain else np.nan, "cwres": cwres[p, at] if plain else np.nan})
    order = {name: i for i, name in enumerate(population.ids)}
    table = pd.DataFrame(rows)
    table = table.iloc[np.argsort(table["person"].map(order), kind="stable")].reset_index(drop=True)
    table.attrs["time"] = population.model.spec.time
    return GoodnessOfFit(table, curves)


def _cwres(residual, log_sd, slopes, gaussian, b):
    """Conditional weighted residuals (N,) of one person; rows without a Gaussian density stay 0."""
    rows = np.flatnonzero(gaussian)
    found = np.zeros(len(residual))
    if not len(rows):
        return found
    sd, f = np.exp(log_sd[rows]), slopes[rows]
    covariance = np.outer(sd, sd) * (np.eye(len(rows)) + f @ f.T)
    values, vectors = np.linalg.eigh(covariance)
    found[rows] = vectors @ ((vectors.T @ (sd * (residual[rows] + f @ b))) / np.sqrt(values))
    return found


def _curves(population, points: int = 80):
    """Typical and own modelled values of everybody on a grid over their record, a row a time."""
    import pandas as pd

    parts = []
    for group, modes in zip(population.groups, population.modes, strict=True):
        datas, grids = [], []
        for problem in group.problems:
            last = max(float(problem.bound.readings[n].time[i].max()) for n, i in problem.used.items())
            span = (problem.bound.start, max(last, problem.bound.start + 1e-9))
            reads = {(float(t), LAST) for t in np.linspace(*span, points)}
            doses = (d for n in problem.model.spec.doses for d in problem.lived.inputs[n].doses)
            for dose in (d for d in doses if span[0] <= d.time <= span[1]):
                reads |= {(float(dose.time), FIRST), (float(dose.time), LAST)}
            reads = sorted(reads)
            spec, kernel = problem.model.spec, problem.kernel
            step = (
                float(np.max(np.diff(problem.data.mesh.t), initial=1e-9))
                if kernel.stepper.refined() is not None
                else np.inf
            )
            mesh = lay([problem.lived], spec, kernel.layout, reads, max_step=step,
                       occasions=problem.occasions)[0]  # fmt: skip
            read = dict.fromkeys(group.data.read, mesh.read)
            datas.append(problem.data._replace(mesh=mesh, read=read))
            grids.append(np.array([t for t, _ in reads]))
        nodes, moving = (
            max(len(a) for a in c) for c in ([d.mesh.t for d in datas], [d.mesh.moving.time for d in datas])
        )
        most = max(len(d.mesh.read) for d in datas)
        width = dict.fromkeys(group.data.read, max(most, *(len(s.value) for d in datas for s in d.seen.values())))
        full = stack([padded_to(d, nodes, most, moving, width) for d in datas])
        program, u = _predicted(population.pool, group.kernel), jnp.asarray(population.u)
        pair = [
            program(u, jnp.asarray(b), full, np.int32(population.substeps)) for b in (np.zeros_like(modes.b), modes.b)
        ]
        for p, place in enumerate(group.rows):
            for name in group.problems[p].used:
                pred, ipred = (np.asarray(v[name])[p, : len(grids[p])] for v in pair)
                who = {"person": population.ids[place], "sensor": name, "time": grids[p]}
                parts.append(pd.DataFrame(who | {"pred": pred, "ipred": ipred}))
    return pd.concat(parts, ignore_index=True)


# ---------------------------------------------------------------------------------------------- visual predictive check


@dataclasses.dataclass(frozen=True, eq=False)
class VPC:
    """Percentiles of the readings over time beside those of simulated cohorts of the same design.

    `table`: sensor, bin, time (median), count, percentile, observed, and q05, q50, q95 of the simulated percentile; where
    readings are censored also rows of percentile NaN: the percentage beyond the limit. `readings`: what was seen, as compared.
    """

    table: Any
    readings: Any
    corrected: bool
    replicates: int
    units: dict[str, str]

    def inside(self) -> float:
        """Share of the observed percentiles inside their simulated 90 % interval."""
        known = self.table.dropna(subset=["percentile", "observed"])
        return float(np.mean((known["observed"] >= known["q05"]) & (known["observed"] <= known["q95"])))

    def to_dataframe(self):
        """The same as `table`."""
        return self.table

    def plot(self):
        """Readings, their percentiles, and the intervals of simulated ones; a matplotlib figure."""
        from hybridtwin.plots import population as pictures

        return pictures.vpc(self)

    def __repr__(self):
        how = "prediction-corrected visual predictive check" if self.corrected else "visual predictive check"
        return (f"{how[0].upper()}{how[1:]} of {len(self.readings)} readings, {self.replicates} simulated cohorts: "
                f"{100 * self.inside():.0f} % of the observed percentiles inside their 90 % interval")  # fmt: skip


def _edges(times, bins):
    """Edges of bins with about equally many readings; equal times stay together."""
    distinct = np.unique(times)
    if len(distinct) <= bins:
        middle = (distinct[1:] + distinct[:-1]) / 2
    else:
        inner = np.quantile(times, np.linspace(0, 1, bins + 1)[1:-1])
        after = np.clip(np.searchsorted(distinct, inner), 1, len(distinct) - 1)
        middle = np.unique((distinct[after - 1] + distinct[after]) / 2)
    return np.concatenate([[-np.inf], middle, [np.inf]])


def _percentile(values, q):
    """Percentile along the last axis where values may be -inf or inf (censored): NaN where it falls among those."""
    ranked = np.sort(values, axis=-1)
    place = q / 100 * (values.shape[-1] - 1)
    low, high = ranked[..., int(np.floor(place))], ranked[..., int(np.ceil(place))]
    with np.errstate(invalid="ignore"):
        found = low + (place - np.floor(place)) * (high - low) if high is not low else low
    return np.where(np.isfinite(low) & np.isfinite(high), found, np.nan)


def vpc(population, *, key, corrected: bool = False, replicates: int = 200, bins: int = 8) -> VPC:
    """A visual predictive check of a `Population`.

    **Arguments:** `corrected`: readings and simulations are scaled by the typical prediction of their bin over their own
    (Bergstrand 2011, doi:10.1208/s12248-011-9255-z), for doses and covariates that differ; `bins`: of equal counts, at most.
    After `NUTS` each simulated cohort has another draw of the population, after `FOCEI` its estimate.
    """
    import pandas as pd

    if replicates < 20 or bins < 1:
        raise ParameterError("a VPC needs replicates >= 20 and bins >= 1. Leave them out for the defaults.")
    with double():
        made = _replicates(population, folded(as_key(key), 21), replicates)
    frame = population.gof().table
    keyed = {(g, p, name, n): i for i, (g, p, name, n, *_) in enumerate(_rows(population))}
    order = {(population.ids[population.groups[g].rows[p]], name, n): at for (g, p, name, n), at in keyed.items()}
    place = frame.groupby(["person", "sensor"], sort=False).cumcount()
    simulated = np.empty((replicates, len(frame)))
    lookup = list(keyed)
    for row, (person, sensor, n) in enumerate(zip(frame["person"], frame["sensor"], place, strict=True)):
        g, p, name, n = lookup[order[(person, sensor, n)]]
        simulated[:, row] = made[g][name][:, p, n]
    rows, seen = [], []
    for name, part in frame.groupby("sensor", sort=False):
        found, points = _vpc_of(name, part, simulated[:, part.index], corrected, bins)
        rows += found
        seen.append(points)
    units = dict(zip(frame["sensor"], frame["unit"], strict=True))
    return VPC(pd.DataFrame(rows), pd.concat(seen, ignore_index=True), corrected, replicates, units)


def _vpc_of(name, part, simulated, corrected, bins):
    """Rows of one sensor's check, and its readings as compared."""
    times, dv, censored = (part[c].to_numpy() for c in ("time", "dv", "censored"))
    pred, edges = part["pred"].to_numpy(), _edges(times, bins)
    below = float(np.max(dv[censored < 0])) if (censored < 0).any() else -np.inf
    above = float(np.min(dv[censored > 0])) if (censored > 0).any() else np.inf
    # where limits differ the strictest is everybody's, in what was seen as in what is simulated
    values = np.where((censored < 0) | (dv < below), -np.inf, np.where((censored > 0) | (dv > above), np.inf, dv))
    simulated = np.where(simulated < below, -np.inf, np.where(simulated > above, np.inf, simulated))
    which, rows = np.searchsorted(edges, times, side="right") - 1, []
    factor = np.ones(len(times))
    for b in np.unique(which):
        at = which == b
        if corrected:
            middle = np.median(pred[at])
            factor[at] = np.where(np.abs(pred[at]) > 1e-12, middle / np.where(pred[at] == 0, 1, pred[at]), 1.0)
        mine, theirs = values[at] * factor[at], simulated[:, at] * factor[at]
        base = {"sensor": name, "bin": int(b), "time": float(np.median(times[at])), "count": int(at.sum())}
        for q in _PERCENTILES:
            each = _percentile(theirs, q)
            each = each[np.isfinite(each)]
            low, middle, high = np.quantile(each, [0.05, 0.5, 0.95]) if len(each) else (np.nan,) * 3
            rows.append(
                base
                | {"percentile": q, "observed": float(_percentile(mine, q)), "q05": low, "q50": middle, "q95": high}
            )
        if (censored != 0).any():
            low, middle, high = np.quantile(100 * np.mean(~np.isfinite(theirs), axis=1), [0.05, 0.5, 0.95])
            share = float(100 * np.mean(~np.isfinite(mine)))
            rows.append(base | {"percentile": np.nan, "observed": share, "q05": low, "q50": middle, "q95": high})
    return rows, part[["person", "sensor", "time", "censored"]].assign(value=dv * factor)


# ---------------------------------------------------------------------------------------------- NPDE


@dataclasses.dataclass(frozen=True, eq=False)
class NPDE:
    """Normalized prediction distribution errors: standard normal and independent if the model is right.

    `table`: person, sensor, time, pred, censored, pd (share of simulated readings below the reading), npde.
    """

    table: Any
    replicates: int

    def tests(self) -> dict[str, float]:
        """P values: mean 0 (t test), variance 1 (chi square), normality (Shapiro-Wilk), and the smallest times 3 (Bonferroni)."""
        from scipy import stats

        x = self.table["npde"].dropna().to_numpy()
        n = len(x)
        tail = stats.chi2.cdf((n - 1) * np.var(x, ddof=1), n - 1)
        found = {"mean": float(np.asarray(stats.ttest_1samp(x, 0.0))[1]), "variance": float(2 * min(tail, 1 - tail)),
                 "normality": float(stats.shapiro(x).pvalue)}  # fmt: skip
        return found | {"global": min(1.0, 3 * min(found.values()))}

    def to_dataframe(self):
        """The same as `table`."""
        return self.table

    def plot(self):
        """Quantiles against the normal's, histogram, and NPDE against time and prediction; a matplotlib figure."""
        from hybridtwin.plots import population as pictures

        return pictures.npde(self)

    def __repr__(self):
        x, p = self.table["npde"].dropna(), self.tests()
        return (f"NPDE of {len(x)} readings, {self.replicates} simulated cohorts: mean {x.mean():+.2f} (P {p['mean']:.2g}), "
                f"sd {x.std(ddof=1):.2f} (P {p['variance']:.2g}), normality P {p['normality']:.2g}")  # fmt: skip


def npde(population, *, key, replicates: int = 500) -> NPDE:
    """Normalized prediction distribution errors of a `Population` (Brendel 2006, doi:10.1007/s11095-006-9067-5).

    A censored reading is replaced by a draw from what the model expects beyond its limit (Nguyen 2012,
    doi:10.1007/s10928-012-9264-2). Counts, read and simulated, are spread evenly over the unit above them: ranks among ties would
    not be uniform.
    """
    import pandas as pd

    if replicates < 100:
        raise ParameterError("NPDE needs replicates >= 100. Leave them out for the default.")
    root = as_key(key)
    with double():
        made = _replicates(population, folded(root, 22), replicates)
    rng = np.random.default_rng(np.array(jax.random.key_data(folded(root, 23))))
    frame, parts = population.gof().table, []
    lookup = {
        population.ids[place]: (g, p) for g, group in enumerate(population.groups) for p, place in enumerate(group.rows)
    }
    for person, rows in frame.groupby("person", sort=False):
        g, p = lookup[person]
        place = rows.groupby("sensor", sort=False).cumcount()
        simulated = np.stack([made[g][s][:, p, n] for s, n in zip(rows["sensor"], place, strict=True)], axis=1)
        counts = np.array([not population.model.sensors[s].gaussian for s in rows["sensor"]])
        pd_, found = _npde_of(rows["dv"].to_numpy(), rows["censored"].to_numpy(), simulated, counts, rng)
        parts.append(rows[["person", "sensor", "time", "pred", "censored"]].assign(pd=pd_, npde=found))
    return NPDE(pd.concat(parts, ignore_index=True), replicates)


def _npde_of(dv, censored, simulated, counts, rng):
    """(pd, npde) of one person's readings (N,), against simulated ones (R, N); `counts` (N,): which are whole numbers."""
    count, y = len(simulated), dv.astype(float).copy()
    for i in np.flatnonzero(censored != 0):
        beyond = simulated[:, i] < dv[i] if censored[i] < 0 else simulated[:, i] > dv[i]
        if beyond.any():
            y[i] = rng.choice(simulated[beyond, i])
    if counts.any():
        y, simulated = (a + np.where(counts, rng.random(a.shape), 0.0) for a in (y, simulated))
    pd_ = (np.sum(simulated < y, axis=0) + 0.5) / (count + 1)
    middle, covariance = simulated.mean(axis=0), np.atleast_2d(np.cov(simulated.T))
    root = np.linalg.cholesky(covariance + 1e-12 * np.trace(covariance) * np.eye(len(y)))
    white = np.linalg.solve(root, (simulated - middle).T)
    own = np.linalg.solve(root, y - middle)
    pde = (np.sum(white < own[:, None], axis=1) + 0.5) / (count + 1)
    return pd_, ndtri(pde)
