r"""Exact steps of linear systems: x(t + h) when dx/dt = A x + b over one segment.

With M = [[A, b], [0, 0]] h the answer is exp(M) [x, 1]. Two ways to it:

*Closed form*, where the eigenvalues of A are read off: Newton's interpolation of exp at the eigenvalues z_1 <= ... <= z_N of M,

    exp(M) w = sum_k exp[z_1 .. z_k] (M - z_{k-1}) ... (M - z_1) w,

with divided differences exp[...] that stay finite and smooth where eigenvalues meet (flip-flop kinetics, ka = CL/V). It holds the
textbook formulas of one and two compartments, by mouth or into a vein, and needs N exponentials and N - 1 products of a matrix
and a vector, where the matrix exponential needs some thirty products of matrices. Higham, Functions of Matrices, 2008,
sections 1.2 and 10.7.

*Order.* The fastest comes first: its part of w is gone before the next factor, so that the terms of compartments do not cancel.
Only the eigenvalue 0 of a constant input comes before it, and leaves the rates A x + b. With the slowest first as many digits are
lost as the square of the ratio of the rates has.

*Matrix exponential* by scaling and squaring, for everything else.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax

from hybridtwin.priors import bodies_of

_MOST = 4  # eigenvalues, that of the constant input included: beyond it differences of differences lose digits
_NEAR = 0.1  # points closer together than this have their divided differences from a series
_TERMS = 9


def blocks_of(spec) -> tuple[tuple[int, ...], ...] | None:
    """Indices of states in groups of one or two that feed back on each other; None where there is no closed form.

    Read off the graph: a chain of compartments has groups of one, exchange between two is a group of two. In a group of two
    of positive states flows between them cannot be negative, so the eigenvalues are real; that it is so is looked up in a few
    bodies, for states are positive unless declared otherwise and an oscillator of such would have no answer.
    """
    names = list(spec.states)
    if len(names) + 1 > _MOST:
        return None
    reach = {a: {b for x, b in spec.edges if x == f"x.{a}" and b.startswith("x.")} for a in names}
    reach = {a: {b.removeprefix("x.") for b in found} for a, found in reach.items()}
    for _ in names:
        reach = {a: found.union(*(reach[b] for b in found if b in reach)) for a, found in reach.items()}
    groups: list[list[str]] = []
    for a in names:
        home = next((g for g in groups if g[0] in reach[a] and a in reach[g[0]]), None)
        if home is None:
            groups.append([a])
        else:
            home.append(a)
    if any(len(g) > 2 or (len(g) == 2 and any(spec.states[s].low is None for s in g)) for g in groups):
        return None
    pairs = [tuple(names.index(s) for s in g) for g in groups if len(g) == 2]
    if pairs and not _exchange(spec, pairs):
        return None
    return tuple(tuple(names.index(s) for s in g) for g in groups)


_KNOWN: dict[int, tuple] = {}  # id of a declaration -> (it, answer of `_exchange`): it is asked again at every simulation


def _exchange(spec, pairs) -> bool:
    """Does each pair of states only give to each other, in the typical body and some drawn from the priors?"""
    if id(spec) not in _KNOWN:
        system, zero, unit = spec.example, np.float64(0.0), np.float64(1.0)
        none, u = dict.fromkeys(spec.states, zero), spec.input(dict.fromkeys((*spec.covariates, *spec.signals), unit))
        typical = system.typical()

        def matrix(values):  # affine rates at unit states, in plain numbers: a derivative would be compiled, for a second
            body = typical.with_values(values)
            at = [spec.flatten(body.rates(zero, spec.state(none | part), u)) for part in ({}, *({name: unit} for name in none))]
            rates = np.array([[float(row[name]) for name in none] for row in at])
            return (rates[1:] - rates[0]).T

        bodies = bodies_of(system.priors(), typical.values())
        with np.errstate(all="ignore"):
            a = np.array([matrix(body) for body in (bodies if system.priors() else bodies[:1])])
        _KNOWN[id(spec)] = spec, all(bool(np.all(a[:, i, j] * a[:, j, i] >= 0)) for i, j in pairs)
    return _KNOWN[id(spec)][1]


def closed_form(a, b, h, x, blocks):
    """x(h) for A `a` (n, n), `b` (n,) or None where it is 0, and `x` (n,); NaN where a group of two turns out to oscillate."""
    points = _sorted([point for group in blocks for point in _eigenvalues(a, h, group)])
    n = x.shape[0]
    rows = [[a[i, j] * h for j in range(n)] for i in range(n)]

    def moved(v):
        return [sum(m * w for m, w in zip(row, v, strict=True)) for row in rows]

    vector, result = [x[i] for i in range(n)], [jnp.zeros_like(h)] * n
    weights = divided_differences(points)
    if b is not None:  # the eigenvalue 0 of what flows in comes before all others: it leaves the rates, which hold no more of it
        result, vector = vector, [m + b[i] * h for i, m in enumerate(moved(vector))]
        weights = _with_zero(points)
    for k, weight in enumerate(weights):
        result = [r + weight * v for r, v in zip(result, vector, strict=True)]
        if k < len(points) - 1:
            vector = [p - points[k] * v for p, v in zip(moved(vector), vector, strict=True)]
    return jnp.stack(result)


def _eigenvalues(a, h, group):
    if len(group) == 1:
        return [a[group[0], group[0]] * h]
    i, j = group
    middle, half = 0.5 * (a[i, i] + a[j, j]), 0.5 * (a[i, i] - a[j, j])
    square = half**2 + a[i, j] * a[j, i]
    real = square > 0
    root = jnp.where(real, jnp.sqrt(jnp.where(real, square, 1.0)), jnp.where(square < -1e-12 * middle**2, jnp.nan, 0.0))
    return [(middle + root) * h, (middle - root) * h]


def _sorted(points):
    """Ascending, by comparing neighbors: the same work for every lane."""
    points = list(points)
    for last in range(len(points) - 1, 0, -1):
        for i in range(last):
            points[i], points[i + 1] = jnp.minimum(points[i], points[i + 1]), jnp.maximum(points[i], points[i + 1])
    return points


def divided_differences(points):
    """exp[z_1], exp[z_1, z_2], ..., exp[z_1 .. z_N] at points in ascending order."""
    return [column[0] for column in _table(points)]


def _table(points):
    """exp[z_i .. z_k] of neighbors among points in ascending order: a list for each number of points."""
    table = [[jnp.exp(z) for z in points]]
    for order in range(1, len(points)):
        spans, last = [points[i : i + order + 1] for i in range(len(points) - order)], table[-1]
        if order == 1:
            table.append([last[i + 1] * _slope(z - y) for i, (y, z) in enumerate(spans)])
        else:
            table.append([_difference(last[i + 1], last[i], span) for i, span in enumerate(spans)])
    return table


def _with_zero(points):
    """exp[0, z_1], exp[0, z_1, z_2], ..., exp[0, z_1 .. z_N] at points in ascending order, of either sign."""
    plain, column = _table(points), []
    for z in points:
        up = z > 0
        column.append(jnp.where(up, jnp.exp(jnp.where(up, z, 0.0)), 1.0) * _slope(jnp.where(up, z, -z)))
    found = [column[0]]
    for order in range(1, len(points)):
        wider = []
        for i in range(len(points) - order):
            span, without = points[i : i + order + 1], plain[order][i]
            under, over = span[0] <= 0, span[-1] >= 0  # is 0 not the least, not the largest of all?
            upper, lower = jnp.where(under, column[i + 1], without), jnp.where(over, column[i], without)
            ends = jnp.where(under, span[0], 0.0), jnp.where(over, span[-1], 0.0)
            wider.append(_difference(upper, lower, [jnp.zeros_like(span[0]), *span], ends))
        column = wider
        found.append(column[0])
    return found


def _slope(gap):
    """(1 - exp(-gap)) / gap, smooth at 0."""
    near = gap < 1e-3
    wide = jnp.where(near, 1.0, gap)
    series = 1 - gap * (1 / 2 - gap * (1 / 6 - gap * (1 / 24 - gap / 120)))
    return jnp.where(near, series, -jnp.expm1(-wide) / wide)


def _difference(upper, lower, span, ends=None):
    """exp[span] from the differences over all points but the least, and all but the largest; `ends`: these two."""
    low, high = ends or (span[0], span[-1])
    near = high - low < _NEAR
    return jnp.where(near, _series(span, 0.5 * (low + high)), (upper - lower) / jnp.where(near, 1.0, high - low))


def _series(span, middle):
    """exp[span] about the middle of close points: sum over r of h_r(distances) / (order + r)!, h_r complete homogeneous."""
    order = len(span) - 1
    near = [jnp.clip(z - middle, -_NEAR, _NEAR) for z in span]  # not chosen where points are far; kept finite there
    sums = [jnp.ones_like(middle)] + [jnp.zeros_like(middle)] * (_TERMS - 1)
    for d in near:
        for r in range(1, _TERMS):
            sums[r] = sums[r] + d * sums[r - 1]
    return jnp.exp(middle) * sum(s / math.factorial(order + r) for r, s in enumerate(sums))


# ---------------------------------------------------------------------------------------------- matrix exponential

_SQUARINGS = 20
_FACTORIALS = tuple(1.0 / math.factorial(k) for k in range(20))


def _times(a, b):
    """A @ b of small matrices as a sum of outer products: under `vmap` ten times faster on a CPU than batched `dot`."""
    return sum(a[:, k, None] * b[None, k, :] for k in range(a.shape[1]))


def matrix_exponential(a):
    """exp(a) of one small matrix by Taylor series with scaling and squaring.

    A fixed number of masked squarings instead of a loop of data-dependent length: differentiable in both modes and the
    same work for every lane. Degree 19 (Paterson and Stockmeyer, doi:10.1137/0202007) at norms scaled to 1 leaves
    4e-19; a norm beyond 2**20 (a rate of ten an hour over ten years) gives NaN.
    """
    norm = lax.stop_gradient(jnp.max(jnp.sum(jnp.abs(a), axis=-1)))
    squarings = jnp.clip(jnp.ceil(jnp.log2(jnp.maximum(norm, 1e-300))), 0, _SQUARINGS)
    x = a * jnp.where(norm <= 2.0**_SQUARINGS, 2.0**-squarings, jnp.nan)
    eye = jnp.eye(a.shape[-1], dtype=a.dtype)
    square, c = _times(x, x), _FACTORIALS
    cube, fourth = _times(square, x), _times(square, square)
    blocks = [c[k] * eye + c[k + 1] * x + c[k + 2] * square + c[k + 3] * cube for k in (16, 12, 8, 4, 0)]
    series = blocks[0]
    for block in blocks[1:]:
        series = _times(series, fourth) + block

    def squared(m, i):
        return jnp.where(i < squarings, _times(m, m), m), None

    return lax.scan(squared, series, jnp.arange(_SQUARINGS))[0]


def by_matrix_exponential(a, b, h, x):
    """x(h) for any A (n, n), b (n,), x (n,)."""
    # Keeps b from setting the scaling; the result does not depend on it, and where b is 0 its slope would be 0 / 0.
    size = lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(b)), jnp.asarray(1e-300, x.dtype)))
    top = jnp.concatenate([a * h, (b / size * h)[:, None]], axis=1)
    e = matrix_exponential(jnp.concatenate([top, jnp.zeros_like(top[:1])], axis=0))
    n = x.shape[0]
    return e[:n, :n] @ x + size * e[:n, n]
