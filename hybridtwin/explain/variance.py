"""Which parameters the uncertainty of an outcome comes from: indices of variance over the prior or the posterior.

Over a prior whose parameters are independent these are Sobol's indices (SALib where it is installed, else our own estimator).
Over a posterior parameters are correlated, because readings speak of several at once; then the margins are those of the
draws, what goes along with what is a Gaussian copula of their ranks, and beside first and total indices stand Shapley
effects, which sum to one.
"""

import dataclasses
import importlib.util

import numpy as np

from hybridtwin.coordinates import at_ranks, normal_based
from hybridtwin.engine import double
from hybridtwin.explain import indices
from hybridtwin.explain.players import settled
from hybridtwin.finding import Finding
from hybridtwin.fit import Fit
from hybridtwin.inference.readings import values_of
from hybridtwin.outcomes import Outcome, as_outcome
from hybridtwin.twin import simulate_worlds

_ROWS = 8192  # draws of one simulation


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Variance(Finding):
    """Indices of the factors of one structure; see `indices.Indices` for what they mean.

    `factors`: parameter names (a parameter of several occasions is one factor); `prior`: over the prior? `between`: share of the
    twin's variance that lies between its structures (0 for one).
    """

    outcome: Outcome
    structure: str
    factors: tuple[str, ...]
    found: indices.Indices
    prior: bool
    between: float = 0.0

    @property
    def table(self):
        """One row a factor: first and total index and, where factors are correlated, Shapley effect, with 90 % intervals."""
        import pandas as pd

        rows = []
        for i, name in enumerate(self.factors):
            row = {"parameter": name}
            for word, values in (("first", self.found.first), ("total", self.found.total), ("shapley", self.found.shapley)):
                if values is not None:
                    row |= {word: values[i, 0], f"{word}_q05": values[i, 1], f"{word}_q95": values[i, 2]}
            rows.append(row)
        return pd.DataFrame(rows)

    @property
    def main(self) -> np.ndarray:
        """The share of each factor that sums (nearly) to one: Shapley effect, or total index where factors are independent."""
        return (self.found.total if self.found.shapley is None else self.found.shapley)[:, 0]

    @property
    def text(self) -> str:
        """What the uncertainty comes from, in lines, and what the numbers mean."""
        over = "prior" if self.prior else "posterior"
        where = f" of {self.structure}" if self.structure else ""
        lines = [f"Where the variance of {self.outcome.label} over the {over}{where} comes from ({self.found.estimator}):"]
        for i in np.argsort(-self.main, kind="stable"):
            first, total = self.found.first[i], self.found.total[i]
            if self.found.shapley is None:
                told = f"alone {_percent(first)}, with interactions {_percent(total)}"
            else:
                share = _percent(self.found.shapley[i])
                told = f"share {share}, all it tells {_percent(first)}, it alone adds {_percent(total)}"
            lines.append(f"  {self.factors[i]}: {told}")
        if self.found.shapley is not None:
            lines.append("  Parameters are correlated: what two of them tell together is divided evenly in their shares.")
        if self.found.chance > 0.005:
            lines.append(f"  Chance of the day (noise, occasions): {100 * self.found.chance:.0f} %.")
        if self.between > 0.005:
            lines.append(f"  Between the structures: {100 * self.between:.0f} % of the whole variance.")
        return "\n".join(lines)


def _percent(row) -> str:
    middle, low, high = (100 * x if abs(x) >= 0.005 else 0.0 for x in row)  # no share of "-0 %"
    return f"{middle:.0f} % ({low:.0f} to {high:.0f})"


def variance(
    twin, outcome: Outcome, *, prior: bool = False, structure: int = 0, rows: int | None = None, salib: bool | None = None, key=0
) -> Variance:
    """Which parameters the uncertainty of an outcome comes from, in this world of the twin.

    **Arguments:** `prior`: over the prior instead of the posterior; `structure`: which model of the twin; `rows`: points a
    block (a power of two; default 1024 where independent, else 512); `salib`: use SALib for independent parameters (default
    where it is installed); `key`: of the points.

    **Raises:** DeclarationError, PastHorizon, SolveError.
    """
    outcome = as_outcome(outcome)
    fit = twin.fits[structure]
    names, groups, columns = _factors(fit)
    game = _Function(twin, structure, outcome, columns)
    if prior and not fit.model.correlated:
        ranks = _by_rank(fit, columns)
        has = importlib.util.find_spec("SALib") is not None if salib is None else salib
        by = indices.by_salib if has else indices.independent
        found = by(lambda u: game(ranks(u), rows or 1024), groups, rows=rows or 1024, key=key)
    else:
        z, total = _coordinates(fit, prior)[:, columns], rows or 512
        correlation, curves = _copula(z)
        chance = game.noisy
        found = indices.correlated(lambda g: game(curves(g), total), correlation, groups, rows=total, key=key, chance=chance)
    between = _between(twin, outcome) if len(twin.fits) > 1 and not prior else 0.0
    return Variance(settled(twin, outcome), fit.model.name if len(twin.fits) > 1 else "", names, found, prior, between)


