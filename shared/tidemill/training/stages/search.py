"""A search for the parameters of a pipeline, by Optuna. Its trials are kept in the run's folder, so a search goes on within them."""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import msgspec
import numpy as np

from tidemill.declarations import Model
from tidemill.declarations.project import load_project
from tidemill.declarations.training import Search
from tidemill.errors import MissingExtra, TidemillError
from tidemill.training.classes import in_classes
from tidemill.training.dataset import Note, TrainingSet, taken
from tidemill.training.fitting import fitted_on, is_classifier_of, outputs
from tidemill.training.frames import given
from tidemill.training.stages.evaluate import losses
from tidemill.training.stages.files import RunFiles
from tidemill.training.stages.run import Watch
from tidemill.training.stages.select import ChosenPlaces, chosen_places, of_declared, with_chosen

_STARTUP_TRIALS = 5
_SEARCHED_FROM = 0.5

Parameters = dict[str, Any]


class Best(msgspec.Struct, frozen=True):
    """`parameters`: of the best trial, none if the pipeline is best as it is declared; `loss`: its mean over the folds; `declared`: that of the
    pipeline as it is declared; `trials`: how many were finished, of which some were `pruned` and some `failed`."""

    parameters: Parameters
    loss: float
    declared: float
    trials: int
    pruned: int
    failed: int


def search(
    model: Model, spec: str, before: TrainingSet, files: RunFiles, key: str, note: Note, watch: Watch, ray: str | None = None
) -> Best:
    """`spec`: the project's folder, file or module, which other processes load; `before`: the rows that are not held out; `files`, `key`: where
    finished trials are kept; `ray`: the address of a cluster whose processes search, in the place of those of this machine.

    Raises MissingExtra, RayUnavailable, and TidemillError when the space or every trial fails.
    """
    wanted = model.training.search
    assert wanted is not None
    if find_spec("optuna") is None:
        raise MissingExtra("optuna", "search")
    places = chosen_places(model.pipeline)
    if ray is not None:
        from tidemill.training.stages.ray_pool import RayPool  # noqa: PLC0415 - an extra of its own

        with RayPool(ray, wanted.processes, spec, _load, model.name, places, before) as cluster:
            return _Searching(model, wanted, (files, key), note, watch).run(cluster)
    if wanted.processes == 1:
        return _Searching(model, wanted, (files, key), note, watch).run(_Here(partial(fold_loss, model, before)))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(wanted.processes, context, _begin, (spec, model.name, places, before)) as pool:
        return _Searching(model, wanted, (files, key), note, watch).run(pool)


class _Here(Executor):
    """Does the work at once, in this process."""

    def __init__(self, work: Callable[[Parameters, int], float]) -> None:
        self._work = work

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        """The result of the work, whatever function other processes would call."""
        done = Future[Any]()
        try:
            done.set_result(self._work(*arguments))
        except Exception as error:  # as of another process
            done.set_exception(error)
        return done


