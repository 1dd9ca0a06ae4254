"""The glucose problem of `plain_numpyro.py` as a competent user writes it in Stan: what one gradient costs.

Same equations, priors, likelihood and tolerances. Inputs are constant between their knots, so the solver is started anew at
every knot (`ode_rk45_tol`), and readings share its calls. A chain of useful length takes Stan hours here, so what is timed is
the log density with its gradient, which is what its NUTS calls: the middle one of a few, near the medians of the prior.

    python -m benchmarks.stan_t1d [--calls 5]          with a Python that has PyStan and NumPy; the last line is JSON
"""

import argparse
import json
import statistics
import time

import numpy as np

from benchmarks.plain_numpyro import PRIORS, input_table, read_person

PROGRAM = """
functions {
  vector rates(real t, vector y, vector p, data real eaten, data real given, data real basal) {
    real a1 = p[8]; real a2 = p[9] * a1; real a3 = p[10] * a2; real a4 = p[11] * a3;
    vector[13] d;
    d[1] = p[5] * eaten - p[6] * y[1];
    d[2] = p[6] * (y[1] - y[2]);
    d[3] = p[6] * y[2] - (p[7] + a1) * y[3];
    d[4] = p[7] * y[3] - (p[7] + a2) * y[4];
    d[5] = p[7] * y[4] - (p[7] + a3) * y[5];
    d[6] = p[7] * y[5] - (p[7] + a4) * y[6];
    d[7] = p[7] * (y[6] - y[7]);
    d[8] = given - p[12] * y[8];
    d[9] = p[12] * y[8] - p[13] * y[9];
    d[10] = p[13] * y[9] - p[14] * y[10];
    d[11] = -p[2] * (y[11] - p[1] * (y[10] - basal / p[14]));
    d[12] = -p[4] * (y[12] - p[3]) - y[11] * y[12]
            + a1 * y[3] + a2 * y[4] + a3 * y[5] + a4 * y[6] + p[7] * y[7];
    d[13] = (y[12] - y[13]) / p[15];
    return d;
  }
}
data {
  int n; vector[n] y; vector[n] apart;              // readings, and the time since the one before
  int m; array[m] real stops; array[n] int seen;    // where solutions are wanted, and which of them are readings (0: the start)
  int k; array[k] real knots; array[k] int first; array[k] int last; vector[k] eaten; vector[k] given;
  vector[18] middle; vector[18] spread;
}
parameters { vector[18] z; }
transformed parameters { vector[18] p = exp(log(middle) + spread .* z); }
model {
  vector[13] x = rep_vector(0, 13);
  vector[m] tissue;
  x[8] = given[1] / p[12]; x[9] = given[1] / p[13]; x[10] = given[1] / p[14]; x[12] = p[3]; x[13] = p[3];
  for (i in 1:k) {
    array[last[i] - first[i] + 1] vector[13] found = ode_rk45_tol(
      rates, x, knots[i], stops[first[i]:last[i]], 1e-5, 1e-6, 100000, p, eaten[i], given[i], given[1]);
    for (j in first[i]:last[i]) tissue[j] = found[j - first[i] + 1][13];
    x = found[last[i] - first[i] + 1];
  }
  z ~ std_normal();
  real mean = 0; real variance = p[17]^2;
  for (i in 1:n) {
    real decay = exp(-apart[i] / p[18]);
    real total; real gain; real surprise;
    mean = decay * mean;
    variance = decay^2 * variance + (1 - decay^2) * p[17]^2;
    total = variance + p[16]^2;
    gain = variance / total;
    surprise = y[i] - (seen[i] > 0 ? tissue[seen[i]] : p[3]) - mean;
    mean += gain * surprise;
    variance *= 1 - gain;
    target += -0.5 * (surprise^2 / total + log(2 * pi() * total));
  }
}
"""


def table(thin):
    """The data block."""
    tables, weight = read_person(thin)
    knots, eaten, given = input_table(tables, weight)
    times, readings = tables["cgm"].T
    kept = knots < times[-1]
    knots, eaten, given = knots[kept], eaten[kept], given[kept]
    stops = np.unique(np.concatenate([times[times > 0], knots[1:]]))
    last = np.searchsorted(stops, [*knots[1:], stops[-1]], side="right")
    return {
        "n": len(times), "y": readings.tolist(), "apart": np.diff(times, prepend=times[0]).tolist(),
        "m": len(stops), "stops": stops.tolist(), "seen": [int(np.searchsorted(stops, t)) + 1 if t > 0 else 0 for t in times],
        "k": len(knots), "knots": knots.tolist(), "first": [1, *(int(i) + 1 for i in last[:-1])], "last": [int(i) for i in last],
        "eaten": eaten.tolist(), "given": given.tolist(),
        "middle": [m for m, _ in PRIORS.values()], "spread": [s for _, s in PRIORS.values()],
    }  # fmt: skip


def main():
    """Build and time; prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--thin", type=int, default=3)
    args = parser.parse_args()
    import stan

    began = time.perf_counter()
    posterior = stan.build(PROGRAM, random_seed=1, data=table(args.thin))
    built = time.perf_counter() - began
    seconds, densities = [], []
    for z in 0.1 * np.random.default_rng(0).standard_normal((args.calls, len(PRIORS))):
        densities.append(posterior.log_prob(z.tolist()))
        began = time.perf_counter()
        posterior.grad_log_prob(z.tolist())
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"build_seconds": built, "gradient_seconds": statistics.median(seconds), "log_density": densities}))


if __name__ == "__main__":
    main()
