"""The minimal model of an intravenous glucose test as its peers write it: plain NumPyro + diffrax, and Stan through
PyStan.

Readings are made here from known parameters and an insulin response that is made up (a first and a second phase). Run
by `benchmarks/one_person.py`, in processes of their own: `python -m benchmarks.bergman_peers plain`, or with a Python
that has PyStan, `python benchmarks/bergman_peers.py stan`. The last line is JSON.
"""

import argparse
import json
import os
import time

import numpy as np

TIMES = np.array([2, 4, 6, 8, 10, 14, 19, 22, 30, 40, 50, 70, 90, 120, 160, 180.0])  # min
INSULIN = np.array([60, 95, 70, 52, 45, 42, 38, 55, 50, 38, 28, 20, 14, 10, 8, 8.0])  # mU/L; 8 at rest
REST, DOSE, WEIGHT, SD = 8.0, 21.0, 70.0, 5.0  # mU/L, g, kg, mg/dL
PRIORS = {"SG": (0.0192, 0.3), "SI": (3.5e-4, 0.7), "p2": (0.0254, 0.45), "Gb": (91.0, 0.1), "VG": (1.7, 0.15)}
GIVEN = "BENCHMARK_READINGS"  # of the environment: the readings as JSON
TRUTH = {"SG": 0.021, "SI": 4.2e-4, "p2": 0.028, "Gb": 88.0, "VG": 1.75}


def readings(seed=0):
    """Glucose (mg/dL) at TIMES; as they are given by who started this process, for making them is nobody's time."""
    if GIVEN in os.environ:
        return np.array(json.loads(os.environ[GIVEN]))
    from scipy.integrate import solve_ivp

    p = TRUTH
    knots, levels = np.concatenate([[0.0], TIMES]), np.concatenate([[REST], INSULIN])

    def rates(t, y):
        return [-(p["SG"] + y[1]) * y[0] + p["SG"] * p["Gb"], -p["p2"] * (y[1] - p["SI"] * (np.interp(t, knots, levels) - REST))]

    first = p["Gb"] + DOSE * 1000 / (p["VG"] * WEIGHT)
    found = solve_ivp(rates, (0, TIMES[-1]), [first, 0.0], t_eval=TIMES, rtol=1e-9, atol=1e-9, max_step=1.0)
    return found.y[0] + SD * np.random.default_rng(seed).standard_normal(len(TIMES))


def plain(args):
    """NumPyro + diffrax: forward-mode gradients, dense mass, medians as the start, chains in parallel."""
    import diffrax
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    numpyro.enable_x64()
    numpyro.set_host_device_count(args.chains)
    from numpyro.infer import MCMC, NUTS, init_to_median

    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(seconds) if "/jax/core/compile" in event else None
    )
    knots, levels = jnp.concatenate([jnp.zeros(1), TIMES]), jnp.concatenate([jnp.array([REST]), INSULIN])
    controller = diffrax.PIDController(rtol=1e-6, atol=1e-6)

    def model(y):
        p = {n: numpyro.sample(n, dist.LogNormal(np.log(m), s)) for n, (m, s) in PRIORS.items()}
        sd = numpyro.sample("sd", dist.HalfNormal(10.0))

        def rates(t, x, _):
            insulin = jnp.interp(t, knots, levels)
            return (-(p["SG"] + x[1]) * x[0] + p["SG"] * p["Gb"], -p["p2"] * (x[1] - p["SI"] * (insulin - REST)))

        start = (p["Gb"] + DOSE * 1000 / (p["VG"] * WEIGHT), jnp.zeros(()))
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(rates), diffrax.Tsit5(), 0.0, TIMES[-1], 0.5, start, saveat=diffrax.SaveAt(ts=jnp.asarray(TIMES)),
            stepsize_controller=controller, adjoint=diffrax.ForwardMode(), max_steps=4096, throw=False,
        )  # fmt: skip
        ok = (solution.result == diffrax.RESULTS.successful) & jnp.all(jnp.isfinite(solution.ys[0]))
        numpyro.factor("ok", jnp.where(ok, 0.0, -jnp.inf))
        numpyro.sample("G", dist.Normal(jnp.where(ok, solution.ys[0], 0.0), sd), obs=y)

    began = time.perf_counter()
    chains = MCMC(
        NUTS(model, dense_mass=True, forward_mode_differentiation=True, init_strategy=init_to_median), num_warmup=args.warmup,
        num_samples=args.draws, num_chains=args.chains, chain_method="parallel", progress_bar=False,
    )  # fmt: skip
    key, y = jax.random.key(args.seed), jnp.asarray(readings())
    chains.warmup(key, y)
    jax.block_until_ready(chains.last_state)
    warm, compile_warm = time.perf_counter(), sum(compiled)
    chains.run(key, y)
    values = jax.block_until_ready(chains.get_samples(group_by_chain=True))
    done, ended = time.perf_counter(), time.time()
    import arviz  # what judges the draws is nobody's time

    return {
        "ended": ended,
        "warmup_seconds": warm - began - compile_warm,
        "draw_seconds": done - warm - (sum(compiled) - compile_warm),
        "compile_seconds": sum(compiled),
        "ess": min(float(arviz.ess(np.asarray(v), method="bulk")) for v in values.values()),
        "medians": {k: float(np.median(v)) for k, v in values.items()},
    }


