"""Draws from the Laplace approximation at the best mode."""

import numpy as np

from hybridtwin.inference.readings import generator
from hybridtwin.inference.sampling import Drawn, Setting


def draw(setting: Setting, method) -> list[Drawn]:
    """Draws of every person; the verdict weighs them against the posterior."""
    found = []
    for key, fits in zip(setting.keys, setting.modes, strict=True):
        fit = fits[0]
        noise = generator(key, 2).standard_normal((method.draws, len(fit.mode)))
        z = fit.mode + noise @ fit.scale.T
        constant = 0.5 * len(fit.mode) * np.log(2 * np.pi) + np.linalg.slogdet(fit.scale)[1]
        found.append(Drawn(z[None], {"log_proposal": -0.5 * np.sum(noise**2, axis=1) - constant}))
    return found
