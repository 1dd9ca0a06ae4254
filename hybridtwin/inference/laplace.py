"""Draws from the Laplace approximation at the best mode."""

import jax
import numpy as np

from hybridtwin.inference.sampling import Drawn, Setting


def draw(setting: Setting, method) -> list[Drawn]:
    """Draws of every person; the verdict weighs them against the posterior."""
    found = []
    for key, fits in zip(setting.keys, setting.modes, strict=True):
        fit = fits[0]
        noise = np.array(jax.random.normal(jax.random.fold_in(key, 2), (method.draws, len(fit.mode)), float))
        z = fit.mode + noise @ fit.scale.T
        constant = 0.5 * len(fit.mode) * np.log(2 * np.pi) + np.linalg.slogdet(fit.scale)[1]
        found.append(Drawn(z[None], {"log_proposal": -0.5 * np.sum(noise**2, axis=1) - constant}))
    return found
