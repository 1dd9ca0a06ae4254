"""The benchmarks' common ground: rivals in turns, and one JSON object as the last line."""

import json

import pytest
from conftest import benchmark


@pytest.fixture(scope="module")
def measure():
    return benchmark("measure")


def test_rivals_are_timed_in_turns_after_a_warm_up(measure):
    seen = []
    times = measure.interleaved({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, repeats=3, warmup=1)
    assert "".join(seen) == "abababab"
    assert all(len(t.seconds) == 3 and t.least <= t.median for t in times.values())


def test_a_quick_side_is_called_many_times_a_round(measure):
    count = [0]

    def quick():
        count[0] += 1

    times = measure.interleaved({"quick": quick}, repeats=2, at_least=0.005)
    assert count[0] > 100 and times["quick"].median < 0.005


def test_the_last_line_is_one_json_object(measure, capsys, tmp_path):
    file = tmp_path / "out.json"
    given = measure.arguments("what").parse_args(["--json", str(file)])
    measure.report("name", given, claims={"ratio": 2}, extra=[1])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found == json.loads(file.read_text())
    assert found["claims"] == {"ratio": 2.0} and found["extra"] == [1] and found["machine"]["cores"] >= 1


@pytest.mark.heavy
def test_both_sides_of_the_glucose_problem_agree():
    import jax
    import numpy as np

    from hybridtwin.engine import double
    from hybridtwin.simulate.steppers import Tsit5

    problem = benchmark("glucose_problem")
    with double():
        z = problem.draws(4)
        ours, plain = problem.ours(Tsit5(1), 2.5), problem.plain(1e-9, 1e-9)
        a, b = (np.asarray(jax.vmap(side.outputs, (0, None))(z, side.data)) for side in (ours, plain))
        da, db = (np.asarray(jax.vmap(jax.jacfwd(s.log_density), (0, None))(z, s.data)) for s in (ours, plain))
    np.testing.assert_allclose(a, b, rtol=1e-6)
    np.testing.assert_allclose(da, db, rtol=1e-4, atol=1e-4)


def test_operations_are_counted():
    import jax
    import jax.numpy as jnp

    count = benchmark("scaling").operations
    assert count(jax.make_jaxpr(lambda x: x * x + 2.0)(1.0).jaxpr) == 2
    assert count(jax.make_jaxpr(lambda x: jnp.exp(x) / x)(1.0).jaxpr) == 21
