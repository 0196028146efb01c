"""The documents are consistent: equation numbers, links, the reference to the paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
METHOD = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
FOLDERS = ("mote_fast", "kernels", "tests", "benchmarks", "lab", "tools", "configs", "docs")
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "configs" / "README.md"]


def sources() -> list[Path]:
    """Code, documents and configurations, except this file."""
    files = [*ROOT.glob("*.py"), *ROOT.glob("*.md")]
    for folder in FOLDERS:
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md", ".yaml")]
    return sorted(path for path in files if path != Path(__file__))


def anchors(text: str) -> set[str]:
    """The link names of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_equations_are_numbered_from_one() -> None:
    """Each number belongs to one equation, without gaps."""
    tags = [int(tag) for tag in re.findall(r"\\tag\{(\d+)\}", METHOD)]
    assert tags == list(range(1, len(tags) + 1))
    assert METHOD.count("```math\n") == len(tags)


def test_cited_equations_exist() -> None:
    """Every cited equation number exists."""
    tags = set(re.findall(r"\\tag\{(\d+)\}", METHOD))
    cited = {}
    for path in sources():
        cited |= dict.fromkeys(re.findall(r"\b[Ee]q\. \((\d+)\)", path.read_text(encoding="utf-8")), path)
    assert len(cited) > 15
    assert {number: path for number, path in cited.items() if number not in tags} == {}


def test_cited_sections_exist() -> None:
    """The code cites a section of the method by the first words of its heading."""
    headings = re.findall(r"^## (.+)$", METHOD, re.MULTILINE)
    for path in sources():
        for section in re.findall(r"docs/method\.md, ([A-Z]\w+)", path.read_text(encoding="utf-8")):
            assert any(heading.startswith(section) for heading in headings), f"{path}: {section}"


def test_modules_of_the_method_exist() -> None:
    """Each equation names the module that computes it."""
    modules = re.findall(r"`((?:mote_fast|kernels)/[\w/.]*)`", METHOD)
    assert len(modules) > 15
    for module in modules:
        assert (ROOT / module).exists(), module


def test_no_other_document_is_cited() -> None:
    """The code cites docs/method.md and no other specification."""
    for path in sources():
        found = re.search(
            r"(?i)\bspec(ification)?,? section|\bthe specification\b|\(spec,", path.read_text(encoding="utf-8")
        )
        assert found is None, f"{path}: {found}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    """Files, and headings within them."""
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)):
        name, _, heading = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        if heading and path.suffix == ".md":
            assert heading in anchors(path.read_text(encoding="utf-8")), target


def test_the_paper_is_cited_in_one_way() -> None:
    """CITATION.cff, README and the method name the same paper and the same commit of the official code."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["cff-version"], citation["title"]) == ("1.2.0", "mote_fast")
    paper = citation["preferred-citation"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert paper["title"] in " ".join(METHOD.split())
    for text in (METHOD, readme):
        assert paper["url"] in text
        assert "https://github.com/ZMHH-H/MoTE/tree/1d3fa01" in text
    for author in paper["authors"]:
        assert f"{author['given-names'][0]}. {author['family-names']}" in METHOD


def make_targets() -> set[str]:
    rules = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return {target for rule in rules for target in rule.split()}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_make_targets_in_documents_exist(document: Path) -> None:
    """In code spans, and at the beginning of a line of a code block."""
    named = set(re.findall(r"(?:`|^)make\s([a-z][\w-]*)", document.read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= make_targets()


def test_files_in_the_makefile_exist() -> None:
    """A suite that is seldom run must not name a file that was moved."""
    named = re.findall(
        r"\b(?:tests|benchmarks|lab|tools|configs)/[\w/.-]+\.(?:py|yaml)\b", (ROOT / "Makefile").read_text()
    )
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_workflows_call_what_exists() -> None:
    """Every make target, and every action at a major version."""
    folder = ROOT / ".github" / "workflows"
    called: dict[str, set[str]] = {}
    for path in sorted(folder.glob("*.yml")):
        jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
        called[path.name] = set()
        for job in jobs.values():
            included = job.get("strategy", {}).get("matrix", {}).get("include", [])
            called[path.name] |= {entry["target"] for entry in included if "target" in entry}
            for step in job["steps"]:
                assert re.fullmatch(r"(actions|pypa)/[\w-]+@v\d+", step.get("uses", "actions/none@v0")), step
                called[path.name] |= set(re.findall(r"^make ([a-z][\w-]*)", step.get("run", ""), re.MULTILINE))
    assert set.union(*called.values()) <= make_targets()
    assert {"dev-cpu", "quick", "lint"} <= called["ci.yml"]
    # The nightly run includes every check of a submission.
    ci_run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert set(re.findall(r"^make ([\w-]+)", ci_run, re.MULTILINE)) <= called["full.yml"]


def test_forms_parse() -> None:
    """GitHub and pre-commit silently ignore a file that does not parse."""
    forms = sorted((ROOT / ".github").rglob("*.yml"))
    assert len(forms) >= 5
    for path in [*forms, ROOT / ".pre-commit-config.yaml"]:
        assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict), path
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= form.keys()
        identifiers = [field["id"] for field in form["body"]]
        assert len(set(identifiers)) == len(identifiers)


def test_every_page_is_in_the_navigation() -> None:
    """`make docs` refuses a page that mkdocs.yml leaves out."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").glob("*.md")]
    assert [page for page in pages if f": {page}\n" not in navigation] == []


def test_packages_of_the_site_are_stated() -> None:
    """What the hooks and mkdocs.yml import is in the extra that `make docs` installs."""
    stated = (ROOT / "setup.py").read_text(encoding="utf-8").split("DOCS = [", 1)[1].split("]\n", 1)[0]
    for package in ("mkdocs-material", "mkdocstrings[python]", "latex2mathml", "nbclient", "ipykernel"):
        assert f'"{package}>=' in stated
