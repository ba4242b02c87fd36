"""The command adamas tune: searches on problems, functions and training runs, by one process or several."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from adamas import problems
from adamas._choices import Choice, find_choice
from adamas._digits import prepare_digits, train_digits
from adamas._experiment import Training
from adamas._flags import at_least, flag, reject, told
from adamas._problem_commands import imported, numbers
from adamas._reviews import prepare_reviews, train_reviews
from adamas._space import Range, checked, parse
from adamas._tune import Tried, Tuned, Tuner
from adamas.rules import RULES
from adamas.training.extras import require

TRAINING: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "digits": (train_digits, prepare_digits),
    "reviews": (train_reviews, prepare_reviews),
}
POLL = 0.5
"""Seconds between looks at the workers."""


def tune_command(
    target: Annotated[
        str, typer.Argument(metavar="PROBLEM", help="A name (adamas problems), MODULE:FUNCTION, digits or reviews.")
    ],
    optimizer: Annotated[str, typer.Option("--optimizer", help="The rule.")] = "adam",
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--space",
            metavar="RANGE",
            help="learning_rate=log:1e-4:1, beta1=0.8:0.99 or nesterov=true,false; may be repeated.",
            show_default="learning_rate=log:1e-5:1",
        ),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", help="Of the study in all, whoever runs them.")] = 100,
    iterations: Annotated[int, typer.Option("--iterations", help="Steps of a run on a problem.")] = 1000,
    starts: Annotated[int, typer.Option("--starts", help="Runs that a trial on a problem is judged by.")] = 5,
    start: Annotated[str | None, typer.Option("--start", metavar="X1,X2,...", help="Of MODULE:FUNCTION.")] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Of a training run.", show_default="the task's")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Of a training run, as of adamas train.", show_default="the task's")
    ] = None,
    sampler: Annotated[str, typer.Option("--sampler", help="random, tpe or qmc.")] = "random",
    pruner: Annotated[str | None, typer.Option("--pruner", help="median, hyperband, asha or wilcoxon.")] = None,
    prune: Annotated[bool, typer.Option("--prune", help="The same as --pruner median.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of starts, noise and draws.")] = 0,
    storage: Annotated[
        str | None, typer.Option("--storage", metavar="URL", help="A database, or the path of a journal.")
    ] = None,
    study: Annotated[str | None, typer.Option("--study", help="Name of the study, there to be continued.")] = None,
    workers: Annotated[int, typer.Option("--workers", help="Processes on this machine; they need a storage.")] = 1,
    worker: Annotated[int | None, typer.Option("--worker", hidden=True)] = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw the search.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all trials.")] = None,
) -> None:
    """Search for hyper-parameters."""
    for option, number in (("--trials", trials), ("--iterations", iterations), ("--starts", starts),
                           ("--workers", workers)):  # fmt: skip
        at_least(1, option, number)
    if workers > 1 and (storage is None or study is None):
        reject("--workers", "need --storage and --study, by which they share their trials")
    with told():
        ranges = dict(map(parse, space or ["learning_rate=log:1e-5:1"]))
        chosen: dict[str, Any] = {
            "starts": starts,
            "seed": seed,
            "sampler": sampler,
            "storage": storage,
            "study": study,
        }
        run = {"epochs": epochs, "data": data}
        tuner = _tuner(
            target, optimizer, ranges, start, run, chosen | {"pruner": pruner or ("median" if prune else None)}
        )
        if worker is not None:
            from adamas import _study  # noqa: PLC0415 - needs Optuna

            _study.search(tuner, trials, iterations, None, worker)
            return
        with _Bar(trials) as bar:
            result = tuner.tune(trials, iterations, progress=bar.add) if workers == 1 else _launched(
                tuner, trials, iterations, workers, bar)  # fmt: skip
        _show(result)
    if json_ is not None:
        json_.write_text(json.dumps([asdict(trial) for trial in result.trials], indent=1) + "\n")
    if plot is not None:
        require("matplotlib", "--plot")
        from adamas import plot as plots  # noqa: PLC0415 - optional

        plots.tuning(result)[0].figure.savefig(plot, dpi=150)
        print(f"drawn: {plot}")


def _tuner(
    target: str,
    optimizer: str,
    space: Mapping[str, Range],
    start: str | None,
    run: dict[str, Any],
    chosen: dict[str, Any],
) -> Tuner:
    """Return the tuner for a target: a training task, a function of the user's, or a problem."""
    choice = find_choice(optimizer)
    if target in TRAINING:
        if choice.name in RULES:
            checked(space, RULES[choice.name])
        return Tuner(_training(target, choice, run | {"seed": chosen["seed"]}), space, **chosen)
    for name, value in run.items():
        if value is not None:
            reject(flag(name), f"is for {' and '.join(TRAINING)}: leave it out")
    if choice.name.startswith("torch:"):
        reject("--optimizer", f"{choice.name} is for {' and '.join(TRAINING)}: name a rule")
    if ":" not in target:
        return Tuner(target, space, optimizer=choice.name, **chosen)
    if start is None:
        reject("--start", f"is needed for {target}, whose dimension is not known")
    problem = problems.own(target, imported(target), numbers(start))
    return Tuner(problem, space, optimizer=choice.name, **chosen)