def _factors(fit: Fit):
    """Names, columns of each factor among the chosen coordinates, and these coordinates' places; sensors have no say."""
    names, groups, columns, at = [], [], [], 0
    for site in fit.kernel.sites:
        if site.kind != "sensor":
            names.append(site.name)
            groups.append(list(range(len(columns), len(columns) + site.size)))
            columns += range(at, at + site.size)
        at += site.size
    return tuple(names), groups, columns


class _Function:
    """The outcome of a structure as a function of coordinates: (m, columns) -> (m,)."""

    def __init__(self, twin, structure, outcome, columns):
        self.outcome, self.columns, fit = outcome, columns, twin.fits[structure]
        self.center = np.median(fit.z.reshape(-1, fit.z.shape[-1]), axis=0)
        self.twin = dataclasses.replace(twin, fits=(fit,), days=(twin.days[structure],), shares=())
        of_day = any(s.kind in ("deviation", "amount", "time") for s in fit.kernel.sites)
        lived = self.twin.days[0].lived
        drawn = fit.model.spec.noise and not (lived and fit.kernel.layout.stretches)
        self.noisy = bool(drawn) or (of_day and not lived)

    def __call__(self, points, block):
        """Blocks of rows share their chance row by row, so each is solved by itself where there is any."""
        size = block if self.noisy else max(block, _ROWS // block * block)
        return np.concatenate([self._some(points[i : i + size]) for i in range(0, len(points), size)])

    def _some(self, points):
        z = np.tile(self.center, (len(points), 1))
        z[:, self.columns] = points
        return outcome_at(self.twin, 0, self.outcome, z)


def outcome_at(twin, structure: int, outcome: Outcome, z) -> np.ndarray:
    """The outcome (n,) of bodies at coordinates z (n, d) of one structure, in this world of the twin."""
    fit, day = twin.fits[structure], twin.days[structure]
    if not isinstance(day.start, str):  # states of draws: each is met at its median
        day = dataclasses.replace(day, start={path: float(np.median(v)) for path, v in day.start.items()})
    with double():
        values = values_of(fit.kernel, z)
    fit = dataclasses.replace(fit, values=values, z=np.asarray(z)[None])
    one = dataclasses.replace(twin, fits=(fit,), days=(day,), shares=(), draws=len(z))
    return outcome.of(simulate_worlds([one], names=(outcome.name,) if outcome.name else None)[0])


def _by_rank(fit, columns):
    """Ranks (m, columns) -> coordinates, by the quantiles of each prior."""
    from scipy.special import ndtri

    priors = [site.prior for site in fit.kernel.sites for _ in range(site.size)]
    drawn = _coordinates(fit, True)

    def one(place, u):
        if normal_based(priors[place]) is not None:
            return ndtri(u)
        found = at_ranks(priors[place], u)
        return np.quantile(drawn[:, place], u) if found is None else found

    return lambda ranks: np.stack([one(place, ranks[:, i]) for i, place in enumerate(columns)], axis=1)


def _coordinates(fit, prior) -> np.ndarray:
    """Draws as coordinates (n, d), of the posterior or of the prior."""
    if not prior:
        return fit.z.reshape(-1, fit.z.shape[-1])
    from hybridtwin.inference.readings import prior_draws
    from hybridtwin.keys import as_key

    with double():
        return prior_draws(fit.kernel, as_key(0), 2000)


def _copula(z):
    """Correlation (d, d) of the normal scores of draws z (n, d), and the way back from scores to coordinates."""
    from scipy.special import ndtr, ndtri

    n = len(z)
    level = (np.arange(n) + 0.5) / n
    scores = np.empty_like(z)
    for c in range(z.shape[1]):
        scores[np.argsort(z[:, c], kind="stable"), c] = ndtri(level)
    correlation = np.corrcoef(scores, rowvar=False).reshape(z.shape[1], z.shape[1])
    sorted_, center, spread = np.sort(z, axis=0), z.mean(axis=0), z.std(axis=0)
    edge = ndtri(level[-1])

    def back(g):
        found = np.empty_like(g)
        for c in range(g.shape[1]):
            inner = np.interp(ndtr(g[:, c]), level, sorted_[:, c])
            over = np.maximum(np.abs(g[:, c]) - edge, 0.0) * np.sign(g[:, c])  # beyond the last draw as a normal goes on
            found[:, c] = inner + over * spread[c]
        return found if np.all(spread > 0) else np.where(spread > 0, found, center)

    return correlation, back


def _between(twin, outcome) -> float:
    """Share of the variance that lies between structures."""
    course = simulate_worlds([twin], names=(outcome.name,) if outcome.name else None)[0]
    values = outcome.of(course)
    good = np.isfinite(values)
    values, structure = values[good], course.structure[good]
    means = np.select([structure == s for s in dict.fromkeys(structure)],
                      [values[structure == s].mean() for s in dict.fromkeys(structure)])  # fmt: skip
    return float(np.var(means) / np.var(values)) if np.var(values) > 0 else 0.0
