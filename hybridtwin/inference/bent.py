"""A proposal that bends: one coordinate after the other, each around a quadratic in those before it.

On principal axes from the widest to the narrowest, y_k = m_k(y_<k) + s_k(y_<k) e_k with m_k quadratic, log s_k linear and e_k a
mixture of t, skewed where it must be: a triangular map (Marzouk, Moselhy, Parno and Spantini 2016,
doi:10.1007/978-3-319-11259-6_23-1) whose density and draws are closed forms, and whose fit to weighted draws is one regression a
coordinate. A bent ridge, of which a mixture of ellipsoids needs many, is one such map.
"""

import dataclasses
import math

import numpy as np

_NU = 8.0  # degrees of freedom of the errors
_WIDE, _SPREAD = 0.15, 1.5  # share and width of the wide part
_REACH = 3.0  # beyond it, in standard deviations, a curve goes on level: a parabola's far end is nobody's posterior
_PARTS, _SWEEPS = 2, 8  # components of an error, and sweeps that fit them
_PENALTIES = 10.0 ** np.arange(0, 6)  # draws that hold a slope at zero; the likeliest number is taken
_HOLD, _MOST = 30.0, 1.5  # the same for the slopes of a log spread, and the bound of what they add up to
_CONSTANT = math.lgamma((_NU + 1) / 2) - math.lgamma(_NU / 2) - 0.5 * math.log(_NU * math.pi)


def _features(y):
    """Columns (n, d + d (d + 1) / 2): y within reach, then products of pairs; those of y_<k come before those with y_k."""
    y = np.clip(y, -_REACH, _REACH)
    i, j = np.tril_indices(y.shape[1])
    return np.concatenate([y, y[:, i] * y[:, j]], axis=1)


