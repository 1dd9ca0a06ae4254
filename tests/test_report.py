"""The report: one file, no script, no network, everything escaped, and no number where none may be shown."""

import html.parser
import re

import made
import pytest

from hybridtwin import report
from hybridtwin.report import page

NOTICE = "Research use; not a medical device"


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.words, self.links = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "action", "data"):
                self.links.append(value)

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = report.write(made.twin(), tmp_path_factory.mktemp("report") / "new" / "anna.html", [made.effect()])
    return path.read_text(encoding="utf-8")


def test_it_is_one_file_that_loads_and_runs_nothing(written):
    found = Page(written)
    assert not {"script", "link", "img", "iframe", "object", "embed", "form"} & set(found.tags)
    assert all(link.startswith("#") for link in found.links), found.links
    assert not re.findall(r"url\((?!#)", written) and "@import" not in written
    assert "default-src 'none'" in written and found.tags.count("svg") == 5


def test_ids_are_unique_and_links_lead_somewhere(written):
    found = Page(written)
    assert len(found.ids) == len(set(found.ids))
    assert {link[1:] for link in found.links} <= set(found.ids)


def test_it_says_everything_it_must(written):
    text = Page(written).text
    assert text.count(NOTICE) >= 3
    twin = made.twin()
    assert twin.data_hash in text and f"Seed {twin.seed}" in text and "jax 0." in text
    for part in ("computed", "fits", "informed", "supported"):
        assert part in text
    assert "What this must not be used for" in text and "the inputs as recorded" in text
    assert "watched for harm" in text and "Difference before the record was seen" in text
    assert "oral = 0.5 times as lived" in text and "Decisions kept as lived" in text and "P(lower)" in text
    ids = [name for name in Page(written).ids if not re.match(r"f\d+-", name)]
    assert ids == ["verdict", "record", "fit", "parameters", "comparison-1", "limits", "numbers", "provenance"]
    assert "(expected)" in text and "(predicted)" in text


def test_names_are_text_not_markup(written):
    assert "<b>&$x$" not in written and "anna &lt;b&gt;&amp;$x$" in written
    assert "noted &lt;i&gt;" in written


def test_under_do_not_use_no_number_of_the_comparison_is_written(tmp_path):
    path = report.write(made.twin(), tmp_path / "red.html", made.effect("DO NOT USE"))
    text = Page(path.read_text(encoding="utf-8")).text
    assert "no numbers of this comparison are shown" in text and "9.9 times <as large>" in text
    row = made.effect()[0]
    assert row.text not in text and "90 % credible interval" not in text and not re.search(r"P\((higher|lower)\)", text)
    assert page.number(row.median).lstrip("-") not in text.split("The comparison")[-1].split("must not be used")[0]


def test_under_caution_the_notice_stands_beside_the_comparison(tmp_path):
    path = report.write(made.twin(), tmp_path / "yellow.html", [made.effect("CAUTION")])
    text = Page(path.read_text(encoding="utf-8")).text
    after = text[text.index("The comparison", text.index("before and after")):]
    assert "CAUTION." in after and "no recommendation" in after
    assert made.effect()[0].text in after.replace("−", "-")
    assert made.effect()[0].brief in text[:text.index("The record")].replace("−", "-"), "the first box answers, in a line"


def test_without_a_comparison_there_is_a_report_all_the_same(tmp_path):
    path = made.twin().report(tmp_path / "plain.html")
    assert NOTICE in path.read_text(encoding="utf-8")


def test_numbers_are_told_with_three_digits():
    told = {0.0: "0", 1.0: "1", 0.012345: "0.0123", 12.345: "12.3", 123.4: "123", 12345.6: "12,346", 1e-5: "1.00e-05",
            -3.0: "-3", float("nan"): "unknown"}
    assert {x: page.number(x) for x in told if x == x} == {x: t for x, t in told.items() if x == x}
    assert page.number(float("nan")) == "unknown"
