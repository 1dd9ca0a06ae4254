"""Our mesh beside vmapped diffrax (Tsit5, PID controller) at equal measured error: value and gradient of a log density.

The three-state glucose problem of benchmarks/glucose_problem.py, float64, with one regimen and one window of `do` switched
on, at 1, 64, 2,048 and 65,536 lanes. Both sides are tuned first, on all lanes, to the cheapest setting whose worst relative
error over all readings and lanes stays below 1e-4 of a reference solved at 1e-10 (diffrax Dopri8): diffrax over tolerances
(arguments of its program; its absolute tolerance is tuned, too), ours over the longest segment of the mesh. On both sides
alike batches go in equal tiles, a thread a core, calls are dispatched in the caller's own thread, and the numbers of a day
are one argument. Gradients: forward mode on both sides is what the claims compare; reverse mode (checkpointed adjoint; scan)
is told beside it.

    python -m benchmarks.simulate --json [--lanes 1 64 2048] [--repeats 7] [--device gpu]
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor

from benchmarks import measure

TARGET = 1e-4
CORES = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
TILE = 1024  # lanes of one call; both sides slow down a little beyond it, for their states leave the cache


def tiled(program, z, data, tile):
    """Run a batch in tiles, a thread a core: JAX dispatches in the caller's own thread here, see `main`."""
    import jax

    def one(part):
        with jax.enable_x64(True):  # each thread has its own
            return jax.block_until_ready(program(part, data))

    parts = [z[i : i + tile] for i in range(0, len(z), tile)]
    if len(parts) == 1:
        return lambda: [program(parts[0], data)]
    return lambda: list(CORES.map(one, parts))


def flattened(data):
    """(all numbers of a tree as one vector, how to make the tree again inside a program): one argument instead of fifty.

    On one lane passing arguments costs as much as the solve. Integers and truth values are exact in float64.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    leaves, tree = jax.tree.flatten(data)
    leaves = [np.asarray(leaf) for leaf in leaves]
    ends = np.cumsum([leaf.size for leaf in leaves])

    def opened(vector):
        parts = [vector[end - leaf.size : end].reshape(leaf.shape) for leaf, end in zip(leaves, ends, strict=True)]
        return jax.tree.unflatten(tree, [part.astype(leaf.dtype) for part, leaf in zip(parts, leaves, strict=True)])

    return jnp.asarray(np.concatenate([leaf.ravel().astype(float) for leaf in leaves])), opened


def tune(z, reference):
    """(our side, what it was tuned to and its error), (diffrax's tolerances and error)."""
    import jax
    import numpy as np

    from benchmarks import glucose_problem as gp
    from hybridtwin.simulate.steppers import Tsit5

    def error(program, data):
        found = np.concatenate(jax.device_get(tiled(program, z, data, TILE)()))
        return float(np.max(np.abs(found - reference) / np.abs(reference)))

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
    return np.concatenate(jax.device_get(tiled(program, z, side.data, TILE)()))


def compare(lanes, ours, tolerances, repeats):
    """Seconds a call of value and gradients at one number of lanes: name -> side -> Times."""
    import jax
    import jax.numpy as jnp

    from benchmarks import glucose_problem as gp

    forward, reverse = (gp.plain(tolerances["rtol"], tolerances["atol"], reverse=r) for r in (False, True))
    z, found = jnp.asarray(gp.draws(lanes)), {}
    functions = {
        "value": (ours.log_density, forward.log_density),
        "gradient": (jax.jacfwd(ours.log_density), jax.jacfwd(forward.log_density)),
        "reverse gradient": (jax.grad(ours.log_density), jax.grad(reverse.log_density)),
    }
    data = flattened(ours.data), flattened(forward.data)
    for name, pair in functions.items():
        sides = {}
        for side, fn, (numbers, opened) in zip(("ours", "peer"), pair, data, strict=True):
            lane = lambda z, v, fn=fn, opened=opened: fn(z, opened(v))
            sides[side] = tiled(jax.jit(jax.vmap(lane, (0, None))), z, numbers, TILE)
        found[name] = measure.interleaved(sides, repeats=repeats, warmup=2, at_least=0.02)
    return found


def main():
    """Tune both sides, time them in turns and print the ratios."""
    parser = measure.arguments(__doc__)
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 64, 2048, 65536])
    given = parser.parse_args()
    measure.use(given.device)
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
            for name, times in compare(lanes, ours, theirs, repeats).items():
                a, b = (times[side].median / lanes * 1e6 for side in ("ours", "peer"))
                rows.append((name, lanes, a, b, b / a))
                results[f"{name} at {lanes}"] = {side: t.to_json() for side, t in times.items()}
                claims[f"{name.replace(' ', '_')}_ratio_{lanes}"] = b / a
    claims["max_error"] = max(mine["error"], theirs["error"])
    claims |= {"max_error_ours": mine["error"], "max_error_peer": theirs["error"]}
    assert all(map(math.isfinite, claims.values()))
    print(measure.table(rows, ("what", "lanes", "ours, us a lane", "diffrax, us a lane", "ratio")))
    measure.report("simulate", given, claims=claims, ours=mine, peer=theirs, times=results)


if __name__ == "__main__":
    main()
