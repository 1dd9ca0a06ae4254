"""Variance-based indices of a function: first and total, and Shapley effects where its inputs are correlated.

    S_j = Var E[Y | X_j] / Var Y          T_j = E Var[Y | all but X_j] / Var Y
    Sh_j = sum over u without j of |u|! (d - |u| - 1)! / d! (c(u + j) - c(u)),   c(u) = Var E[Y | X_u] / Var Y

For independent inputs S_j <= Sh_j <= T_j, and the gap is interaction. Correlated inputs share what they do: S_j counts all
that X_j tells about Y, through others too, T_j only what it alone adds when the others are known, and T_j may be below S_j.
The Shapley effects divide what is shared evenly, are never negative, and sum to one in either case.

Source: Saltelli 2010, doi:10.1016/j.cpc.2009.09.018 (first); Jansen 1999, doi:10.1016/S0010-4655(98)00154-4 (total); Owen 2014,
doi:10.1137/130936233, and Song 2016, doi:10.1137/15M1048070 (Shapley effects); Janon 2014, doi:10.1051/ps/2013040 (pick-freeze).
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from hybridtwin.inference.readings import generator
from hybridtwin.keys import as_key

_RESAMPLED = 300  # bootstrap resamples behind an interval
_SUBSETS = 7  # factors up to which every subset is looked at
_ORDERS = 12  # permutations drawn where there are more


@dataclasses.dataclass(frozen=True, eq=False)
class Indices:
    """Indices of d factors: `first`, `total` and `shapley` (d, 3): estimate, 5 % and 95 % of resampling. `shapley` is None where
    factors are independent. `estimator`: which one; `evaluations`: of the function; `chance`: share that no factor explains.
    """

    first: np.ndarray
    total: np.ndarray
    shapley: np.ndarray | None
    estimator: str
    evaluations: int
    variance: float
    chance: float = 0.0


def _interval(estimate, resampled):
    low, high = np.nanquantile(resampled, [0.05, 0.95], axis=0)
    return np.stack([estimate, low, high], axis=-1)


def cube(rows: int, columns: int, rng) -> np.ndarray:
    """Scrambled Sobol points (rows, columns) in the open unit cube; `rows` a power of two."""
    from scipy.stats import qmc

    points = qmc.Sobol(columns, rng=rng).random(rows)
    return np.clip(points, 1e-12, 1 - 1e-12)


def independent(f: Callable, groups: Sequence[Sequence[int]], *, rows: int = 1024, key) -> Indices:
    """First and total indices of f over the unit cube by this library's own estimator (Saltelli 2010, Jansen 1999).

    **Arguments:** `f`: points (m, blocks of `rows`, columns) -> (m,); `groups`: columns of each factor.
    """
    columns, rng = sum(map(len, groups)), generator(as_key(key), 41)
    both = cube(rows, 2 * columns, rng)
    a, b = both[:, :columns], both[:, columns:]
    blocks = [a, b]
    for group in groups:
        mixed = a.copy()
        mixed[:, group] = b[:, group]
        blocks.append(mixed)
    y = np.asarray(f(np.concatenate(blocks)), float).reshape(len(blocks), rows)
    y = y[:, np.isfinite(y).all(axis=0)]

    def estimate(y):
        y = y - y[:2].mean()  # what a constant would add to the products' error
        variance = y[:2].var()
        return np.mean(y[1] * (y[2:] - y[0]), axis=1) / variance, np.mean((y[2:] - y[0]) ** 2, axis=1) / (2.0 * variance)

    first, total = estimate(y)
    drawn = [estimate(y[:, rng.integers(0, y.shape[1], y.shape[1])]) for _ in range(_RESAMPLED)]
    one, all_ = (_interval(e, np.stack([d[i] for d in drawn])) for i, e in enumerate((first, total)))
    return Indices(one, all_, None, "Saltelli 2010 and Jansen 1999", len(blocks) * rows, float(y[:2].var()))


def by_salib(f: Callable, groups: Sequence[Sequence[int]], *, rows: int = 1024, key) -> Indices:
    """The same by SALib, the reference implementation of these estimators (extra `explain`); intervals are its own, of 90 %."""
    from SALib.analyze import sobol as analyze
    from SALib.sample import sobol as sample

    columns = sum(map(len, groups))
    owner = {c: g for g, group in enumerate(groups) for c in group}
    problem = {"num_vars": columns, "names": [f"x{c}" for c in range(columns)], "bounds": [[0.0, 1.0]] * columns}
    if len(groups) < columns:
        problem["groups"] = [f"g{owner[c]}" for c in range(columns)]
    rng = generator(as_key(key), 43)
    points = sample.sample(problem, rows, calc_second_order=False, seed=int(rng.integers(2**31)))
    y = np.asarray(f(np.clip(points, 1e-12, 1 - 1e-12)), float)
    step = len(groups) + 2
    kept = np.isfinite(y.reshape(-1, step)).all(axis=1)
    y = y.reshape(-1, step)[kept].ravel()
    found = analyze.analyze(problem, y, calc_second_order=False, conf_level=0.9, seed=int(rng.integers(2**31)))
    order = list(dict.fromkeys(owner[c] for c in range(columns)))
    back = np.argsort(order)

    def interval(name):
        middle, half = np.asarray(found[name])[back], np.asarray(found[f"{name}_conf"])[back]
        return np.stack([middle, middle - half, middle + half], axis=-1)

    return Indices(interval("S1"), interval("ST"), None, "SALib", len(y), float(np.var(y)))


def correlated(
    f: Callable, correlation, groups: Sequence[Sequence[int]], *, rows: int = 512, key, chance: bool = False
) -> Indices:
    """First and total indices and Shapley effects of f over correlated standard normals, by freezing subsets of them.

    **Arguments:** `f`: normal scores (m, columns), in blocks of `rows`, -> (m,); `correlation` (columns, columns); `groups`:
    columns of each factor; `chance`: has f noise of its own, the same in each block? Its share is then told apart.

    Up to 7 factors every subset is frozen in turn; beyond, the Shapley effects are means over permutations drawn at random.
    """
    d, rng = len(groups), generator(as_key(key), 47)
    orders = None if d <= _SUBSETS else [rng.permutation(d) for _ in range(_ORDERS)]
    subsets = _wanted(d, orders)
    root = np.linalg.cholesky(correlation + 1e-12 * np.eye(len(correlation)))
    base = rng.standard_normal((rows, len(correlation))) @ root.T
    asked = [s for s in subsets if 0 < len(s) < d or (chance and not s)]
    blocks = [base, *(_frozen(base, correlation, sorted(c for g in s for c in groups[g]), rng) for s in asked)]
    y = np.asarray(f(np.concatenate(blocks)), float).reshape(len(blocks), rows)
    y = y[:, np.isfinite(y).all(axis=0)]

    def closed(y):
        found = {frozenset(): 0.0, frozenset(range(d)): 1.0}
        for s, other in zip(asked, y[1:], strict=True):
            middle = (y[0].mean() + other.mean()) / 2.0
            spread = np.mean(y[0] ** 2 + other**2) / 2.0 - middle**2
            found[s] = (np.mean(y[0] * other) - middle**2) / spread
        return found

    def estimate(y):
        c = closed(y)
        none, whole = c[frozenset()], frozenset(range(d))
        first = np.array([c[frozenset([j])] - none for j in range(d)])
        total = np.array([1.0 - c[whole - {j}] for j in range(d)])
        return first, total, _effects(c, d, orders), np.array(none)

    found = estimate(y)
    drawn = [estimate(y[:, rng.integers(0, y.shape[1], y.shape[1])]) for _ in range(_RESAMPLED)]
    first, total, effects = (_interval(e, np.stack([one[i] for one in drawn])) for i, e in enumerate(found[:3]))
    how = "pick-freeze on a Gaussian copula" + ("" if orders is None else f", {len(orders)} permutations")
    return Indices(first, total, effects, how, len(blocks) * rows, float(y[0].var()), float(found[3]))


def _wanted(d, orders) -> list[frozenset]:
    """The subsets that are frozen: all of them, or those of the permutations and what first and total indices need."""
    if orders is None:
        return [frozenset(s) for k in range(d + 1) for s in itertools.combinations(range(d), k)]
    found = [frozenset(map(int, order[:k])) for order in orders for k in range(d + 1)]
    found += [frozenset([j]) for j in range(d)] + [frozenset(range(d)) - {j} for j in range(d)]
    return list(dict.fromkeys(found))


def _effects(c, d, orders) -> np.ndarray:
    if orders is not None:
        gains = np.zeros((len(orders), d))
        for r, order in enumerate(orders):
            for k, j in enumerate(order):
                gains[r, j] = c[frozenset(map(int, order[: k + 1]))] - c[frozenset(map(int, order[:k]))]
        return gains.mean(axis=0)
    found = np.zeros(d)
    for j in range(d):
        for k in range(d):
            weight = math.factorial(k) * math.factorial(d - k - 1) / math.factorial(d)
            for u in itertools.combinations([i for i in range(d) if i != j], k):
                found[j] += weight * (c[frozenset([*u, j])] - c[frozenset(u)])
    return found


def _frozen(base, correlation, kept, rng) -> np.ndarray:
    """Other normal scores with the columns `kept` as they are and the others drawn given these."""
    free = [c for c in range(len(correlation)) if c not in kept]
    found = base.copy()
    if not free:
        return found
    within = correlation[np.ix_(free, free)]
    mean = np.zeros((len(base), len(free)))
    if kept:
        across = correlation[np.ix_(free, kept)]
        gain = np.linalg.solve(correlation[np.ix_(kept, kept)] + 1e-12 * np.eye(len(kept)), across.T).T
        mean, within = base[:, kept] @ gain.T, within - gain @ across.T
    values, vectors = np.linalg.eigh(within)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    found[:, free] = mean + rng.standard_normal((len(base), len(free))) @ root.T
    return found
