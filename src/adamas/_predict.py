"""The command `adamas predict`: a trained run, used."""

from pathlib import Path
from typing import Annotated

import typer

from adamas._flags import UsageError
from adamas.training import Run
from adamas.training.console import show_predictions
from adamas.training.tasks import predict

__all__ = ["predict_command"]


def predict_command(
    run: Annotated[Path, typer.Argument(help="The folder of a trained run.", metavar="RUN", show_default=False)],
    files: Annotated[list[str], typer.Argument(help="What to classify.", metavar="INPUT...", show_default=False)],
) -> None:
    """Classify with the best weights of a trained run.

    For digits, inputs are image files of any format that Pillow opens. They become grey and are fitted into the size of
    the images that the run was trained on; one with a light border is taken for dark ink on light paper and inverted.
    For reviews, inputs are sentences in quotes, or text files in UTF-8, of which each is one text.
    """
    try:
        opened = Run.open(run)
        shares = predict(opened, files)
    except ValueError as error:
        raise UsageError(str(error)) from None
    show_predictions(files, shares, opened.config["classes"])
