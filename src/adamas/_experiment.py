"""What every training command does once it has its examples and its network: train, show, keep, compare."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import adamas
from adamas import _tree
from adamas._checkpoint import Checkpoint
from adamas._checkpoints import CheckpointManager
from adamas._choices import Choice, find_choice, find_choices
from adamas._flags import RANGES, Schedule, UsageError, at_least, reject
from adamas.training import Epoch, Model, Parts, Progress, Run, Scores, count_steps, pictures, train
from adamas.training.console import monitor, show_baselines, show_comparison, show_results

__all__ = ["Experiment", "Settings", "conduct"]

GROUPS = [("*.bias", {"weight_decay": 0.0})]
"""Biases do not decay."""

MOST_STEPS = 1000
"""From one checkpoint to the next, where an epoch is longer."""

RECORDED = 300
"""Steps of a run that are recorded, about: the others cost nothing."""


@dataclass(frozen=True)
class Settings:
    """What the options that all training commands share ask for."""

    choices: Sequence[tuple[Choice, dict[str, Any]]]
    """Optimizers and their hyper-parameters."""
    comparison: bool
    epochs: int
    batch_size: int
    patience: int
    schedule: Schedule
    warmup: int
    threads: int | None
    seed: int
    out: Path | None
    checkpoint_every: int | None
    resume: Path | None
    """The folder of the run to go on with."""
    given: Mapping[str, Any]
    """The options as they were given, for config.json."""

    @classmethod
    def of(
        cls,
        options: Mapping[str, Any],
        tuned: Mapping[str, Mapping[str, Any]],
        *,
        epochs: int,
        batch_size: int,
        patience: int,
    ) -> "Settings":
        """Return the settings for a command's options, with these defaults; raises UsageError if one is wrong.

        tuned: hyper-parameters that suit the task better than the defaults, by the name of the rule in lower case.
        """
        own = {name: value for name, value in options.items() if name not in RANGES}
        for name, default in {"epochs": epochs, "batch_size": batch_size, "patience": patience}.items():
            own[name] = default if own[name] is None else own[name]
        optimizer, compare = own.pop("optimizer"), own.pop("compare")
        if optimizer is not None and compare is not None:
            reject("--optimizer", "and --compare exclude each other: give one")
        choices = [find_choice(optimizer or "AdamW")] if compare is None else find_choices(compare)
        at_least(1, "--epochs", own["epochs"])
        at_least(1, "--batch-size", own["batch_size"])
        at_least(0, "--patience", own["patience"])
        at_least(0, "--warmup", own["warmup"])
        _check_threads(own["threads"])
        at_least(0, "--seed", own["seed"])
        if own["checkpoint_every"] is not None:
            at_least(1, "--checkpoint-every", own["checkpoint_every"])
        given = {name: value for name, value in options.items() if name in RANGES}
        values = [choice.values(given, tuned.get(choice.name.rpartition(":")[2].lower(), {})) for choice in choices]
        return cls(list(zip(choices, values, strict=True)), compare is not None, **own)

    def streams(self) -> list[np.random.Generator]:
        """Return the sources of chance: of the split, the first weights, the order of examples, their augmentation."""
        return np.random.default_rng(self.seed).spawn(4)


@dataclass(frozen=True)
class Experiment:
    """What is trained.

    task: its name in `adamas.training.tasks.TASKS`. noun: what an example is, in the plural.
    parts: the examples.
    build: returns a new network and its first parameters, the same for the same random numbers.
    details: what config.json has to say for the network to be built again, and what else of the task it should.
    in_torch: whether PyTorch computes it.
    augment: what is done to the inputs of each batch, if anything.
    files: texts to be kept in the folder of each run, by their names, such as a vocabulary.
    baselines: what a network has to beat, by its name: test_accuracy and test_balanced_accuracy.
    """

    task: str
    noun: str
    parts: Parts
    build: Callable[[np.random.Generator], tuple[Model, Any]]
    details: Mapping[str, Any]
    in_torch: bool
    augment: Callable[[NDArray[Any], np.random.Generator], NDArray[Any]] | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def conduct(experiment: Experiment, settings: Settings) -> None:
    """Train with each optimizer chosen, show and keep what comes of it.

    Raises UsageError if a loss is lost, in the end; what was done before is kept, as it is after Ctrl-C.
    """
    _set_threads(experiment, settings)
    trainings = [Training(experiment, settings, *choice) for choice in settings.choices]
    for training in trainings:
        training.prepare()
    if not settings.comparison:
        (training,) = trainings
        results = training.folder(settings.out, settings.resume)
        training.introduce()
        training.run(results)
        if training.lost:
            raise UsageError(training.lost)
        return
    first = trainings[0].config
    shared = {name: value for name, value in first.items() if all(t.config[name] == value for t in trainings)}
    names = [choice.name for choice, _ in settings.choices]
    folder = settings.resume or _results(settings.out, experiment.task, {"comparison": names, **shared}).path
    trainings[0].introduce()
    try:
        for training in trainings:
            inside = folder / training.choice.name.replace(":", "-")
            training.run(training.folder(inside, inside if (inside / "config.json").is_file() else None))
    finally:
        _compare([training for training in trainings if training.results], folder)
    if lost := [training for training in trainings if training.lost]:
        raise UsageError("; ".join(f"{training.choice.name}: {training.lost}" for training in lost))


def _check_threads(threads: int | None) -> None:
    if threads is not None:
        at_least(1, "--threads", threads)
        if threads > (most := os.cpu_count() or 1):
            reject("--threads", f"must be at most {most}, the number of cores, got {threads}")


def _set_threads(experiment: Experiment, settings: Settings) -> None:
    """Give PyTorch its threads.

    One by default: the networks are small, a second thread makes a step a tenth faster where the machine is idle and
    many times slower where it is not; and the results are the same on every number of cores.
    """
    if experiment.in_torch:
        import torch  # noqa: PLC0415 - optional

        torch.set_num_threads(settings.threads or 1)
    elif settings.threads is not None:
        reject("--threads", "is for networks in PyTorch: leave it out")


def _compare(trainings: "list[Training]", folder: Path) -> None:
    """Draw and print runs together."""
    if trainings:
        histories = {training.choice.name: training.run_folder.history for training in trainings}
        pictures.draw_comparison(histories, folder / "compare.png", trainings[0].title)
        show_comparison({t.choice.name: (t.values["learning_rate"], t.results) for t in trainings})
        show_baselines(trainings[0].results)
    print(f"the comparison is in {folder}", flush=True)


class Training:
    """One run of an experiment: with one optimizer.

    results: what results.json says, empty as long as there are none. lost: how the loss was lost, if it was.
    """

    run_folder: Run

    def __init__(self, experiment: Experiment, settings: Settings, choice: Choice, values: dict[str, Any]) -> None:
        self.experiment, self.settings, self.choice, self.values = experiment, settings, choice, values
        parts = experiment.parts
        self.steps = settings.epochs * count_steps(len(parts.train), settings.batch_size)
        if settings.warmup >= self.steps:
            reject("--warmup", f"must be less than the {self.steps} steps of the run, got {settings.warmup}")
        self.results: dict[str, Any] = {}
        self.lost = ""
        self.title = f"{experiment.task}, seed {settings.seed}"
        config: dict[str, Any] = {"task": experiment.task, "adamas": adamas.__version__, "engine": adamas.engine}
        config |= {"optimizer": choice.name, "hyperparameters": self.values, "groups": self.groups}
        config |= {name: getattr(settings, name) for name in ("schedule", "warmup", "epochs", "batch_size", "patience")}
        config |= {
            "seed": settings.seed,
            "classes": parts.test.classes,
            **experiment.details,
            "options": settings.given,
        }
        self.config = config | {f"{name}_examples": len(part) for name, part in parts._asdict().items()}

    @property
    def groups(self) -> list[tuple[str, dict[str, float]]]:
        """The groups that the optimizer has a use for."""
        return [group for group in GROUPS if all(name in self.choice.defaults for name in group[1])]

    def prepare(self) -> None:
        """Make the network and the optimizer, which may find faults, before anything is written."""
        settings = self.settings
        _, for_weights, self.for_order, self.for_augment = settings.streams()
        self.model, self.params = self.experiment.build(for_weights)
        rate = settings.schedule.of(self.values["learning_rate"], self.steps, settings.warmup)
        self.stepper = self.choice.make(self.params, self.values | {"learning_rate": rate}, self.groups)
        if (mode := self.experiment.details.get("sparse", "dense")) != "dense":
            self.stepper.sparse = mode  # type: ignore[attr-defined]  # the command has refused others

    def folder(self, out: Path | None, resume: Path | None) -> Run:
        """Return the folder of the run, new or the one to go on with; raises UsageError if it is not like this one."""
        if resume is None:
            return _results(out, self.experiment.task, self.config)
        stored = json.loads((resume / "config.json").read_text())
        for name, value in json.loads(json.dumps(self.config)).items():
            if name not in ("adamas", "engine") and stored.get(name) != value:
                reject(
                    "--resume", f"{str(resume)!r} had {stored.get(name)!r:.60} for {name}, and now it is {value!r:.60}"
                )
        return Run(resume, self.config)

    def run(self, folder: Run) -> None:
        """Train; keep and show each epoch, then the whole: also what was done before Ctrl-C or a loss that is lost."""
        experiment, settings, self.run_folder = self.experiment, self.settings, folder
        values = ", ".join(f"{name}={value!r}" for name, value in self.values.items())
        print(f"{self.choice.name}({values}), {settings.schedule}", flush=True)
        for name, text in experiment.files.items():
            (folder.path / name).write_text(text, encoding="utf-8")
        folder.steps.every = max(1, self.steps // RECORDED)
        if folder.complete:
            self._show_complete()
            return
        progress, checkpoints = Progress(), self._checkpoints()
        if (saved := checkpoints.resume()) is not None:
            with saved:
                self._go_on(saved, progress)

        def after_step() -> None:
            view.step()
            if progress.steps % checkpoints.every == 0:
                folder.keep_steps()  # first, so that there are never fewer than the checkpoint says
                checkpoints.save(self.stepper, self.params, **self._state(progress))

        try:
            with monitor(settings.epochs, self.steps, progress.steps) as view:
                for epoch in self.epochs(after_step=after_step, history=folder.steps, progress=progress):
                    folder.record(epoch, self.params)
                    view.epoch(epoch)
        except FloatingPointError as error:
            self.lost = f"{error}: try a lower --learning-rate"
        except BaseException:
            self._conclude()
            raise
        self._conclude()
        folder.close()

    def _checkpoints(self) -> CheckpointManager:
        """Return what keeps the checkpoints of the run: one per epoch, or more if those are long."""
        settings = self.settings
        epoch = count_steps(len(self.experiment.parts.train), settings.batch_size)
        every = settings.checkpoint_every or min(epoch, MOST_STEPS)
        return CheckpointManager(self.run_folder.checkpoints, every=every, keep=2)

    def _state(self, progress: Progress) -> dict[str, Any]:
        """Return what has to be known, besides the optimizer and the parameters, to go on from here."""
        drawn = {"augment": self.for_augment.bit_generator.state, "model": getattr(self.model, "random_state", None)}
        return {"progress": asdict(progress), "random": drawn}

    def _go_on(self, saved: Checkpoint, progress: Progress) -> None:
        """Put everything back to where a checkpoint says that it was."""
        state, drawn = saved.metadata["progress"], saved.metadata["random"]
        for name, value in state.items():
            setattr(progress, name, value)
        self.stepper.load(saved.path)
        saved.params(self.params)
        self.for_augment.bit_generator.state = drawn["augment"]
        if drawn["model"] is not None:
            self.model.random_state = drawn["model"]  # type: ignore[attr-defined]
        self.run_folder.rewind(progress.epoch - 1, progress.steps)
        print(f"goes on after step {progress.steps}, in epoch {progress.epoch}", flush=True)

    def _show_complete(self) -> None:
        """Say what came of a run that is complete."""
        folder = self.run_folder = Run.open(self.run_folder.path)
        self.results = json.loads((folder.path / "results.json").read_text())
        print(f"the run is complete: {len(folder.history)} epochs are in {folder.path}", flush=True)
        if not self.settings.comparison:
            show_results(self.results, folder.history[-1].steps)
            show_baselines(self.results)

    def epochs(self, **options: Any) -> Iterator[Epoch]:
        """Train, and yield what is known after each epoch; options: of `train`."""
        parts, settings = self.experiment.parts, self.settings
        return train(
            self.model, self.params, self.stepper, parts.train, parts.validation, epochs=settings.epochs,
            batch_size=settings.batch_size, rng=self.for_order, patience=settings.patience, augment=self._augment,
            **options,
        )  # fmt: skip

    def _augment(self, inputs: NDArray[Any]) -> NDArray[Any]:
        augment = self.experiment.augment
        return inputs if augment is None else augment(inputs, self.for_augment)

    def introduce(self) -> None:
        """Print what all runs of the experiment share."""
        parts, parameters = self.experiment.parts, sum(array.size for _, array in _tree.leaves(self.params))
        sizes = f"{len(parts.train):,} {self.experiment.noun} to train on, {len(parts.validation):,} to validate by"
        print(f"{sizes}, {len(parts.test):,} to test on; {parameters:,} parameters; engine: {adamas.engine}")

    def _conclude(self) -> None:
        """Judge the best weights by the test examples; draw, show and keep what is known."""
        folder, test = self.run_folder, self.experiment.parts.test
        if folder.history:
            folder.restore(self.params)
            scores = Scores.of(self.model.logits(self.params, test.inputs), test.labels, len(test.classes))
            words = f"{self.choice.name} on {self.title}: test accuracy {scores.accuracy:.4f}"
            pictures.draw_run(folder.history, folder.path / "loss.png", words)
            self.results = folder.finish(scores, test.classes, self.experiment.baselines)
            if not self.settings.comparison:
                show_results(self.results, folder.history[-1].steps)
                show_baselines(self.results)
        print(f"{len(folder.history)} of {self.settings.epochs} epochs are in {folder.path}", flush=True)


def _results(out: Path | None, task: str, config: Mapping[str, Any]) -> Run:
    try:
        return Run.create(out, task, config)
    except OSError as error:
        reject("--out", f"{str(out or 'runs')!r} cannot be used: {error.strerror or error}: name a new folder")
