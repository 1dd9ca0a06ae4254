"""A stomach that empties fast while full and again when nearly empty: what the models of the UVA/Padova family share.

Source: Dalla Man 2006, doi:10.1109/TBME.2006.883792. The system has states `qsto1`, `qsto2` [mg] and `Dbar` [mg], what the
stomach held after the latest meal, and parameters kmin, kmax [1/min], b and d [1].
"""

import jax.numpy as jnp

from hybridtwin.system import const


def above(value):
    """The value where it is positive, else 0."""
    return jnp.maximum(value, 0.0 * value)


def emptying(system, x):
    """Rate at which the stomach empties [1/min]: kmax before any meal."""
    ate = x.Dbar > 0.0
    share = (x.qsto1 + x.qsto2) / jnp.where(ate, x.Dbar, const(1.0, "mg"))
    fuller = jnp.tanh(2.5 / (1.0 - system.b) * (share - system.b))
    emptier = jnp.tanh(2.5 / system.d * (share - system.d))
    return jnp.where(ate, system.kmin + (system.kmax - system.kmin) * 0.5 * (fuller - emptier + 2.0), system.kmax)


def eaten(x, amount, first):
    """The state after a portion of `amount` [g]: a meal that begins counts what is left of the one before."""
    found = jnp.where(first > 0.0, x.qsto1 + x.qsto2, x.Dbar)
    return type(x)(**{**vars(x), "Dbar": found + amount * const(1000.0, "mg/g")})
