"""Coordinates of parameters: unconstrained, and standard normal wherever the prior is made from a normal.

The mode found on them is the mode on the eta scale of pharmacometrics. Any other prior has median 0 and about unit spread there.
"""

import math

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import biject_to

from hybridtwin.priors import before, standard, unconstrained


def normal_based(prior):
    """(loc, scale, transforms) if the prior is a transformed normal, else None."""
    if isinstance(prior, dist.Normal):
        return prior.loc, prior.scale, ()
    if isinstance(prior, dist.TransformedDistribution) and isinstance(prior.base_dist, dist.Normal):
        return prior.base_dist.loc, prior.base_dist.scale, tuple(prior.transforms)
    return None


def from_coordinate(prior, z):
    """Value of a parameter at coordinate `z`."""
    base = normal_based(prior)
    if base is None:
        center, scale = standard(prior)
        return biject_to(prior.support)(center + scale * z)
    value = base[0] + base[1] * z
    for transform in base[2]:
        value = transform(value)
    return value


def to_coordinate(prior, value):
    """Coordinate of a parameter's value."""
    base = normal_based(prior)
    if base is None:
        center, scale = standard(prior)
        return (biject_to(prior.support).inv(value) - center) / scale
    for transform in reversed(base[2]):
        value = transform.inv(value)
    return (value - base[0]) / base[1]


def at_ranks(prior, ranks) -> np.ndarray | None:
    """Coordinates at ranks (n,) in (0, 1), on the host; None where the prior's quantiles are not known in plain Python."""
    free = unconstrained(prior, ranks)
    if free is None:
        return None
    center, scale = standard(prior)
    return (np.array(free) - center) / scale


def log_prior(prior, z):
    """Log density of the prior on the coordinate, Jacobian included."""
    if normal_based(prior) is not None:
        return -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    transform, (center, scale) = biject_to(prior.support), standard(prior)
    free = center + scale * z
    value = transform(free)
    return prior.log_prob(value) + transform.log_abs_det_jacobian(free, value) + math.log(scale)


def _normal(prior):
    """`normal_based` of a prior that is known to be."""
    base = normal_based(prior)
    assert base is not None, "pooling.check has let a prior pass that has no eta scale"
    return base


def eta_sd(prior) -> float:
    """Standard deviation on the eta scale of a prior made from a normal."""
    return float(_normal(prior)[1])


def eta(prior, value: float) -> float:
    """`on_eta_scale` of a number, in plain Python. Errors: ValueError for a value that the prior cannot have."""
    return before(_normal(prior)[2], value)


def respread(prior, scale):
    """A prior made from a normal with another standard deviation on the eta scale."""
    return around(prior, _normal(prior)[0], scale)


def around(prior, loc, scale):
    """The prior of one person, of the kind of `prior`, in a population of typical value `loc` and spread `scale` (eta scale)."""
    loc, scale = float(loc), float(scale)
    if isinstance(prior, dist.LogNormal):
        return dist.LogNormal(loc, scale)
    if isinstance(prior, dist.Normal):
        return dist.Normal(loc, scale)
    return dist.TransformedDistribution(dist.Normal(loc, scale), list(_normal(prior)[2]))


def natural(prior, x):
    """Value of a parameter whose prior is made from a normal, at `x` on the eta scale."""
    for transform in _normal(prior)[2]:
        x = transform(x)
    return x


def on_eta_scale(prior, value):
    """The inverse of `natural`."""
    for transform in reversed(_normal(prior)[2]):
        value = transform.inv(value)
    return value


def mixed(blocks, parts):
    """Coordinates by site, those of correlated sites correlated. `blocks`: ((names, root), ...), see `pooling.correlated`."""
    for names, root in blocks:
        if all(name in parts for name in names):
            column = [parts[name] for name in names]
            new = [sum(r * z for r, z in zip(row, column, strict=True) if r) for row in root]
            parts = parts | dict(zip(names, new, strict=True))
    return parts


def unmixed(blocks, parts):
    """The inverse of `mixed`."""
    for names, root in blocks:
        if all(name in parts for name in names):
            column = jnp.linalg.solve(jnp.array(root), jnp.stack([jnp.asarray(parts[name]) for name in names]))
            parts = parts | dict(zip(names, column, strict=True))
    return parts


def conditional(blocks, name, prior, given):
    """Prior of a correlated site given those of its block before it, and what to tell of its value; `given` is filled."""
    found = next(((names, root) for names, root in blocks if name in names), None)
    if found is None:
        return prior, lambda value: None
    names, root = found
    row, own = root[names.index(name)], root[names.index(name)][names.index(name)]
    before = sum((r * given[n] for r, n in zip(row, names, strict=False) if n in given), 0.0)
    loc, scale, transforms = _normal(prior)
    base = dist.Normal(loc + scale * before, scale * own)

    def learn(value):
        given[name] = ((on_eta_scale(prior, value) - loc) / scale - before) / own

    return dist.TransformedDistribution(base, list(transforms)) if transforms else base, learn