def _training(task: str, choice: Choice, run: dict[str, Any]) -> Callable[[Any], float]:
    """Return the lowest validation loss of a training run as a function of a trial, which may end at each epoch."""
    import optuna  # noqa: PLC0415 - optional

    command, prepare = TRAINING[task]
    defaults = {name: parameter.default for name, parameter in inspect.signature(command).parameters.items()}
    options = defaults | {"optimizer": choice.name, **run, "given": {}}  # no trial is a run to be resumed
    own = {name: options.pop(name) for name in inspect.signature(prepare).parameters if name in options}
    experiment, settings = prepare(options, **own)
    _, tuned = settings.choices[0]

    def objective(trial: Any) -> float:
        values = tuned | trial.params
        training = Training(experiment, replace(settings, choices=[(choice, values)]), choice, values)
        training.prepare()
        lowest = float("inf")
        for epoch in training.epochs():
            lowest = min(lowest, epoch.validation_loss)
            trial.report(epoch.validation_loss, epoch.epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return lowest

    return objective


def _launched(tuner: Tuner, trials: int, iterations: int, workers: int, bar: "_Bar") -> Tuned:
    """Run workers as processes until the budget is spent; what one leaves behind when it dies is run again."""
    from adamas import _study  # noqa: PLC0415 - needs Optuna

    assert tuner.storage is not None
    _study.check_shared(tuner.storage)
    command = [sys.executable, "-m", "adamas", *sys.argv[1:], "--workers", "1", "--worker"]
    started, running = 0, list[subprocess.Popen[bytes]]()
    with _study.quiet(), _study.opened(tuner, iterations) as study:
        try:
            while running or _study.pending(study) or _study.finished(study) < trials:
                _study.recover(study)
                wanted = trials > _study.finished(study) or _study.waiting(study)
                while wanted and len(running) < workers:
                    started += 1
                    if started > 10 * workers:
                        raise OSError(f"{started - 1} workers ended too early: --workers 1 says why")
                    own = [*command, str(started)]
                    running.append(subprocess.Popen(own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
                sleep(POLL)
                running = [process for process in running if process.poll() is None]
                bar.set(_study.tuned(study, tuner.space))
            return _study.tuned(study, tuner.space)
        finally:
            for process in running:
                process.terminate()
                process.wait()


class _Bar:
    """A progress bar on the terminal: best so far, trials done, pruned, failed, time left."""

    def __init__(self, total: int) -> None:
        columns = (
            TextColumn("{task.completed}/{task.total} trials"),
            BarColumn(20),
            TextColumn("{task.fields[figures]}"),
        )
        console = Console(file=sys.stderr)
        self.progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(compact=True), console=console,
                                 transient=True, disable=not console.file.isatty())  # fmt: skip
        self.task = self.progress.add_task("", total=total, figures="")
        self.trials: list[Tried] = []
        self.shown = 0.0

    def __enter__(self) -> "_Bar":
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def add(self, trial: Tried) -> None:
        """Show one more trial, if the last was not just now."""
        self.trials.append(trial)
        if monotonic() - self.shown > POLL / 5:
            self.set(Tuned(self.trials, {}))

    def set(self, result: Tuned) -> None:
        """Show how far a search is."""
        self.shown = monotonic()
        scores = [trial.score for trial in result.trials if trial.score is not None]
        best = f"best {min(scores):.4g}" if scores else ""
        figures = f"{best}  {result.count('pruned')} pruned  {result.count('failed')} failed"
        self.progress.update(self.task, completed=len(result.trials), figures=figures)


def _show(result: Tuned) -> None:
    """Print the best trials and what became of all."""
    scored = sorted((trial for trial in result.trials if trial.score is not None), key=lambda trial: trial.score or 0.0)
    table = Table(box=None, header_style="")
    for title in ("trial", "score", *result.space):
        table.add_column(title, justify="right", no_wrap=True)
    for trial in scored[:5]:
        values = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in trial.params.values())
        table.add_row(str(trial.number), f"{trial.score:.4e}", *values)
    Console().print(table)
    counts = ", ".join(f"{result.count(state)} {state}" for state in ("complete", "pruned", "failed"))
    print(f"{len(result.trials)} trials: {counts}; {result.diverged} diverged")
    for error in sorted({trial.error for trial in result.trials if trial.error})[:3]:
        print(f"failed: {error}")
    if len(result.space) > 1 and find_spec("optuna") and (shares := result.sensitivity):
        print("the differences are due to " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
    if not scored:
        reject("PROBLEM", "has no score in any trial")