class _Searching:
    """The trials: those that were finished before, and those that are still to be done."""

    def __init__(self, model: Model, wanted: Search, kept: tuple[RunFiles, str], note: Note, watch: Watch) -> None:
        self._model, self._wanted, self._note, self._watch = model, wanted, note, watch
        self._files, key = kept
        self._name = f"trials-{key[:12]}.pickle"
        self._optuna = import_module("optuna")
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        pruner = self._optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS)
        self._study = self._optuna.create_study(direction="minimize", pruner=pruner)
        content = self._files.read(self._name)
        if content is not None:
            self._study.add_trials(pickle.loads(content))  # noqa: S301 - of this run, on this machine

    def run(self, pool: Executor) -> Best:
        """Does what is left of the search, and says what was best."""
        declared = self._declared(pool)
        going = dict[Future[float], tuple[Any, Parameters, list[float]]]()
        while True:
            while len(going) < self._wanted.processes and len(self._finished()) + len(going) < self._wanted.trials:
                trial, parameters = self._asked()
                going[pool.submit(fold_in_process, parameters, 0)] = trial, parameters, []
            if not going:
                return self._best(declared)
            for future in wait(going, return_when=FIRST_COMPLETED).done:
                self._took(pool, going, future)

    def _declared(self, pool: Executor) -> float:
        found = [pool.submit(fold_in_process, {}, fold).result() for fold in range(self._wanted.folds)]
        return float(np.mean(found))

    def _asked(self) -> tuple[Any, Parameters]:
        """The next trial and its parameters. A seed for each, also while others go on, makes a search that goes on ask what one that was never
        ended asks, as long as one process searches."""
        number = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = self._optuna.samplers.TPESampler(seed=self._wanted.seed + number, constant_liar=self._wanted.processes > 1)
        trial = self._study.ask()
        try:
            return trial, dict(self._wanted.space(trial))
        except Exception as error:  # the project's own code
            raise TidemillError(
                f"model {self._model.name!r}: the space of its search fails: {type(error).__name__}: {error}",
                mend="return a dict of parameters, each from a suggest method of the trial",
            ) from error

    def _took(self, pool: Executor, going: dict[Future[float], tuple[Any, Parameters, list[float]]], future: Future[float]) -> None:
        """The loss of a fold: the trial goes on, or is over."""
        trial, parameters, found = going.pop(future)
        states = self._optuna.trial.TrialState
        if error := future.exception():
            if isinstance(error, MemoryError):
                raise error
            self._over(trial, states.FAIL, parameters, f"fails: {error}")
            return
        found.append(future.result())
        trial.report(float(np.mean(found)), len(found) - 1)
        if len(found) == self._wanted.folds:
            self._over(trial, states.COMPLETE, parameters, f"loss {np.mean(found):.4g}", float(np.mean(found)))
        elif trial.should_prune():
            self._over(trial, states.PRUNED, parameters, f"pruned at {np.mean(found):.4g}")
        else:
            going[pool.submit(fold_in_process, parameters, len(found))] = trial, parameters, found

    def _over(self, trial: Any, state: Any, parameters: Parameters, said: str, loss: float | None = None) -> None:
        self._study.tell(trial, loss, state=state)
        finished = self._finished()
        self._files.write(self._name, pickle.dumps(finished, protocol=5))
        told = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in parameters.items())
        self._watch("trials", len(finished), self._wanted.trials)
        self._note(f"trial {len(finished)} of {self._wanted.trials}: {told}: {said[:200]}")

    def _finished(self) -> list[Any]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]

    def _best(self, declared: float) -> Best:
        states = self._optuna.trial.TrialState
        counts = {state: sum(trial.state == state for trial in self._finished()) for state in (states.COMPLETE, states.PRUNED, states.FAIL)}
        if not counts[states.COMPLETE]:
            raise TidemillError(
                f"model {self._model.name!r}: no trial of {self._wanted.trials} could be measured",
                mend="see the trials above, and correct the space",
            )
        best = self._study.best_trial
        fixed = self._optuna.trial.FixedTrial(best.params)
        parameters = dict(self._wanted.space(fixed)) if best.value < declared else {}
        return Best(
            parameters, min(float(best.value), declared), declared, sum(counts.values()), counts[states.PRUNED], counts[states.FAIL]
        )


def fold_loss(model: Model, before: TrainingSet, parameters: Mapping[str, Any], fold: int) -> float:
    """The mean loss of one fold: a stretch of the second half of the rows, by a pipeline fitted on all rows before it.

    Raises what the pipeline raises, and ValueError for a loss that is no number.
    """
    wanted = model.training.search
    assert wanted is not None
    probability = is_classifier_of(model)
    before, classes = in_classes(model, before, classifier=probability)
    half = int(len(before) * _SEARCHED_FROM)
    start, end = (half + (len(before) - half) * number // wanted.folds for number in (fold, fold + 1))
    changed = replace(model, pipeline=with_parameters(model.pipeline, parameters))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = fitted_on(changed, taken(before, np.arange(start)))
        rows = taken(before, np.arange(start, end))
        output = outputs(pipeline, given(pipeline, before.inputs, rows.matrix), probability=probability, several=bool(classes))
    if classes and output.shape[1] != len(classes):
        raise ValueError(f"a class has no row before fold {fold + 1}: {len(classes) - output.shape[1]} of {len(classes)} are missing")
    loss = float(losses(rows.labels, output, probability=probability).mean())
    if not math.isfinite(loss):
        raise ValueError(f"a loss of {loss}")
    return loss


def with_parameters(make: Callable[[], Any], parameters: Mapping[str, Any]) -> Callable[[], Any]:
    """The pipeline with other parameters, by the names that the project's own pipeline has for them."""
    return of_declared(make, lambda declared: partial(_set, declared, dict(parameters)))


def _set(make: Callable[[], Any], parameters: Parameters) -> Any:
    return make().set_params(**parameters)


_loaded: tuple[Model, TrainingSet] | None = None


def _load(spec: str, name: str, chosen: ChosenPlaces | None, before: TrainingSet) -> None:
    """What another process needs once: the model as the project declares it, of the columns that were chosen, and the rows."""
    global _loaded  # noqa: PLW0603 - a process of a pool has no other place
    model = load_project(spec).models[name]
    _loaded = model if chosen is None else replace(model, pipeline=with_chosen(model.pipeline, chosen)), before


def _begin(*loaded: Any) -> None:
    """Begins another process of this machine. It ends with the one that made it, which alone is interrupted by the terminal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    _load(*loaded)


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def fold_in_process(parameters: Parameters, fold: int) -> float:
    """`fold_loss` in a process that was made for it."""
    assert _loaded is not None
    return fold_loss(*_loaded, parameters, fold)
