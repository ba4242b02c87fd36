"""Searches by Optuna: its samplers, pruners and storages, and the budget that several workers share."""

import logging
import math
import os
import socket
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import FrozenTrial, TrialState
except ImportError as error:
    raise ImportError("this search needs Optuna, which is missing: pip install 'adamas[tune]'") from error

from adamas._space import Choice, Int, LogUniform, Range
from adamas._tune import ROUND, Progress, Tried, Tuned

if TYPE_CHECKING:
    from adamas._tune import Tuner

RUNGS = 10
"""How often in a run a pruner is asked."""

HEARTBEAT, GRACE = 5, 30
"""Seconds between the signs of life of a trial in a database, and without one until it counts as dead."""

PRUNED_ROUND = 8
"""Trials that are run at once if some may be pruned: pruners compare with those before."""

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}

SAMPLERS: dict[str, Callable[[int | None], Any]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True),
    "qmc": lambda seed: optuna.samplers.QMCSampler(seed=seed, scramble=True),
}
PRUNERS: dict[str, Callable[[int], Any]] = {
    "median": lambda steps: optuna.pruners.MedianPruner(n_startup_trials=5),  # noqa: ARG005
    "hyperband": lambda steps: optuna.pruners.HyperbandPruner(min_resource=max(1, steps // 27), max_resource=steps),
    "asha": lambda steps: optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, steps // 27)),
    "wilcoxon": lambda steps: optuna.pruners.WilcoxonPruner(),  # noqa: ARG005
}


def _picked(what: str, given: Any, known: Mapping[str, Callable[[Any], Any]], argument: Any) -> Any:
    if not isinstance(given, str):
        return given
    if given not in known:
        raise ValueError(f"{what} must be one of {', '.join(map(repr, known))}, got {given!r}")
    return known[given](argument)


def open_storage(url: str | None, workers: int = 1) -> Any:
    """Return an Optuna storage: memory, a journal in a file, or the database of a URL.

    Raises ValueError for SQLite with several workers, and OSError, in one line, if it cannot be reached.
    """
    if url is None:
        return None
    if url.startswith("sqlite") and workers > 1:
        raise ValueError(
            f"storage {url!r} is SQLite, which locks the whole file for each write and may lose trials of {workers} "
            "workers: use the path of a journal on one machine, or PostgreSQL"
        )
    if "://" not in url:
        try:
            return optuna.storages.JournalStorage(JournalFileBackend(url))
        except OSError as error:
            raise OSError(f"storage {url!r} cannot be opened as a journal: {error.strerror or error}") from None
    retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=3)
    try:
        return optuna.storages.RDBStorage(
            url.replace("postgresql://", "postgresql+psycopg://", 1),
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=retry,
            engine_kwargs={"pool_pre_ping": True},
        )
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise OSError(f"storage {url!r} cannot be reached: {lines[0]}") from None


def open_study(tuner: "Tuner", iterations: int, seed: int | None) -> Any:
    """Return the study of a tuner, which is continued if it is there."""
    optuna.logging.set_verbosity(logging.ERROR)  # failures are counted, and told in the end
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = _picked("sampler", tuner.sampler, SAMPLERS, seed)
        pruner = _picked("pruner", tuner.pruner, PRUNERS, iterations) or optuna.pruners.NopPruner()
    storage = open_storage(tuner.storage) if isinstance(tuner.storage, str) else tuner.storage
    return optuna.create_study(
        storage=storage, study_name=tuner.study, sampler=sampler, pruner=pruner, load_if_exists=tuner.study is not None
    )


def search(tuner: "Tuner", num_trials: int, iterations: int, progress: Progress | None) -> Tuned:
    """Return what trials found until there are so many in the study, whoever runs them."""
    study = open_study(tuner, iterations, tuner.seed)
    while (left := num_trials - finished(study)) > 0:
        if tuner.problem is not None and tuner.storage is None and tuner.pruner != "wilcoxon":
            at_once = ROUND.get(str(tuner.sampler), 1) if tuner.pruner is None else PRUNED_ROUND
            _round(tuner, study, min(left, at_once), iterations, progress)
        else:
            called = [] if progress is None else [lambda _, trial: progress(_tried(trial))]
            study.optimize(_objective(tuner, iterations), n_trials=1, catch=(Exception,), callbacks=called)
    return tuned(study, tuner.space)


def finished(study: Any) -> int:
    """Return how many trials count: those that ended by themselves, not those that died with their worker."""
    trials = study.get_trials(deepcopy=False)
    return sum(t.state in STATES and (t.state != TrialState.FAIL or "error" in t.user_attrs) for t in trials)


def _round(tuner: "Tuner", study: Any, n: int, iterations: int, progress: Progress | None) -> None:
    """Run some trials on a problem as rows of one array."""
    trials = [study.ask() for _ in range(n)]
    rows = [{name: given.suggest(trial, name) for name, given in tuner.space.items()} for trial in trials]
    alive, pruned = list(range(n)), set[int]()

    def report(steps: int, losses: Any) -> Any:
        middle = np.median(losses, axis=1)
        keep = np.ones(len(alive), bool)
        for k, i in enumerate(alive):
            trials[i].report(float(middle[k]), steps)
            if trials[i].should_prune():
                keep[k] = False
                pruned.add(i)
        alive[:] = [i for k, i in enumerate(alive) if keep[k]]
        return keep

    pruning = tuner.pruner is not None
    losses = tuner.run(rows, iterations, every=max(1, iterations // RUNGS), report=report if pruning else None)
    best = np.median(losses.best, axis=1)
    for i, trial in enumerate(trials):
        trial.set_user_attr("best", float(best[i]))
        over = {"state": TrialState.PRUNED} if i in pruned else {"values": losses.scores[i]}
        done = study.tell(trial, **over)
        if progress is not None:
            progress(_tried(done))


def _objective(tuner: "Tuner", iterations: int) -> Callable[[Any], float]:
    """Return what a worker runs for one trial; what goes wrong in it is remembered."""

    def run(trial: Any) -> float:
        trial.set_user_attr("worker", worker_name())
        for name, given in tuner.space.items():
            given.suggest(trial, name)
        try:
            score = (
                _on_problem(tuner, trial, iterations) if tuner.problem is not None else float(tuner.objective(trial))
            )
        except optuna.TrialPruned:
            raise
        except Exception as error:
            trial.set_user_attr("error", f"{type(error).__name__}: {error}")
            raise
        if math.isnan(score):
            trial.set_user_attr("error", "the objective returned NaN")
        return score

    return run


def worker_name() -> str:
    """Return what tells this process from others, on all machines."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _on_problem(tuner: "Tuner", trial: Any, iterations: int) -> float:
    """Run one trial on a problem, by starts one after another for the Wilcoxon pruner, else all at once."""
    if tuner.pruner == "wilcoxon":
        finals = list[float]()
        for k in range(len(tuner.starts)):
            finals += tuner.run([trial.params], iterations, slice(k, k + 1)).scores
            trial.report(finals[-1], k)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(np.median(finals))
    pruned = False

    def report(steps: int, losses: Any) -> Any:
        nonlocal pruned
        trial.report(float(np.median(losses)), steps)
        pruned = trial.should_prune()
        return np.array([not pruned])

    losses = tuner.run([trial.params], iterations, every=max(1, iterations // RUNGS),
                       report=None if tuner.pruner is None else report)  # fmt: skip
    trial.set_user_attr("best", float(np.median(losses.best)))
    if pruned:
        raise optuna.TrialPruned
    return losses.scores[0]


def _tried(trial: FrozenTrial) -> Tried:
    state = STATES[trial.state]
    score = trial.value if state == "complete" else None
    return Tried(trial.number, trial.params, score, trial.user_attrs.get("best"), state,
                 trial.user_attrs.get("error", ""))  # fmt: skip


def tuned(study: Any, space: Mapping[str, Range]) -> Tuned:
    """Return the result of a study: the trials that are over, but for those that died and were run again."""
    over = [t for t in study.get_trials(deepcopy=False) if t.state in STATES]
    return Tuned([_tried(t) for t in over if t.state != TrialState.FAIL or "error" in t.user_attrs], space)


def importances(result: Tuned) -> dict[str, float]:
    """Return the importance of each hyper-parameter for the scores of a search."""
    scored = [trial for trial in result.trials if trial.score is not None]
    if len(scored) < 4 or len({trial.score for trial in scored}) < 2:
        return {}
    study = optuna.create_study()
    distributions = {name: _distribution(given) for name, given in result.space.items()}
    for trial in scored:
        made = optuna.trial.create_trial(params=dict(trial.params), distributions=distributions, value=trial.score)
        study.add_trial(made)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _distribution(given: Range) -> Any:
    if isinstance(given, Choice):
        return optuna.distributions.CategoricalDistribution(given.options)
    if isinstance(given, Int):
        return optuna.distributions.IntDistribution(given.low, given.high)
    return optuna.distributions.FloatDistribution(given.low, given.high, log=isinstance(given, LogUniform))
