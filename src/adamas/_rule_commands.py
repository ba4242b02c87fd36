"""The command `adamas rules`: every rule in a table, or the stanza of one."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from adamas import _describe
from adamas._choices import find_rule
from adamas.rules import RULES

RuleName = Annotated[str | None, typer.Argument(metavar="[NAME]", help="The rule whose definition is shown.")]


def rules_command(name: RuleName = None) -> None:
    """List the rules with their hyper-parameters, or show how one is defined."""
    if name is not None:
        print(_describe.stanza(RULES[find_rule(name, "NAME")]))
        return
    table = Table("name", "hyper-parameters", "state", "paper", box=None, padding=(0, 2, 0, 0))
    table.columns[0].no_wrap = True
    for rule in RULES.values():
        values = ", ".join(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
                           for key, value in _describe.own_hyperparameters(rule).items())  # fmt: skip
        table.add_row(rule.__name__, values, str(_describe.state_bytes(rule)), _describe.references(rule))
    Console().print(table)
    print("\nstate: bytes per parameter, in float32. Each rule also has weight_decay, decoupled, cautious, update_clip")
    print("and trust_ratio. adamas rules NAME shows how one is defined.")
