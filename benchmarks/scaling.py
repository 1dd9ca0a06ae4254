"""How the cost of the mesh grows (lanes, people, readings, states, parameters), and how far it is from what the machine can do.

Exponents are slopes of log seconds over log size, by least squares over sizes large enough that fixed costs are small. Lanes
are draws of one person (values of the log density, benchmarks/glucose_problem.py); people are lanes with a mesh of their own
each; states are the problem solved several times over in one program; parameters are columns of a forward-mode gradient.

The limit: floating-point operations of the rates are counted in their jaxpr (an exponential, logarithm, power or hyperbolic
tangent as 20, a division or square root as 1), times stages and segments, plus the combination of the stages. The machine's
own speed is measured in the same run, on the same cores and by the same compiler, by chains of multiply-adds over as many
numbers as one tile has lanes. `limit_ratio` is the time taken over the time those operations would take at that speed.

    python -m benchmarks.scaling --json
"""

import math

from benchmarks import measure

TILE = 256
COSTLY = ("exp", "log", "log1p", "expm1", "pow", "tanh", "logistic", "sin", "cos", "erf")
FREE = ("broadcast_in_dim", "reshape", "convert_element_type", "squeeze", "copy", "slice", "stop_gradient", "concatenate")


def operations(jaxpr) -> float:
    """Floating-point operations of one evaluation of a jaxpr of scalars."""
    count = 0.0
    for eqn in jaxpr.eqns:
        inner = [p.jaxpr if hasattr(p, "jaxpr") else p for p in eqn.params.values() if hasattr(p, "jaxpr") or hasattr(p, "eqns")]
        if inner:
            count += sum(map(operations, inner))
        elif eqn.primitive.name in COSTLY:
            count += 20
        elif eqn.primitive.name not in FREE:
            count += 1
    return count


def exponent(sizes, seconds) -> float:
    """Slope of log seconds over log size."""
    import numpy as np

    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def timed(runs, repeats):
    """Least seconds of each of several runs, in turns."""
    times = measure.interleaved(runs, repeats=repeats, warmup=2, at_least=0.02)
    return [t.least for t in times.values()]


def machine_speed(repeats) -> float:
    """Fused multiply-adds a second, counted as two operations each, of this compiler on one tile of numbers."""
    import jax
    import jax.numpy as jnp

    turns, shapes = 1000, ((1, 16), (4, 16), (8, 8))  # independent chains hide the latency of each; the best shape counts

    def program(chains, depth):
        def turn(_, x, a):
            values = [x + i * a for i in range(chains)]
            for _ in range(depth):  # in registers: one load and one store for all of them
                values = [v * a + a for v in values]
            return sum(values)

        run = jax.jit(lambda x, a: jax.lax.fori_loop(0, turns, lambda i, x: turn(i, x, a), x))
        return lambda: run(x, 0.05)

    x = jnp.linspace(0.1, 0.9, TILE)
    seconds = timed({str(shape): program(*shape) for shape in shapes}, repeats)
    return max(2.0 * chains * depth * turns * TILE / s for (chains, depth), s in zip(shapes, seconds, strict=True))


def many(copies):
    """Log density of the problem solved `copies` times over in one system: states grow, lanes do not."""
    from benchmarks import glucose_problem as gp
    from hybridtwin.simulate.steppers import Tsit5

    side = gp.ours(Tsit5(1), 10.0)
    return lambda z, data: sum(side.log_density(z * (1.0 + 0.01 * i), data) for i in range(copies)), side.data


