"""A release: what its files have and say, and that they agree on the version."""

import email
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import medjax

ROOT = Path(__file__).parent.parent
VERSION = medjax.__version__
INFO = f"medjax-{VERSION}.dist-info"


def run(*command: str, cwd: Path = ROOT) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def build(source: Path, out: Path) -> dict[str, Path]:
    """Build the source distribution, and the wheel from it; return both by their suffix."""
    run("build", "--no-isolation", "--outdir", str(out), cwd=source)
    sdist, wheel = out / f"medjax-{VERSION}.tar.gz", out / f"medjax-{VERSION}-py3-none-any.whl"
    assert {*out.iterdir()} == {sdist, wheel}
    return {"gz": sdist, "whl": wheel}


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    for module in ("build.__main__", "hatchling.build", "hatch_fancy_pypi_readme"):
        pytest.importorskip(module)
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def metadata(dist) -> Message:
    with zipfile.ZipFile(dist["whl"]) as wheel:
        return email.message_from_bytes(wheel.read(f"{INFO}/METADATA"))


@pytest.fixture(scope="module")
def requirements(metadata) -> list[Requirement]:
    return [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]


@pytest.mark.slow
def test_wheel_has_the_package_and_the_licence_alone(dist):
    with zipfile.ZipFile(dist["whl"]) as wheel:
        names = set(wheel.namelist())
        assert wheel.read(f"{INFO}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    files = {path for path in (ROOT / "medjax").rglob("*") if path.is_file()}
    package = {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"}
    assert "medjax/py.typed" in package
    info = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    package -= {"medjax/lab/console.py"}  # which is beside it in the wheel
    assert names == package | {"_medjax_console.py"} | {f"{INFO}/{name}" for name in info}


@pytest.mark.slow
def test_source_distribution_builds_itself_byte_for_byte(dist, tmp_path):
    with tarfile.open(dist["gz"]) as sdist:
        sdist.extraction_filter = getattr(tarfile, "data_filter", None)  # 3.11.2 has none
        sdist.extractall(tmp_path)
    source = tmp_path / f"medjax-{VERSION}"
    kept = {path.name for path in ROOT.iterdir()} & {path.name for path in source.iterdir()}
    assert {"tests", "docs", "experiments", "benchmarks", "mkdocs.yml", "README.md"} < kept
    again = build(source, tmp_path / "dist")
    assert [again[x].read_bytes() == dist[x].read_bytes() for x in ("whl", "gz")] == [True, True]


@pytest.mark.slow
def test_index_takes_the_files(dist):
    pytest.importorskip("twine")
    run("twine", "check", "--strict", *map(str, dist.values()))


@pytest.mark.slow
def test_metadata_names_the_pythons_that_are_tested(metadata):
    pattern = r"^        (3\.\d+)\) packages"
    tested = re.findall(pattern, (ROOT / ".ci/versions").read_text(), re.MULTILINE)
    stem = "Programming Language :: Python :: "
    classifiers = metadata.get_all("Classifier", [])
    assert [x.removeprefix(stem) for x in classifiers if x.startswith(f"{stem}3.")] == tested
    assert metadata["Requires-Python"] == f">={tested[0]}"


@pytest.mark.slow
def test_library_needs_few_packages(requirements):
    needed = {x.name for x in requirements if x.marker is None}
    assert needed == {"jax", "jaxtyping", "numpy", "optax"}


@pytest.mark.slow
def test_only_known_breaks_bound_a_version_from_above(requirements):
    bounded = {x.name for x in requirements if "<" in str(x.specifier) or "==" in str(x.specifier)}
    assert bounded == {"mkdocs", "mkdocs-material", "orbax-checkpoint"}
    assert all(x.specifier for x in requirements)  # from below, all are


@pytest.mark.slow
def test_links_of_the_description_lead_there_from_an_index(metadata):
    links = re.findall(r"\]\((.*?)\)", metadata.get_payload())
    assert len(links) > 10
    assert [link for link in links if not link.startswith("https://")] == []


def test_files_name_the_version():
    assert re.search(rf"^## \[{VERSION}\] - ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert f"version = {{{VERSION}}}" in (ROOT / "docs/citing.md").read_text()
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == VERSION


def test_citation_has_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    (paper,) = citation["references"]
    names = [author["family-names"] for author in paper["authors"]]
    assert names == ["Chen", "Chen", "Sun", "Wu", "Hong"]
    assert {"type": "other", "value": "arXiv:1906.01736"} in paper["identifiers"]
