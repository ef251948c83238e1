"""What the documents at the root promise of each other."""

import re
import tomllib
from pathlib import Path

import fewseg

ROOT = Path(__file__).parents[2]


def test_the_readme_has_a_thousand_words_at_most():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1000


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    cited = re.findall(r"^version: (.+)$", citation, re.MULTILINE)
    assert [project["version"], *cited] == [fewseg.__version__] * 2


def test_every_link_of_the_root_documents_leads_to_a_file():
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
        assert [link for link in links if "://" not in link and link and not (ROOT / link).exists()] == []
