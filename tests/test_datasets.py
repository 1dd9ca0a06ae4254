"""Data sets: the embedded person, and loaders on the shared copies and on the layout of their public sources."""

import json

import numpy as np
import pytest

from hybridtwin import datasets
from hybridtwin.datasets import files, foods, recordings
from hybridtwin.errors import RecordError


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No local copy, and no network: what is asked for is recorded."""
    monkeypatch.setenv("HYBRIDTWIN_DATA", str(tmp_path))
    return tmp_path


class TestVirtualAdult:
    def test_is_three_days_with_meals_and_insulin(self):
        person, facts = datasets.virtual_adult(), datasets.virtual_adult_facts()
        assert person.id == "virtual-adult"
        assert len(person.days) == 3
        assert {name: len(person.series[name]) for name in ("cgm", "meal", "bolus", "basal")} == {
            "cgm": 864, "meal": 11, "bolus": 11, "basal": 3}  # fmt: skip
        assert float(person.covariates["weight"](0.0)) == facts["covariates"]["weight"][0]
        assert not any(series.missing.any() for series in person.series.values())

    def test_the_truth_is_day_three_in_the_clock_of_the_record(self):
        person, truth, facts = datasets.virtual_adult(), datasets.virtual_adult_truth(), datasets.virtual_adult_facts()
        assert list(truth) == ["time", *facts["truth"]["worlds"]]
        assert person.clock.unit == "min"
        assert truth["time"][0] == person.clock.at("2026-03-11 00:00") == person.days[2][0]
        assert truth["time"][-1] == person.clock.stop
        assert all(values.shape == (288,) and values.dtype == np.float64 for values in truth.values())

    def test_worlds_agree_before_the_first_difference_and_differ_after(self):
        person, truth = datasets.virtual_adult(), datasets.virtual_adult_truth()
        for intervention in datasets.virtual_adult_facts()["interventions"]:
            start, stop = person.clock.at(intervention["start"]), person.clock.at(intervention["stop"])
            events = person.series[intervention["target"]].time
            first = events[(events >= start) & (events < stop)].min() + min(0, intervention["shift_min"])
            same = truth["time"] <= first
            world = truth[intervention["name"]]
            assert np.array_equal(world[same], truth["lived"][same])
            assert np.abs(world - truth["lived"]).max() > 5, intervention["name"]

    def test_the_sensor_reads_the_truth_with_an_error_of_a_sensor(self):
        person, truth = datasets.virtual_adult(), datasets.virtual_adult_truth()
        cgm = person.series["cgm"]
        error = cgm.value[cgm.time >= truth["time"][0]] - truth["lived"]
        assert 3 < error.std() < 25
        assert abs(error.mean()) < 10

    def test_insulin_was_given_away_from_food_and_food_eaten_without_insulin(self):
        person = datasets.virtual_adult()
        meals, boluses = person.series["meal"].time, person.series["bolus"].time
        apart = np.abs(meals[:, None] - boluses[None, :])
        assert (apart.min(axis=0) > 90).sum() == 1
        assert (apart.min(axis=1) > 90).sum() == 1


class TestShared:
    @pytest.fixture(autouse=True)
    def where(self, shared_data, monkeypatch):
        monkeypatch.setenv("HYBRIDTWIN_DATA", str(shared_data("MANIFEST.csv").parent))

    def test_theophylline(self):
        cohort = datasets.theophylline()
        assert list(cohort) == [str(k) for k in range(1, 13)]
        assert sum(len(person.series["C"]) for person in cohort.values()) == 132
        one = cohort["1"]
        assert one.regimens["oral"].total == pytest.approx(79.6 * 4.02)
        assert float(one.covariates["weight"](0.0)) == 79.6

    def test_warfarin(self):
        cohort = datasets.warfarin()
        assert len(cohort) == 32
        assert sum(len(person.series["cp"]) for person in cohort.values() if "cp" in person.series) == 251
        assert sum(len(person.series["pca"]) for person in cohort.values()) == 232
        assert cohort["1"].regimens["oral"].total == 100

    def test_d1namo(self):
        cohort = datasets.d1namo()
        assert list(cohort) == ["001", "002", "004", "006"]
        one = cohort["001"]
        assert {name: len(regimen) for name, regimen in one.regimens.items()} == {
            "meal": 25, "bolus": 18, "long_acting": 3}  # fmt: skip
        assert all(dose.amount is None and dose.prior[0] > 0 for dose in one.regimens["meal"])
        assert one.regimens["meal"].doses[0].prior == (pytest.approx(357 * 0.45 / 4, abs=0.1), 0.6)
        cgm = one.series["cgm"]
        assert cgm.unit == "mg/dL" and np.all(cgm.value >= 40) and np.all(cgm.value[cgm.censored == -1] == 40)
        assert any("weight" in str(note) for note in one.notes)

    def test_shanghai(self):
        cohort = datasets.shanghai_t1d()
        assert len(cohort) == 12
        pump, pens = cohort["1001-0"], cohort["1007-0"]
        assert len(pump.regimens["long_acting"]) == 0 and "basal" in pump.signals
        assert "basal" not in pens.signals and len(pens.regimens["long_acting"]) == 14
        assert sum(len(person.series["cgm"]) for person in cohort.values()) == 12221
        assert sum(len(person.regimens["meal"]) for person in cohort.values()) == 431  # one row says "fasting"
        assert all(dose.amount is None for person in cohort.values() for dose in person.regimens["meal"])

    def test_the_copies_have_the_content_that_downloads_are_checked_against(self):
        names = {"glucose": "d1namo_glucose.csv.gz", "insulin": "d1namo_insulin.csv", "food": "d1namo_food.csv"}
        for part, (columns, digest) in recordings._D1NAMO_CONTENT.items():
            assert files.content(files.read(files.local(f"glucose/{names[part]}")), columns) == digest
        table = files.read(files.local("glucose/shanghai_t1dm.csv.gz"))
        assert files.content(table, recordings._SHANGHAI_CONTENT) == recordings._SHANGHAI_SHA

    def test_a_theophylline_download_is_the_shared_table(self, monkeypatch, tmp_path):
        """The source's own file, rebuilt from the copy: its checksum is the one that pooch is given."""
        import hashlib

        lines = ['"","Subject","Wt","Dose","Time","conc"']
        for k, row in enumerate(files.read(files.local("pkpd/theophylline.csv")), 1):
            numbers = (f"{float(row[c]):g}" for c in ("wt_kg", "dose_mg_per_kg", "time_h", "conc_mg_per_L"))
            lines.append(f'"{k}","{row["id"]}",{",".join(numbers)}')
        source = tmp_path / "Theoph.csv"
        source.write_text("\n".join(lines) + "\n")
        assert hashlib.sha256(source.read_bytes()).hexdigest() == datasets._THEOPH[3]
        here = datasets.theophylline()
        monkeypatch.setenv("HYBRIDTWIN_DATA", str(tmp_path))
        monkeypatch.setattr(files, "download", lambda *source_file: source)
        there = datasets.theophylline()
        assert [person.hash() for person in there.values()] == [person.hash() for person in here.values()]


