"""The page of a report says what is in the folders, and runs nothing that it finds there."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow.parquet as pq
import pytest

from medjax.lab.commands.report import main
from medjax.lab.commands.run import main as run
from medjax.lab.commands.sweep import main as sweep
from medjax.lab.settings.config import as_record
from medjax.lab.storage import results
from medjax.lab.sweeps import store

EVIL = "<script>alert('x')</script>\"&"
VOID = {"meta", "input", "br"}


class Page(HTMLParser):
    """A page's texts, tables, facts and attributes; its elements must be balanced."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open, self.attributes, self.scripts = [], [], []
        self.texts, self.rows, self.facts, self.notes = [], [], {}, []
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in VOID:
            self.open.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])

    def handle_startendtag(self, tag, attributes):
        self.attributes += [(tag, *pair) for pair in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, attributes = self.open[-1] if self.open else ("", {})
        if tag == "script":
            self.scripts.append(data)
        elif data.strip():
            self.texts.append(data)
        tags = [tag for tag, _ in self.open]
        if "tr" in tags and data.strip():
            cell = next(attributes for tag, attributes in self.open if tag in ("td", "th"))
            self.rows[-1].append(
                (data, float(cell["data-value"]) if "data-value" in cell else None)
            )
        if tag == "dt":
            self.name = data
        if tag == "dd":
            self.facts.setdefault(self.name, []).append(data)
        if attributes.get("class") == "note":
            self.notes.append(data)

    def values(self, name):
        return [value for _, key, value in self.attributes if key == name]


def page_of(out, *folders):
    assert main([*map(str, folders), "--out", str(out)]) == 0
    return Page(out)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, make_run, make_sweep):
    """Two runs, a sweep under attacks, and one of words among numbers."""
    base = tmp_path_factory.mktemp("folders")
    make_run(base / "sign", rule="sign")
    make_run(base / "noisy", rule="noisy_sign", b=0.03)
    attacks = {"rule": ["mean", "median"], "attack": ["none", "ipm:tau=10"], "byzantine": [2]}
    make_sweep(base / "attacks", **attacks, seed=[0, 1], lr=[0.1, 0.3])
    make_sweep(base / "noise", rule=["noisy_sign"], b=[0.0, 0.01, "theory"], batch_size=["full", 8])
    return base


@pytest.fixture(scope="module")
def page(folders):
    names = ("sign", "noisy", "attacks", "noise")
    return page_of(folders / "page.html", *(folders / name for name in names))


@pytest.mark.slow
def test_a_run_says_what_is_on_record(folders, tmp_path):
    page = page_of(tmp_path / "page.html", folders / "noisy")
    record = json.loads((folders / "noisy/config.json").read_text())
    assert page.facts["rule"] == ["noisy_sign"]
    assert page.facts["b"] == ["0.03"]
    assert "momentum" not in page.facts  # which doesn't apply
    assert page.facts["commit"] == [record["commit"]]
    assert f"jax {record['versions']['jax']}" in page.facts["versions"][0]
    assert page.facts["command"] == [record["command"]]
    assert page.facts["train examples"] == ["1442"]
    # 5/(1 + 0.1 · 100), the last of what is made up; once in large, once among the rest.
    assert page.facts["test accuracy"] == ["0.4545", "0.454545"]
    assert page.notes == []
    assert "noisy_sign, n = 10, δ = 0.003, b = 0.03, full batch, digits" in page.texts


@pytest.mark.slow
def test_runs_are_compared(page):
    heading, first, second = page.rows[:3]
    assert [text for text, _ in heading[:3]] == ["run", "step", "train loss"]
    assert [row[0][0] for row in (first, second)] == ["sign", "noisy_sign, b = 0.03"]
    measured = (1, 4, 5, 6, 7)  # their places in what is made up
    assert [value for _, value in first[1:]] == pytest.approx([100, *(k / 11 for k in measured)])


