"""The command `adamas convert`: the state of an optimizer, from one library's file to another's."""

import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from adamas import convert
from adamas._flags import told
from adamas.errors import CheckpointWarning

Library = StrEnum("Library", list(convert.LIBRARIES))  # type: ignore[misc]


def convert_command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The file to read.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write, in place of what is there.")],
    library: Annotated[Library, typer.Option("--from", help="Whose file IN is.")],
    to: Annotated[Library, typer.Option(help="Whose file OUT will be.")],
    rule: Annotated[str | None, typer.Option(help="The rule, such as AdamW, where IN does not say it.")] = None,
    names: Annotated[
        Path | None, typer.Option(help="A text with a name for each parameter, in order, one in a line.")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            help="For Keras: a .weights.h5 of the compiled model, whose weights OUT gets. For torch, optional: a file "
            "of the optimizer that will load OUT, whose groups are kept."
        ),
    ] = None,
) -> None:
    """Convert the state of an optimizer: its moments and its count of steps.

    Files of adamas are its checkpoints; of torch what torch.save wrote of optimizer.state_dict(), alone or as
    "optimizer" in a dict; of Keras the .weights.h5 of a compiled model; of optax the fields of its state (adam, adamw,
    adamax, lion), which adamas.convert.to_optax puts into a state. docs/checkpoints.md says what is exact.
    """
    with told(), warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", CheckpointWarning)
        state = convert.read(source, library, rule)
        if names is not None:
            lines = names.read_text(encoding="utf-8").splitlines()
            state = state.named([line.strip() for line in lines if line.strip()])
        convert.write(state, target, to, like)
    for warning in seen:
        print(f"note: {warning.message}")
    count = len(list(state.by_path()))
    print(f"{target}: {state.rule} after {state.t:,} steps, of {count:,} parameter{'' if count == 1 else 's'}")