class TestSources:
    def test_no_copy_and_no_network_says_what_to_do(self, nowhere, monkeypatch):
        import pooch

        def refuse(*args, **options):
            raise OSError("no route")

        monkeypatch.setattr(pooch, "retrieve", refuse)
        for load in (datasets.theophylline, datasets.shanghai_t1d, datasets.d1namo):
            with pytest.raises(RecordError, match=r"raw\.githubusercontent\.com.*HYBRIDTWIN_DATA"):
                load()
        with pytest.raises(RecordError, match=r"warfarin\.rda.*HYBRIDTWIN_DATA"):
            datasets.warfarin()

    def test_other_content_is_refused(self):
        with pytest.raises(RecordError, match="not what was checked"):
            files.checked([{"a": "1"}], ["a"], "0" * 64, "somewhere")

    def test_content_does_not_depend_on_how_numbers_are_written(self):
        one, two = [{"a": "172.79999999999998", "b": " x"}], [{"a": "172.80", "b": "x", "c": "7"}]
        assert files.content(one, "ab") == files.content(two, "ab")

    def test_shanghai_source_rows(self):
        head = "Date,CGM,CBG,ketone,diet,diet zh,insulin,agents,bolus,basal,iv\n"
        text = head + (
            "2021-08-06 06:43:00,171.0,,,,,,,9.0,,\n"
            '2021-08-06 07:13:00,144.0,,,"Egg 61 g\nCoarse grain steamed bread 140 g",x,,acarbose 100 mg,,,\n'
            "2021-08-06 07:58:00,156.6,,,,,,,,0.5,\n"
            "2021-08-06 08:13:00,167.4,,,,,,,,temporarily suspend insulin delivery,\n"
        )
        rows = recordings.shanghai_rows(text, "1001", "0")
        assert [row["csii_bolus_IU"] for row in rows] == ["9.0", "", "", ""]
        assert [row["csii_basal_IU_per_h"] for row in rows] == ["", "", "0.5", "0"]
        assert rows[1]["diet_text"] == "Egg 61 g; Coarse grain steamed bread 140 g"

    def test_d1namo_source_rows(self):
        food = recordings.d1namo_rows(
            "food", [{"datetime": "2014:10:01 19:43:25", "calories": "231", "description": "pizza"}], "002"
        )
        assert food[0]["time"] == "2014-10-01 19:43:25" and food[0]["energy_kcal"] == "231"
        glucose = recordings.d1namo_rows(
            "glucose", [{"date": "2014-10-01", "time": "19:14:00", "glucose": "10.3", "type": "cgm"}], "001"
        )
        assert glucose == [
            {"patient": "001", "time": "2014-10-01 19:14:00", "glucose_mmol_per_L": "10.3", "source": "cgm"}
        ]


@pytest.mark.parametrize(
    ("text", "median", "sd"),
    [
        ("Egg 61 g; Coarse grain steamed bread 140 g; Boiled vegetable 103 g", 68.3, 0.4),
        ("Glucose 20 g", 20.0, 0.4),
        ("1 piece of biscuit", 15.0, 0.8),
        ("Rice 100 g; Walnut powder 1 bowl", 41.0, 0.6),
        ("2 sugar pills (equal to 30 g glucose)", 30.0, 0.4),
        ("data not available", 60.0, 0.6),
    ],
)
def test_carbohydrate_of_a_described_meal(text, median, sd):
    found = foods.described(text)
    assert found[0] == pytest.approx(median, abs=0.6)
    assert found[1] == sd


def test_fasting_is_no_meal():
    assert foods.described("fasting for examination") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Novolin R, 4 IU", [("bolus", 4.0, "Novolin R")]),
        ("insulin degludec, 12 IU", [("long_acting", 12.0, "insulin degludec")]),
        (
            "Humulin R, 2 IU, insulin degludec, 12 IU",
            [("bolus", 2.0, "Humulin R"), ("long_acting", 12.0, "insulin degludec")],
        ),
        ("Novolin 50R, 4 IU", [("bolus", 2.0, "Novolin 50R"), ("long_acting", 2.0, "Novolin 50R")]),
        ("", []),
    ],
)
def test_injections(text, expected):
    assert recordings.injections(text) == expected


def test_facts_are_plain_json():
    facts = datasets.virtual_adult_facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["provenance"]["patient"] == "adult#003"