def _known(k, d):
    """Places of the features of the first k of d coordinates."""
    return np.concatenate([np.arange(k), d + np.arange(k * (k + 1) // 2)])


@dataclasses.dataclass(frozen=True)
class _Errors:
    """Mixtures of t, one a coordinate: shares, centers and log spreads (d, J)."""

    share: np.ndarray
    center: np.ndarray
    log_spread: np.ndarray

    def log_parts(self, e):
        """Log density of every component, its share counted, at e (n, d): (n, d, J)."""
        far = np.square((e[..., None] - self.center) * np.exp(-self.log_spread))
        return np.log(self.share) - self.log_spread + _CONSTANT - 0.5 * (_NU + 1) * np.log1p(far / _NU)

    def log_density(self, e):
        """Log density (n, d)."""
        return np.logaddexp.reduce(self.log_parts(e), axis=2)

    def draw(self, rng, count):
        """Draws (count, d)."""
        d = len(self.share)
        which = (rng.random((count, d))[..., None] > np.cumsum(self.share, axis=1)[:, :-1]).sum(axis=2)
        at = np.arange(d), which
        return self.center[at] + np.exp(self.log_spread[at]) * rng.standard_t(_NU, (count, d))


@dataclasses.dataclass(frozen=True)
class Bent:
    """The fitted map on d coordinates; `fit` makes it."""

    center: np.ndarray  # (d,)
    axes: np.ndarray  # (d, d): z = center + axes y
    offset: np.ndarray  # (d,)
    curve: np.ndarray  # (F, d) slopes of every coordinate on the features of those before it
    width: np.ndarray  # (d,) log spread
    slope: np.ndarray  # (d, d) its slopes on the coordinates before
    errors: _Errors

    def draw(self, rng, count):
        """Draws (count, d)."""
        d = len(self.center)
        noise = self.errors.draw(rng, count) * np.where(rng.random(count) < _WIDE, _SPREAD, 1.0)[:, None]
        y, features = np.zeros((count, d)), np.zeros((count, len(self.curve)))
        for k in range(d):
            more = np.clip(features[:, :k] @ self.slope[:k, k], -_MOST, _MOST)
            at = _known(k, d)
            y[:, k] = self.offset[k] + features[:, at] @ self.curve[at, k] + np.exp(self.width[k] + more) * noise[:, k]
            features[:, k] = np.clip(y[:, k], -_REACH, _REACH)
            first = d + k * (k + 1) // 2
            features[:, first : first + k + 1] = features[:, k : k + 1] * features[:, : k + 1]
        return self.center + y @ self.axes.T

    def log_density(self, z):
        """Log density at z (n, d): (n,)."""
        y = np.linalg.solve(self.axes, (z - self.center).T).T
        features, d = _features(y), len(self.center)
        log_spread = self.width + np.clip(features[:, :d] @ self.slope, -_MOST, _MOST)
        e = (y - self.offset - features @ self.curve) * np.exp(-log_spread)
        narrow = self.errors.log_density(e).sum(axis=1)
        wide = self.errors.log_density(e / _SPREAD).sum(axis=1) - d * np.log(_SPREAD)
        volume = log_spread.sum(axis=1) + np.linalg.slogdet(self.axes)[1]
        return np.logaddexp(np.log(1 - _WIDE) + narrow, np.log(_WIDE) + wide) - volume


def fit(z, weights, count) -> Bent:
    """The map of weighted draws z (n, d), weights (n,) of sum one that count for `count` draws."""
    w, (_, d) = weights, z.shape
    center = w @ z
    values, vectors = np.linalg.eigh(((z - center).T * w) @ (z - center))
    axes = (vectors * np.sqrt(np.maximum(values, 1e-12)))[:, ::-1]
    y = np.linalg.solve(axes, (z - center).T).T
    # one Gram matrix serves all coordinates: the features of each are among those of the next
    features = _features(y)
    means, middle = w @ features, w @ y
    gram = ((features - means).T * w) @ (features - means)
    along = ((features - means).T * w) @ (y - middle)
    offset, curve, width, slope = np.zeros(d), np.zeros((len(gram), d)), np.zeros(d), np.zeros((d, d))
    for k in range(d):
        at = _known(k, d)
        curve[at, k] = _slopes(gram[np.ix_(at, at)], along[at, k], float(w @ np.square(y[:, k] - middle[k])), count)
        offset[k] = middle[k] - means[at] @ curve[at, k]
    miss = y - offset - features @ curve
    for k in range(d):
        width[k], slope[:k, k] = _spread(features[:, :k], miss[:, k], w, count)
    scaled = miss * np.exp(-width - np.clip(features[:, :d] @ slope, -_MOST, _MOST))
    return Bent(center, axes, offset, curve, width, slope, _errors(scaled, w))


def _slopes(gram, along, total, count):
    """Slopes of a ridge regression from its moments, under the penalty of most evidence."""
    if not len(along):
        return np.zeros(0)
    values, vectors = np.linalg.eigh(gram)
    values, along = np.maximum(values, 0.0), vectors.T @ along
    penalty, best = 0.0, -np.inf
    for one in _PENALTIES / count:
        left = max(total - float(np.sum(along**2 / (values + one))), 1e-9 * total)
        evidence = -0.5 * count * np.log(left) - 0.5 * float(np.sum(np.log1p(values / one)))
        if evidence > best:
            penalty, best = one, evidence
    return vectors @ (along / (values + penalty))


def _spread(before, miss, w, count):
    """Log spread of misses (n,), and its slopes on what is before (n, k), by Fisher scoring of a Gaussian's."""
    x = np.concatenate([np.ones((len(miss), 1)), before], axis=1)
    hold = np.append(0.0, np.full(before.shape[1], _HOLD)) / count
    found = np.append(0.5 * np.log(max(float(w @ np.square(miss)), 1e-12)), np.zeros(before.shape[1]))
    information = 2.0 * (x.T * w) @ x + np.diag(hold)
    for _ in range(4):
        log_spread = found[0] + np.clip(before @ found[1:], -_MOST, _MOST)
        excess = np.minimum(np.square(miss) * np.exp(-2.0 * log_spread), 16.0) - 1.0
        found = found + np.linalg.solve(information, x.T @ (w * excess) - hold * found)
    return found[0], found[1:]


def _errors(e, w) -> _Errors:
    """Mixtures of t fitted to errors e (n, d) by expectation and maximization."""
    middle = w @ e
    spread = np.sqrt(np.maximum(w @ np.square(e - middle), 1e-12))[:, None]
    shape = (e.shape[1], _PARTS)
    center = middle[:, None] + np.linspace(-0.5, 0.5, _PARTS) * spread
    found = _Errors(np.full(shape, 1 / _PARTS), center, np.broadcast_to(np.log(0.8 * spread), shape))
    for _ in range(_SWEEPS):
        parts = found.log_parts(e)
        mine = np.exp(parts - np.logaddexp.reduce(parts, axis=2)[..., None]) * w[:, None, None]
        own = mine * (_NU + 1) / (_NU + np.square((e[..., None] - found.center) * np.exp(-found.log_spread)))
        total = np.maximum(mine.sum(axis=0), 1e-12)
        center = (own * e[..., None]).sum(axis=0) / np.maximum(own.sum(axis=0), 1e-12)
        square = (own * np.square(e[..., None] - center)).sum(axis=0) / total
        share = np.maximum(total, 0.02)
        share = share / share.sum(axis=1, keepdims=True)
        found = _Errors(share, center, 0.5 * np.log(np.maximum(square, np.square(0.2 * spread))))
    return found
