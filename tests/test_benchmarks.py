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
