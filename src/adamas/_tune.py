"""Hyper-parameter search: the tuner, and what it returns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adamas import problems
from adamas._compare import starts_of
from adamas._optimizers import find_optimizer
from adamas._rows import DIVERGED, Losses, run_rows
from adamas._space import Range, checked
from adamas.problems import Problem

Array = Any
Progress = Callable[["Tried"], object]

ROUND = {"random": 4096, "qmc": 4096, "tpe": 8}
"""Trials that are run at once: TPE learns from those before."""


@dataclass(frozen=True)
class Tried:
    """A trial.

    score: what is compared, lower is better: the median over the starts of the loss above the minimum in the end, or
    what the objective returned; None if it failed or was pruned. best: the same of the lowest loss on the way.
    state: "complete", "pruned" or "failed". error: why it failed.
    """

    number: int
    params: Mapping[str, Any]
    score: float | None
    best: float | None = None
    state: str = "complete"
    error: str = ""


@dataclass(frozen=True)
class Tuned:
    """What a search found; unpacks as the pair best_params, best_score.

    trials: all of them, in order. space: what was searched.
    """

    trials: Sequence[Tried]
    space: Mapping[str, Range] = field(repr=False)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.best_params, self.best_score))

    @property
    def best(self) -> Tried:
        """The trial with the lowest score; raises ValueError if there is none with a score."""
        scored = [trial for trial in self.trials if trial.score is not None]
        if not scored:
            errors = {trial.error for trial in self.trials if trial.error}
            why = f": {sorted(errors)[0]}" if errors else ""
            raise ValueError(f"none of {len(self.trials)} trials has a score{why}")
        return min(scored, key=lambda trial: trial.score or 0.0)

    @property
    def best_params(self) -> dict[str, Any]:
        """The hyper-parameters of the best trial."""
        return dict(self.best.params)

    @property
    def best_score(self) -> float:
        """The score of the best trial."""
        return float(self.best.score or 0.0)

    def count(self, state: str) -> int:
        """Return how many trials are "complete", "pruned" or "failed"."""
        return sum(trial.state == state for trial in self.trials)

    @property
    def diverged(self) -> int:
        """How many trials diverged: their score is 1e30."""
        return sum(trial.score is not None and trial.score >= DIVERGED for trial in self.trials)

    @property
    def sensitivity(self) -> dict[str, float]:
        """The share that each hyper-parameter has in the differences between scores, by Optuna's PED-ANOVA.

        Watanabe, Bansal and Hutter 2023, arXiv:2304.10255. Empty if there are fewer than four scores.
        """
        from adamas._study import importances  # noqa: PLC0415 - needs Optuna

        return importances(self)

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame with a row for each trial."""
        import pandas as pd  # noqa: PLC0415 - optional

        rows = [{"number": t.number, **t.params, "score": t.score, "best": t.best, "state": t.state}
                for t in self.trials]  # fmt: skip
        return pd.DataFrame(rows)


class Tuner:
    """A search for hyper-parameters of a rule on a problem, or for whatever makes a function small.

    objective: a problem, or its name; a function of an array that returns value and gradient, with `start`; or any
        ``objective(trial)`` that returns what is to be small, for which ``trial.params`` has what was drawn, and
        ``trial.report(value, step)`` and ``trial.should_prune()`` are Optuna's.
    space: hyper-parameter -> `LogUniform`, `Uniform`, `Int` or `Choice`.
    optimizer: the rule. starts: how many runs each trial is judged by, the same for all trials; the first is the
        problem's own start, the others are a tenth of its domain away. seed: of those, of the noise, which is the same
        for all trials, and of the sampler.
    sampler: "random", "tpe" or "qmc", or an Optuna sampler. pruner: None, "median", "hyperband", "asha" or "wilcoxon",
        or an Optuna pruner. storage: None for memory, the path of a journal, or the URL of a database; study: its
        name there. All but random search in memory needs Optuna: pip install 'adamas[tune]'.
    """

    def __init__(
        self,
        objective: Any,
        space: Mapping[str, Range],
        *,
        optimizer: str = "adam",
        start: Any = None,
        starts: int = 5,
        seed: int = 0,
        sampler: Any = "random",
        pruner: Any = None,
        storage: str | None = None,
        study: str | None = None,
    ) -> None:
        self.problem = _problem(objective, start)
        self.objective = objective if self.problem is None else None
        self.rule = None if self.problem is None else find_optimizer("optimizer", optimizer).rule
        self.space = checked(space, self.rule)
        for name, number, least in (("starts", starts, 1), ("seed", seed, 0)):
            if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {number!r}")
        self.starts = np.empty(0) if self.problem is None else starts_of(self.problem, starts, seed)
        self.seed, self.sampler, self.pruner, self.storage, self.study = seed, sampler, pruner, storage, study

    def tune(self, num_trials: int = 100, iterations: int = 1000, *, progress: Progress | None = None) -> Tuned:
        """Return what a number of trials found; those that are in the storage count, so a search can be continued.

        iterations: steps of each run on a problem. progress: called with each trial that is over.
        """
        for name, number in (("num_trials", num_trials), ("iterations", iterations)):
            if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {number!r}")
        if self.problem is not None and self.sampler == "random" and self.pruner is None and self.storage is None:
            return self._at_random(num_trials, iterations, progress)
        from adamas._study import search  # noqa: PLC0415 - needs Optuna

        return search(self, num_trials, iterations, progress)

    def run(
        self, rows: Sequence[Mapping[str, Any]], iterations: int, which: slice = slice(None), **report: Any
    ) -> Losses:
        """Return what becomes of some hyper-parameters on the problem, all at once, from some of the starts."""
        assert self.problem is not None
        assert self.rule is not None
        return run_rows(self.problem, self.rule, rows, self.starts[which], iterations, self.seed, **report)

    def _at_random(self, num_trials: int, iterations: int, progress: Progress | None) -> Tuned:
        rng, trials = np.random.default_rng(self.seed), list[Tried]()
        while len(trials) < num_trials:
            n = min(ROUND["random"], num_trials - len(trials))
            draws = {name: given.draw(rng, n) for name, given in self.space.items()}
            rows = [{name: draw[i] for name, draw in draws.items()} for i in range(n)]
            losses = self.run(rows, iterations)
            for row, score, best in zip(rows, losses.scores, np.median(losses.best, axis=1).tolist(), strict=True):
                trials.append(Tried(len(trials), row, score, best))
                if progress is not None:
                    progress(trials[-1])
        return Tuned(trials, self.space)


def _problem(objective: Any, start: Any) -> Problem | None:
    """Return the problem that an objective is, None if it is a function of a trial."""
    if isinstance(objective, Problem):
        return objective
    if isinstance(objective, str):
        return problems.get(objective)
    if not callable(objective):
        raise TypeError(f"objective must be a problem, its name or a function, got {objective!r}")
    if start is None:
        return None
    return problems.own(getattr(objective, "__name__", "objective"), objective, start)
