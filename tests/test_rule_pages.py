"""The pages of the rules are those that the stanzas make, and the command shows the same."""

import importlib.util
import inspect
from pathlib import Path

import pytest
from command import error_of

from adamas import rules

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "rules"


def pages() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("make_rules", ROOT / "docs" / "make_rules.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


def test_the_pages_are_up_to_date():
    made = pages()
    for file, text in made.items():
        assert (FOLDER / file).read_text() == text, "run python docs/make_rules.py"
    assert {path.name for path in FOLDER.glob("*.md")} == set(made)
    assert {path.stem for path in FOLDER.glob("*.png")} == set(rules.RULES)


def test_rules_lists_them_all(adamas_):
    done = adamas_("rules")
    assert (done.returncode, done.stderr) == (0, "")
    for name in rules.RULES:
        assert name in done.stdout
    assert "arXiv:2302.06675" in done.stdout


@pytest.mark.parametrize("name", ["Lion", "adam", "RADAM"])
def test_a_rule_is_shown_as_it_is_defined(adamas_, name):
    done = adamas_("rules", name)
    assert (done.returncode, done.stderr) == (0, "")
    rule = next(rule for rule in rules.RULES.values() if rule.__name__.lower() == name.lower())
    assert done.stdout == inspect.getsource(rule).rstrip() + "\n"
    assert done.stdout.startswith("@rule\nclass ")


def test_an_unknown_rule_is_refused(adamas_, tmp_path):
    assert error_of(adamas_("rules", "lyon"), tmp_path).startswith("NAME 'lyon' is not known: did you mean Lion?")