@pytest.mark.slow
def test_contents_lead_to_every_part(page):
    links = [value[1:] for tag, key, value in page.attributes if (tag, key) == ("a", "href")]
    sections = [value for tag, key, value in page.attributes if (tag, key) == ("section", "id")]
    assert sections == ["comparison", "run-0", "run-1", "sweep-0", "sweep-1"]
    assert links == [*sections, "run-0", "run-1"]  # and those of the comparison
    assert "2 runs and 2 sweeps" in page.texts


@pytest.mark.slow
def test_a_sweep_shows_the_best_and_the_worst(folders, page):
    columns = pq.read_table(folders / "attacks/results.parquet").to_pandas()
    last = columns[columns["step"] == 20].fillna({"attack": "none"})
    means = last.groupby(["rule", "lr", "attack"])[["validation_accuracy", "test_accuracy"]].mean()
    chosen = {
        rule: means.loc[rule]["validation_accuracy"].groupby("lr").min().idxmax()
        for rule in ("mean", "median")
    }
    best = page.rows[4:8]
    for rule, lr, attack, validation, test, *_ in best:
        assert lr[1] == chosen[rule[0]]
        row = means.loc[rule[0], lr[1], attack[0]]
        assert validation[1] == pytest.approx(row["validation_accuracy"])
        assert test[1] == pytest.approx(row["test_accuracy"])
        assert " ± " in test[0]
    assert page.rows[8][0] == ("rule", None)
    for rule, lr, attack, _, test, *_ in page.rows[9:11]:
        assert attack[0] == means.loc[rule[0], lr[1]]["test_accuracy"].idxmin()
        assert test[1] == pytest.approx(means.loc[rule[0], lr[1]]["test_accuracy"].min())
    captions = page.values("aria-label")
    assert any("bands: ± 1 standard error of 2 seeds" in caption for caption in captions)
    assert "Metrics at the end against the noise scale b" in page.texts


@pytest.mark.slow
def test_sweeps_are_read_as_they_were_begun(folders, make_sweep, tmp_path):
    for name in ("attacks", "noise"):
        runs, columns = store.read(folders / name)
        grid = json.loads((folders / name / "config.json").read_text())["grid"]
        assert store.fingerprint(runs) == grid
        assert columns["run"].tolist() == [k for k in range(len(runs)) for _ in range(3)]
    axes = {"rule": ["noisy_sign"], "b": [0.0, 0.01, "theory"], "batch_size": ["full", 8]}
    runs = make_sweep(tmp_path, finished=[1, 4], **axes)
    found, columns = store.read(tmp_path)
    assert [as_record(run) for run in found] == [as_record(runs[k]) for k in (1, 4)]
    assert columns["run"].tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.slow
def test_what_is_unfinished_is_shown_as_far_as_it_is(tmp_path, make_run, make_sweep):
    make_run(tmp_path / "begun", done=0)
    make_run(tmp_path / "half", done=50, rule="median")
    axes = {"rule": ["mean"], "lr": [0.1, 0.2, 0.3, 0.4]}
    make_sweep(tmp_path / "none", finished=[], **axes)
    make_sweep(tmp_path / "some", finished=[1, 3], **axes)
    names = ("begun", "half", "none", "some")
    page = page_of(tmp_path / "page.html", *(tmp_path / name for name in names))
    assert page.notes == [
        "unfinished: nothing is measured yet",
        "unfinished: 50 of 100 steps",
        "unfinished: no run is finished yet",
        "unfinished: 2 of 4 runs, of which all that follows is",
    ]
    heading, *rows = page.rows
    assert heading[1] == ("step size δ", None)
    assert {row[1][1] for row in rows[-2:]} == {0.2, 0.4}


@pytest.mark.slow
def test_what_diverged(tmp_path, make_run):
    figures = {"train_loss": np.array([1.0, 2.0, np.inf, np.nan, np.nan])}
    make_run(tmp_path / "a", figures=figures, rule="mean")
    make_run(tmp_path / "b", rule="sign")
    summary = json.loads((tmp_path / "a/summary.json").read_text())
    results.write_json(tmp_path / "a/summary.json", summary | {"diverged_at_step": 50})
    page = page_of(tmp_path / "page.html", tmp_path / "a", tmp_path / "b")
    assert page.notes == ["diverged: the loss isn't finite at step 50"]
    assert page.rows[1][2] == ("nan", None)


