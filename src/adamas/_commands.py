"""The commands of `adamas`, which typer builds from the signatures of functions."""

from typing import Annotated

import typer

import adamas
from adamas._convert_command import convert_command
from adamas._digits import train_digits
from adamas._flags import UsageError
from adamas._history_commands import plot_command, show_command
from adamas._predict import predict_command
from adamas._problem_commands import compare_command, minimize_command, problems_command
from adamas._ratings import train_ratings
from adamas._reviews import train_reviews
from adamas._rule_commands import rules_command
from adamas._tune_commands import tune_command

__all__ = ["UsageError", "app", "run"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)
train_app = typer.Typer()
app.add_typer(train_app, name="train")
train_app.command("digits")(train_digits)
train_app.command("reviews")(train_reviews)
train_app.command("ratings")(train_ratings)
app.command("predict")(predict_command)
app.command("rules")(rules_command)
app.command("problems")(problems_command)
app.command("minimize")(minimize_command)
app.command("compare")(compare_command)
history_app = typer.Typer()
app.add_typer(history_app, name="history")
history_app.command("show")(show_command)
app.command("plot")(plot_command)
app.command("tune")(tune_command)
app.command("convert")(convert_command)


def run() -> int:
    """Run the command line and return the exit status; errors are raised, UsageError if the command line is wrong."""
    return app(standalone_mode=False) or 0


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"adamas {adamas.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def adamas_command(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback acts
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Adam for every array in Python."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@history_app.callback(invoke_without_command=True)
def history_command(context: typer.Context) -> None:
    """Look at what was recorded of a run."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@train_app.callback(invoke_without_command=True)
def train_command(context: typer.Context) -> None:
    """Train a network on real data."""
    if context.invoked_subcommand is None:
        print(context.get_help())
