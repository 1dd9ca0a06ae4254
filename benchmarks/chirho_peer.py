"""A factual and an intervened world of one body in chirho, timed; run by benchmarks/throughput.py with a Python that has it.

Reads one JSON object from standard input: `draws` (name -> list), `times`, `sugar` (added at the first time), `bolus` and `at`
(the intervention), `repeats`, `rtol`, `atol`. Prints one: `seconds` of each round and `G` (worlds, draws, times). All draws are
one batch of tensors and the two worlds one `TwinWorldCounterfactual`: chirho's own way, at its best.
"""

import json
import sys
import time


def main():
    import torch
    from chirho.counterfactual.handlers import TwinWorldCounterfactual
    from chirho.dynamical.handlers import LogTrajectory, StaticIntervention
    from chirho.dynamical.handlers.solver import TorchDiffEq
    from chirho.dynamical.ops import simulate
    from chirho.indexed.ops import IndexSet, gather, indices_of

    asked = json.loads(sys.stdin.read())
    torch.set_default_dtype(torch.float64)
    p = {name: torch.tensor(values) for name, values in asked["draws"].items()}
    times, zero = torch.tensor(asked["times"]), torch.zeros_like(p["SG"])
    start = {"G": p["Gb"] + asked["sugar"], "X": zero, "I": zero}

    def rates(x):
        return {
            "G": -(p["SG"] + x["X"]) * x["G"] + p["SG"] * p["Gb"],
            "X": -p["p2"] * (x["X"] - p["SI"] * x["I"]),
            "I": -p["n"] * x["I"],
        }

    def worlds():
        given = StaticIntervention(torch.tensor(asked["at"]), {"I": lambda old: old + asked["bolus"]})
        solver = TorchDiffEq(rtol=asked["rtol"], atol=asked["atol"])
        with torch.no_grad(), TwinWorldCounterfactual(), LogTrajectory(times) as log, solver, given:
            simulate(rates, start, times[0], times[-1])
            glucose = log.trajectory["G"]
            names = list(indices_of(glucose, event_dim=1))
            return [gather(glucose, IndexSet(**{name: {w} for name in names}), event_dim=1) for w in (0, 1)]

    seconds, found = [], []
    for i in range(asked["repeats"] + 1):
        began = time.perf_counter()
        found = worlds()
        if i:
            seconds.append(time.perf_counter() - began)
    shape = (len(p["SG"]), len(times))
    print(json.dumps({"seconds": seconds, "G": [f.reshape(shape).tolist() for f in found]}))


if __name__ == "__main__":
    main()