def growth(given):
    """Exponents by what grows, and the seconds behind them."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from benchmarks import glucose_problem as gp
    from hybridtwin.simulate.steppers import Tsit5

    side = gp.ours(Tsit5(1), 10.0)
    data = jax.device_put(side.data)
    value = jax.jit(jax.vmap(side.log_density, (0, None)))

    def lanes(n):
        parts = [jnp.asarray(gp.draws(n))[i : i + TILE] for i in range(0, n, TILE)]
        return lambda: [value(part, data) for part in parts]

    own = jax.jit(jax.vmap(side.log_density, (0, 0)))

    def people(n):
        stacked = jax.device_put(jax.tree.map(lambda a: np.stack([np.asarray(a)] * min(n, TILE)), side.data))
        parts = [jnp.asarray(gp.draws(n))[i : i + TILE] for i in range(0, n, TILE)]
        return lambda: [own(part, stacked) for part in parts]

    def read(n):
        longer = gp.ours(Tsit5(1), 10.0, n)
        program, z, numbers = jax.jit(jax.vmap(longer.log_density, (0, None))), jnp.asarray(gp.draws(TILE)), longer.data
        return lambda: program(z, numbers)

    def states(n):
        fn, numbers = many(n)
        program, z = jax.jit(jax.vmap(fn, (0, None))), jnp.asarray(gp.draws(TILE))
        return lambda: program(z, numbers)

    def parameters(n):
        directions, z = jnp.eye(5)[:n], jnp.asarray(gp.draws(TILE))

        def slopes(z, data):
            return jax.vmap(lambda d: jax.jvp(lambda v: side.log_density(v, data), (z,), (d,))[1])(directions)

        program = jax.jit(jax.vmap(slopes, (0, None)))
        return lambda: program(z, data)

    grids = {
        "lanes": (lanes, (256, 1024, 4096)), "people": (people, (256, 1024, 4096)), "readings": (read, (73, 145, 289, 577)),
        "states": (states, (1, 2, 4)), "parameters": (parameters, (1, 2, 5)),
    }  # fmt: skip
    found = {}
    for name, (make, sizes) in grids.items():
        seconds = timed({str(n): make(n) for n in sizes}, given.repeats)
        found[name] = {"sizes": [3 * n if name == "states" else n for n in sizes], "seconds": seconds}
        found[name]["exponent"] = exponent(found[name]["sizes"], seconds)
    return found


def distance(given):
    """Seconds a lane, operations a lane, and the machine's speed, for the values at one tile of lanes."""
    import jax
    import jax.numpy as jnp

    from benchmarks import glucose_problem as gp
    from hybridtwin.simulate.steppers import Tsit5

    side = gp.ours(Tsit5(1), 10.0)
    system = gp.GutMinimal().typical()
    u = system.spec.input({"insulin": 10.0, "weight": gp.WEIGHT})
    x = system.spec.state({"q": 1.0, "X": 0.0, "G": 100.0})
    leaves, tree = jax.tree.flatten((system, x, u))
    jaxpr = jax.make_jaxpr(lambda values: (lambda s, x, u: s.rates(0.0, x, u))(*jax.tree.unflatten(tree, values)))(leaves)
    stages, states = 6, 3
    combining = 2 * (sum(range(1, stages)) + stages) + 2 * stages  # weights times slopes, per state and step
    segments = len(side.data.mesh.t) - 1
    work = segments * (stages * operations(jaxpr.jaxpr) + states * combining)
    z, data = jnp.asarray(gp.draws(TILE)), jax.device_put(side.data)
    program = jax.jit(jax.vmap(side.outputs, (0, None)))
    speed = machine_speed(given.repeats)
    seconds = timed({"values": lambda: program(z, data)}, given.repeats)[0] / TILE
    return {"seconds_a_lane": seconds, "operations_a_lane": work, "machine_operations_per_second": speed,
            "limit_ratio": seconds * speed / work}  # fmt: skip


def main():
    """Measure and print."""
    given = measure.arguments(__doc__, repeats=7).parse_args()
    measure.use(given.device)
    from hybridtwin.engine import double

    with double():
        grown, limit = growth(given), distance(given)
    claims = {"limit_ratio": limit["limit_ratio"]} | {f"exponent_{name}": g["exponent"] for name, g in grown.items()}
    assert all(map(math.isfinite, claims.values()))
    print(measure.table([(name, str(g["sizes"]), g["exponent"]) for name, g in grown.items()], ("grows", "sizes", "exponent")))
    measure.report("scaling", given, claims=claims, growth=grown, limit=limit)


if __name__ == "__main__":
    main()