@pytest.mark.slow
def test_pictures_do_not_disturb_each_other(page):
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    references = [value[1:] for value in page.values("href") if value.startswith("#")]
    references += re.findall(r"url\(#(.+?)\)", page.source)
    assert set(references) <= set(ids)
    assert page.values("role").count("img") == page.source.count("<svg ") == 6
    assert not [tag for tag, *_ in page.attributes if ":" in tag]  # namespaces


@pytest.mark.slow
def test_the_same_folder_is_the_same_page(folders, tmp_path, capsys):
    first, again = (page_of(tmp_path / "page.html", folders / "sign") for _ in range(2))
    assert again.source == first.source
    assert capsys.readouterr().out == f"page in {tmp_path / 'page.html'}\n" * 2


@pytest.mark.slow
def test_only_our_script_is_allowed_and_nothing_is_fetched(page):
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (x for x in page.values("content") if "default-src" in x)
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    for _, key, value in page.attributes:
        assert key != "src"
        assert key != "href" or value.startswith(("#", "data:image/png;base64,"))
    assert "@import" not in page.source
    assert page.source.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert all(scope in ("col", "row") for scope in page.values("scope"))


@pytest.mark.slow
def test_whatever_users_write_stays_text(tmp_path, make_run, make_sweep):
    folder = tmp_path / EVIL.replace("/", "∕")
    make_run(folder, rule="mean")
    make_run(tmp_path / "other", rule="mean")
    make_sweep(tmp_path / "sweep", rule=["mean", "sign"])
    for path in (folder, tmp_path / "sweep"):
        record = json.loads((path / "config.json").read_text())
        record.get("config", record.get("settings"))["dataset"] = f"idx:{EVIL}"
        record["versions"] = {EVIL: EVIL}
        if "axes" in record:
            record["axes"]["rule"] = [EVIL]
            record["sessions"][0]["command"] = EVIL
        results.write_json(path / "config.json", record)
    for table in ("runs", "results"):
        path = tmp_path / f"sweep/{table}.parquet"
        columns = pq.read_table(path).to_pydict()
        columns["rule"] = [rule.replace("sign", EVIL) for rule in columns["rule"]]
        results.write_table(path, columns)
    page = page_of(tmp_path / "page.html", folder, tmp_path / "other", tmp_path / "sweep")
    assert page.source.count("<script") == page.source.count("</script") == 1
    assert "alert(" not in "".join(page.scripts)
    assert page.facts["dataset"][0] == page.facts["dataset"][2] == f"idx:{EVIL}"
    assert page.facts["command"][-1] == EVIL
    assert any(text == str(folder) for text in page.texts)
    assert [row[0][0] for row in page.rows if EVIL in row[0][0]]  # in tables, with its quotes
    # In the contents, the comparison, its legend, and as a title.
    assert page.texts.count(f"mean, idx:{EVIL}") == 4


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_what_the_commands_leave(tmp_path):
    quick = ["--dataset", "digits", "--model", "logistic", "--steps", "4", "--eval-every", "2"]
    assert run([*quick, "--rule", "mean", "--out", str(tmp_path / "run")]) == 0
    assert (
        sweep([*quick, "--rule", "mean", "--lr", "0.1", "0.2", "--out", str(tmp_path / "grid")])
        == 0
    )
    page = page_of(tmp_path / "page.html", tmp_path / "run", tmp_path / "grid")
    summaries = [json.loads((tmp_path / x / "summary.json").read_text()) for x in ("run", "grid")]
    assert page.facts["test accuracy"][0] == f"{summaries[0]['test_accuracy']:.4g}"
    heading, best = page.rows[:2]
    accuracy = [text for text, _ in heading].index("test accuracy")
    assert best[accuracy][1] == summaries[1]["best"][0]["final"]["test_accuracy"]["mean"]
    assert not page.notes