STAN = """
functions {
  vector rates(real t, vector x, vector p, data vector knots, data vector levels, data real rest) {
    int i = 1;
    while (i < num_elements(knots) - 1 && t > knots[i + 1]) i += 1;
    real insulin = levels[i] + (levels[i + 1] - levels[i]) * (t - knots[i]) / (knots[i + 1] - knots[i]);
    vector[2] d;
    d[1] = -(p[1] + x[2]) * x[1] + p[1] * p[4];
    d[2] = -p[3] * (x[2] - p[2] * (insulin - rest));
    return d;
  }
}
data {
  int n; array[n] real times; vector[n] y; int k; vector[k] knots; vector[k] levels;
  real rest; real dose; real weight; vector[5] middle; vector[5] spread;
}
parameters { vector[5] z; real<lower=0> sd; }
transformed parameters { vector[5] p = exp(log(middle) + spread .* z); }
model {
  vector[2] start = [p[4] + dose * 1000 / (p[5] * weight), 0]';
  array[n] vector[2] x = ode_rk45_tol(rates, start, 0.0, times, 1e-6, 1e-6, 100000, p, knots, levels, rest);
  z ~ std_normal();
  sd ~ normal(0, 10);
  for (i in 1:n) y[i] ~ normal(x[i][1], sd);
}
"""


def stan_run(args):
    """Stan by PyStan: its build apart, then warm-up and draws."""
    import stan

    began = time.perf_counter()
    posterior = stan.build(STAN, random_seed=args.seed + 1, data={
        "n": len(TIMES), "times": TIMES.tolist(), "y": readings().tolist(), "k": len(TIMES) + 1,
        "knots": [0.0, *TIMES.tolist()], "levels": [REST, *INSULIN.tolist()], "rest": REST, "dose": DOSE, "weight": WEIGHT,
        "middle": [m for m, _ in PRIORS.values()], "spread": [s for _, s in PRIORS.values()],
    })  # fmt: skip
    built = time.perf_counter()
    fit = posterior.sample(num_chains=args.chains, num_warmup=args.warmup, num_samples=args.draws)
    done = time.perf_counter()
    p = fit["p"].reshape(5, args.draws, args.chains).transpose(0, 2, 1)
    sd = fit["sd"].reshape(1, args.draws, args.chains).transpose(0, 2, 1)
    return {"build_seconds": built - began, "seconds": done - built, "draws": np.concatenate([p, sd]).tolist()}


def main():
    """One side; prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["plain", "stan"])
    parser.add_argument("--warmup", type=int, default=500)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(json.dumps(plain(args) if args.side == "plain" else stan_run(args)))


if __name__ == "__main__":
    main()
