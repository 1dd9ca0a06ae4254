"""Our mesh beside vmapped diffrax (Tsit5, PID controller) at equal measured error: value and gradient of a log density.

The three-state glucose problem of benchmarks/glucose_problem.py, float64, with one regimen and one window of `do` switched
on, at 1, 64, 2,048 and 65,536 lanes. Both sides are tuned first, on all lanes, to the cheapest setting whose worst relative
error over all readings and lanes stays below 1e-4 of a reference solved at 1e-10 (diffrax Dopri8): diffrax over tolerances
(arguments of its program; its absolute tolerance is tuned, too), ours over the longest segment of the mesh.

Both sides are run by the library's `Program`: numbers of a day in one vector, batches in tiles, a thread a core; calls are
dispatched in the caller's own thread. Of the peer the fastest of several ways counts: a tile as one function or not, tiles of
256 or 1,024 lanes, tangents lane by lane or of the batch. Ours is what the library does by itself. `gradient_ratio` compares each
side's faster mode; `forward_gradient_ratio` and `reverse_gradient_ratio` (the peer: checkpointed adjoint) are told beside it.

    python -m benchmarks.simulate --json [--lanes 1 64 2048] [--repeats 7] [--device gpu]
"""

import json
import math
import subprocess
import sys

from benchmarks import measure

TARGET = 1e-4
TILE = 256  # lanes on which diffrax's tolerances are tuned


def tune(z, reference):
    """(our side, what it was tuned to and its error), (diffrax's tolerances and error)."""
    import jax
    import numpy as np

    from benchmarks import glucose_problem as gp
    from hybridtwin.simulate.steppers import Tsit5

    def error(program, data):
        parts = [jax.device_get(program(z[i : i + TILE], data)) for i in range(0, len(z), TILE)]
        return float(np.max(np.abs(np.concatenate(parts) - reference) / np.abs(reference)))

    def every(side):
        return jax.jit(jax.vmap(side.outputs, (0, None)))

    for longest in (10.0, 5.0, 3.4, 2.5, 1.7, 1.25):
        ours = gp.ours(Tsit5(1), longest)
        mine = {"longest segment (min)": longest, "nodes": len(ours.data.mesh.t), "error": error(every(ours), ours.data)}
        if mine["error"] <= TARGET:
            break
    program, best = every(gp.plain(1e-4, 1e-5)), None
    few = z[:TILE]
    for share in (1e-1, 1e-2, 1e-3):
        for k in range(24):  # from loose to tight, eight to a decade; the first that holds
            rtol = 1e-3 * 10 ** (-k / 8)
            data = gp.plain(rtol, share * rtol).data
            off = error(program, data)
            if off <= TARGET:
                run = lambda data=data: program(few, data)
                seconds = measure.interleaved({"peer": run}, repeats=3)["peer"].least
                if best is None or seconds < best["seconds"]:
                    best = {"rtol": rtol, "atol": share * rtol, "error": off, "seconds": seconds}
                break
    assert best is not None, "no tolerance of diffrax reaches the target"
    return ours, mine, best


def solved_tightly(z):
    """The modelled values at a tolerance of 1e-10 and tighter, by another method."""
    import diffrax
    import jax
    import numpy as np

    from benchmarks import glucose_problem as gp

    side = gp.plain(1e-11, 1e-11, solver=diffrax.Dopri8())
    program = jax.jit(jax.vmap(side.outputs, (0, None)))
    return np.concatenate([jax.device_get(program(z[i : i + TILE], side.data)) for i in range(0, len(z), TILE)])


def call(program, z, sloped=False):
    """One timed call. A lone lane is timed without what Python adds around the compiled program, on both sides."""
    import jax.numpy as jnp

    if len(z) > 1:
        return lambda: program.gradient(z) if sloped else program(z)
    compiled, row, vector = program.compiled(1, z.shape[1], sloped), jnp.asarray(z), program.vector()
    return lambda: compiled(row, vector)


def ways(lanes, ours, tolerances):
    """What is timed: what -> side -> way -> (program, is it asked for its gradient?)."""
    import jax

    from benchmarks import glucose_problem as gp
    from hybridtwin.program import Program

    forward, reverse = (gp.plain(tolerances["rtol"], tolerances["atol"], reverse=r) for r in (False, True))
    if lanes == 1:
        kinds = {"whole": {"whole": True}, "not whole": {"whole": False}}
    else:
        tiles = {f"tiles of {n}": {"widest": n} for n in (256, 1024) if n <= lanes} or {"one tile": {}}
        ends = {", whole": True, "": False}
        kinds = {name + end: kind | {"whole": whole} for name, kind in tiles.items() for end, whole in ends.items()}

    def peer(f, data, sloped, **asked):
        return {name: (Program(f, data, **kind, **asked), sloped) for name, kind in kinds.items()}

    by_lane = {f"{k}, by lane": v for k, v in peer(jax.jacfwd(forward.log_density), forward.data, False).items()}
    return {
        "value": {"ours": {"": (Program(ours.log_density, ours.data), False)},
                  "peer": peer(forward.log_density, forward.data, False)},
        "forward gradient": {"ours": {"": (Program(ours.log_density, ours.data, reverse=False), True)},
                             "peer": peer(forward.log_density, forward.data, True, reverse=False) | by_lane},
        "reverse gradient": {"ours": {"": (Program(ours.log_density, ours.data, reverse=True), True)},
                             "peer": peer(reverse.log_density, reverse.data, True, reverse=True)},
    }  # fmt: skip


