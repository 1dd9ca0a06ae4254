"""Variational inference: a full-rank Gaussian guide of NumPyro in coordinates whitened by the Laplace approximation.

The evidence lower bound is climbed by Adam (optax) with several draws a step (Kucukelbir et al. 2017, arXiv:1603.00788). It
is a bound, never the evidence; whether the guide stands for the posterior is asked of importance weights (k-hat; Yao et al.
2018, arXiv:1802.02538).
"""

import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax import lax
from numpyro.distributions import constraints
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal
from numpyro.infer.initialization import init_to_value

from hybridtwin.engine import Lanes
from hybridtwin.inference.psis import psis
from hybridtwin.inference.readings import densities
from hybridtwin.inference.sampling import Drawn, Setting
from hybridtwin.kernel import Kernel
from hybridtwin.keys import folded
from hybridtwin.program import by_tangents

_PARTICLES = 16  # draws of one step of the climb
_TRACING = threading.Lock()  # NumPyro's handlers are one stack for all threads, and rival models are fitted side by side


@functools.lru_cache(maxsize=16)
def _program(kernel: Kernel, steps: int, rate: float):
    """Compiled, of P people: (keys (P,), modes (P, d), scales (P, d, d), data, tempers) -> the guides' means (P, d) and Cholesky
    factors (P, d, d), losses (P, steps).
    """

    def density(center, scale, data, temper):
        y = numpyro.sample("y", dist.ImproperUniform(constraints.real_vector, (), (kernel.size,)))

        def at(y):
            return kernel.log_density(center + scale @ y, data, temper)

        numpyro.factor("density", by_tangents(at, y) if kernel.forward_only else at(y))

    def climb(key, *given):
        # A guide keeps what it saw when it was set up, so every trace (a record of another shape) needs a guide of its own.
        guide = AutoMultivariateNormal(density, init_scale=1.0, init_loc_fn=init_to_value(values={"y": jnp.zeros(kernel.size)}))
        schedule = optax.cosine_decay_schedule(rate, steps, 0.01)
        svi = SVI(density, guide, optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule)), Trace_ELBO(_PARTICLES))

        def step(state, _):
            return svi.update(state, *given)

        state, losses = lax.scan(step, svi.init(key, *given), None, length=steps)
        found = svi.get_params(state)
        return found["auto_loc"], found["auto_scale_tril"], losses

    return Lanes(climb, (0, 0, 0, 0, 0))


def draw(setting: Setting, method) -> list[Drawn]:
    """Draws from the guide of every person wanted, with the log density they are really from."""
    fits = [fits[0] for fits in setting.modes]
    modes, scales = (np.stack([getattr(fit, part) for fit in fits]) for part in ("mode", "scale"))
    climb_keys, draw_keys = (jnp.stack([folded(key, i) for key in setting.keys]) for i in (2, 3))
    climb, given = _program(setting.kernel, method.steps, method.rate), (climb_keys, modes, scales, setting.data, setting.tempers)
    with _TRACING:
        climb.trace(*given)
    means, roots, losses = map(np.array, climb(*given))
    count, size = method.draws, setting.kernel.size
    noise = np.array(jax.vmap(lambda key: jax.random.normal(key, (count, size), float))(draw_keys))
    z = modes[:, None] + np.einsum("pij,pnj->pni", scales, means[:, None] + np.einsum("pij,pnj->pni", roots, noise))
    density = densities(setting.kernel, z, setting.data, setting.tempers)
    found = []
    for p in range(setting.wanted):
        volume = np.linalg.slogdet(scales[p])[1] + np.sum(np.log(np.abs(np.diag(roots[p]))))
        proposal = -0.5 * np.sum(noise[p] ** 2, axis=1) - 0.5 * size * np.log(2 * np.pi) - volume
        gap = np.where(np.isfinite(density[p]), density[p], -np.inf) - proposal
        tail = losses[p, -max(method.steps // 10, 1) :]
        stats = {
            "log_proposal": proposal,
            "guide_khat": float(psis(gap)[1]),
            "evidence_bound": float(gap.mean()),
            "evidence_bound_se": float(gap.std() / np.sqrt(len(gap))) if np.isfinite(gap).all() else np.inf,
            "climbed": float(np.isfinite(tail).all()),
        }
        found.append(Drawn(z[p][None], stats))
        setting.report(1 + p, 1 + setting.wanted, 0)
    return found
