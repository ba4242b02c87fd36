"""Searches by Optuna: its samplers, pruners and storages, and the budget that several workers share."""

import logging
import math
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
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


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's messages and warnings of experiments back: failures are counted, and told in the end."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _picked(what: str, given: Any, known: Mapping[str, Callable[[Any], Any]], argument: Any) -> Any:
    if not isinstance(given, str):
        return given
    if given not in known:
        raise ValueError(f"{what} must be one of {', '.join(map(repr, known))}, got {given!r}")
    return known[given](argument)


def check_shared(url: str) -> None:
    """Raise ValueError if a storage is not for several workers."""
    if url.startswith("sqlite"):
        raise ValueError(
            f"storage {url!r} is SQLite, which locks the whole file for each write and may lose trials of several "
            "workers: use the path of a journal on one machine, or PostgreSQL"
        )


@quiet()
def open_storage(url: str | None) -> Any:
    """Return an Optuna storage: memory, a journal in a file, or the database of a URL.

    Raises OSError, in one line, if it cannot be reached.
    """
    if url is None:
        return None
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


@contextmanager
def opened(tuner: "Tuner", iterations: int, worker: int = 0) -> Iterator[Any]:
    """Open the study of a tuner, which is continued if it is there, and close its storage in the end.

    The sampler's seed depends on the tuner's, the worker and how many trials there are, so that none repeats another.
    """
    with stored(tuner.storage) as storage:
        yield _study_in(storage, tuner, iterations, worker)


@contextmanager
def stored(url: str | None) -> Iterator[Any]:
    """Open a storage, and close it in the end."""
    storage = open_storage(url)
    try:
        yield storage
    finally:
        if isinstance(storage, optuna.storages.RDBStorage):
            storage.remove_session()
            storage.engine.dispose()


def _study_in(storage: Any, tuner: "Tuner", iterations: int, worker: int) -> Any:
    """Return the study of a tuner with its sampler and its pruner."""
    study = optuna.create_study(storage=storage, study_name=tuner.study, load_if_exists=tuner.study is not None)
    own = [tuner.seed, worker, len(study.get_trials(deepcopy=False))]
    seed = tuner.seed if tuner.sampler == "qmc" else int(np.random.SeedSequence(own).generate_state(1)[0])
    study.sampler = _picked("sampler", tuner.sampler, SAMPLERS, seed)
    study.pruner = _picked("pruner", tuner.pruner, PRUNERS, iterations) or optuna.pruners.NopPruner()
    return study


@quiet()
def search(tuner: "Tuner", num_trials: int, iterations: int, progress: Progress | None, worker: int = 0) -> Tuned:
    """Return what trials found until there are so many in the study, whoever runs them, and none waits to be run."""
    with opened(tuner, iterations, worker) as study:
        if tuner.storage is not None:
            recover(study)  # what an interrupted search left
        _spend(tuner, study, num_trials, iterations, progress)
        return tuned(study, tuner.space)


def _spend(tuner: "Tuner", study: Any, num_trials: int, iterations: int, progress: Progress | None) -> None:
    """Run trials until the budget is spent."""
    while (left := num_trials - finished(study)) > 0 or waiting(study):
        if tuner.problem is not None and tuner.storage is None and tuner.pruner != "wilcoxon":
            at_once = ROUND.get(str(tuner.sampler), 1) if tuner.pruner is None else PRUNED_ROUND
            _round(tuner, study, max(1, min(left, at_once)), iterations, progress)
        else:
            called = [] if progress is None else [lambda _, trial: progress(_tried(trial))]
            study.optimize(_objective(tuner, iterations), n_trials=1, catch=(Exception,), callbacks=called)


def pending(study: Any) -> bool:
    """Return whether trials run, here or elsewhere, or wait to be run."""
    return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING)))


def waiting(study: Any) -> bool:
    """Return whether trials wait to be run."""
    return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def recover(study: Any) -> int:
    """Fail the trials whose worker on this machine is dead, and have them run again; return how many there were.

    A trial that died before it said whose it was counts as dead after a while.
    """
    found = 0
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        host, _, pid = trial.user_attrs.get("worker", "").rpartition(":")
        if host:
            dead = host == socket.gethostname() and not _lives(int(pid))
        else:
            begun = trial.datetime_start
            dead = begun is not None and (datetime.now(begun.tzinfo) - begun).total_seconds() > GRACE
        if dead:
            try:
                study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            except optuna.exceptions.UpdateFinishedTrialError:  # it ended while we looked
                continue
            whole = study._storage.get_trial(trial._trial_id)  # what we saw may be from before it drew all of them
            study.enqueue_trial(whole.params, user_attrs={"again": trial.number})
            found += 1
    return found


def _lives(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def finished(study: Any) -> int:
    """Return how many trials count: those that ended by themselves, not those that died with their worker."""
    trials = study.get_trials(deepcopy=False)
    return sum(t.state in STATES and (t.state != TrialState.FAIL or "error" in t.user_attrs) for t in trials)


def _round(tuner: "Tuner", study: Any, n: int, iterations: int, progress: Progress | None) -> None:
    """Run some trials on a problem side by side."""
    trials = [study.ask() for _ in range(n)]
    rows = [{name: given.suggest(trial, name) for name, given in tuner.space.items()} for trial in trials]
    pruned = set[int]()

    def report(steps: int, alive: Any, losses: Any) -> Any:
        for i, loss in zip(alive.tolist(), np.median(losses, axis=1).tolist(), strict=True):
            trials[i].report(loss, steps)
            if trials[i].should_prune():
                pruned.add(i)
        return np.array([i not in pruned for i in alive.tolist()])

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
                _on_problem(tuner, trial, iterations) if tuner.problem is not None else float(tuner.objective(trial))  # type: ignore[misc]
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

    def report(steps: int, alive: Any, losses: Any) -> Any:  # noqa: ARG001 - there is one row
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


@quiet()
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