def compare(lanes, ours, tolerances, repeats):
    """Seconds a call of value and gradients at one number of lanes: what -> side -> (Times, which way it was)."""
    from benchmarks import glucose_problem as gp

    z, found = gp.draws(lanes), {}
    for what, sides in ways(lanes, ours, tolerances).items():
        calls = {(side, way): call(p, z, sloped) for side, each in sides.items() for way, (p, sloped) in each.items()}
        first = measure.interleaved(calls, repeats=1 if lanes > 4096 else 3, warmup=1, at_least=0.02)
        best = {side: min(each, key=lambda way, side=side: first[side, way].least) for side, each in sides.items()}
        times = measure.interleaved({s: calls[s, way] for s, way in best.items()}, repeats=repeats, warmup=1, at_least=0.02)
        found[what] = {side: (times[side], way) for side, way in best.items()}
    return found


def memory(lanes):
    """Most memory (GiB) that a process of our side alone ever held: (values and gradients of so many lanes, those of 256)."""
    from benchmarks import glucose_problem as gp
    from hybridtwin.program import Program
    from hybridtwin.simulate.steppers import Tsit5

    ours, found = gp.ours(Tsit5(1), 5.0), []
    program = Program(ours.log_density, ours.data)
    for count in (TILE, lanes):
        z = gp.draws(count)
        program(z), program.gradient(z)
        found.append(measure.held())
    return found[1], found[0]


def claimed(found, lanes, unknowns):
    """(claims of one number of lanes, which of our modes the library takes)."""
    from hybridtwin.program import WIDTHS, backward

    seconds = {what: {side: t.median for side, (t, _) in sides.items()} for what, sides in found.items()}
    claims = {f"{what.replace(' ', '_')}_ratio_{lanes}": s["peer"] / s["ours"] for what, s in seconds.items()}
    width = next((w for w in WIDTHS if w >= lanes), WIDTHS[-1])
    own = "reverse gradient" if backward(unknowns, width) else "forward gradient"
    theirs = min(seconds["forward gradient"]["peer"], seconds["reverse gradient"]["peer"])
    return claims | {f"gradient_ratio_{lanes}": theirs / seconds[own]["ours"]}, own


def main():
    """Tune both sides, time them in turns and print the ratios."""
    parser = measure.arguments(__doc__)
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 64, 2048, 65536])
    parser.add_argument("--memory-of", type=int, help="used by the script itself")
    given = parser.parse_args()
    measure.use(given.device)
    if given.memory_of:
        print(json.dumps(memory(given.memory_of)))
        return
    import jax

    from hybridtwin.engine import double

    jax.config.update("jax_cpu_enable_async_dispatch", False)  # else handing one lane to a thread costs more than solving it
    claims, rows, results = {}, [], {}
    with double():
        import jax.numpy as jnp

        from benchmarks import glucose_problem as gp

        z = jnp.asarray(gp.draws(max(given.lanes)))
        ours, mine, theirs = tune(z, solved_tightly(z))
        for lanes in given.lanes:
            repeats = given.repeats if lanes <= 4096 else max(2, given.repeats // 3)
            found = compare(lanes, ours, theirs, repeats)
            told, own = claimed(found, lanes, z.shape[1])
            claims |= told
            for what, sides in found.items():
                a, b = (sides[side][0].median / lanes * 1e6 for side in ("ours", "peer"))
                rows.append((what + " *" * (what == own), lanes, a, b, b / a, sides["peer"][1]))
                results[f"{what} at {lanes}"] = {side: t.to_json() | {"way": way} for side, (t, way) in sides.items()}
    asked = [sys.executable, "-m", "benchmarks.simulate", "--device", given.device, "--memory-of", str(max(given.lanes))]
    whole, tile = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    claims |= {f"memory_GiB_{max(given.lanes)}": whole, f"memory_GiB_{TILE}": tile}
    claims["max_error"] = max(mine["error"], theirs["error"])
    claims |= {"max_error_ours": mine["error"], "max_error_peer": theirs["error"]}
    assert all(map(math.isfinite, claims.values()))
    heads = ("what (*: the mode the library takes)", "lanes", "ours, us a lane", "diffrax, us a lane", "ratio", "diffrax's way")
    print(measure.table(rows, heads))
    measure.report("simulate", given, claims=claims, ours=mine, peer=theirs, times=results)


if __name__ == "__main__":
    main()
