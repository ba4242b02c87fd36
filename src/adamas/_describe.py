"""What the documentation and the command say of each rule: taken from its stanza."""

import inspect
import re

from adamas.rules import Rule

SHARED = tuple(name for name, value in vars(Rule).items() if not name.startswith("_") and name in Rule.__annotations__)
"""What every rule has, among it the hyper-parameters of the stages."""


def own_hyperparameters(rule: type[Rule]) -> dict[str, float | bool]:
    """Return the hyper-parameters of a rule and their defaults: those of the stages only where it changes them."""
    values = {name: getattr(rule, name) for name in rule.ranges}
    return {name: value for name, value in values.items() if name not in SHARED or value != getattr(Rule, name)}


def summary(rule: type[Rule]) -> str:
    """Return what a rule does, in a line."""
    return inspect.cleandoc(rule.__doc__ or "").split("\n", 1)[0].split(": ", 1)[1].rstrip(".")


def references(rule: type[Rule]) -> str:
    """Return the papers of a rule."""
    return " ".join(inspect.cleandoc(rule.__doc__ or "").partition("References: ")[2].split())


def state_bytes(rule: type[Rule]) -> int:
    """Return the bytes of float32 state per parameter."""
    return 4 * len(rule.state_names)


def stanza(rule: type[Rule]) -> str:
    """Return the definition of a rule, as it stands in rules.py."""
    return inspect.getsource(rule).rstrip()


def markdown(rule: type[Rule]) -> str:
    """Return the documentation of a rule, its mathematics in the form that GitHub shows."""
    text = inspect.cleandoc(rule.__doc__ or "")

    def shown(found: re.Match[str]) -> str:
        formula = inspect.cleandoc(found[1])
        if "&" in formula:
            formula = f"\\begin{{aligned}}\n{formula}\n\\end{{aligned}}"
        return f"```math\n{formula}\n```\n"

    text = re.sub(r"\.\. math::(.*?\n)(?=\n|\Z)", shown, text, flags=re.DOTALL)
    return re.sub(r"(?<!`)``(?!`)", "`", text)
