"""adamas.torch under torch.distributed: real processes over gloo, compared with what one process makes of the same."""

import multiprocessing
import os
import traceback
import warnings
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import adamas.torch

with warnings.catch_warnings():  # torch uses there what it deprecates
    warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
    from torch.distributed.optim import ZeroRedundancyOptimizer

RANKS = 2
DEADLINE = 60.0  # seconds for the processes to start and do one task: a hang fails
STEPS = 12
BATCH = 16
OPTIMIZERS = {
    "AdamW": (adamas.torch.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    "Adam, amsgrad": (adamas.torch.Adam, {"lr": 0.01, "amsgrad": True}),
    "SGD, momentum": (adamas.torch.SGD, {"lr": 0.1, "momentum": 0.9}),
}
DDP_MODES = {
    "as it comes": {},
    "gradients are views": {"gradient_as_bucket_view": True},
    "static graph": {"static_graph": True},
    "small buckets": {"gradient_as_bucket_view": True, "bucket_cap_mb": 0.0005},
}

# --- processes --------------------------------------------------------------------------------------------------------


def serve(rank: int, rendezvous: Path, tasks: Any) -> None:
    """Run tasks as a member of a group of processes, until it is ended."""
    warnings.simplefilter("error")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    limit = timedelta(seconds=DEADLINE)
    distributed.init_process_group("gloo", init_method=rendezvous.as_uri(), rank=rank, world_size=RANKS, timeout=limit)
    while True:
        function, arguments = tasks.recv()
        try:
            answer = True, function(rank, *arguments)
        except Exception:
            answer = False, traceback.format_exc()
        tasks.send(answer)


class Group:
    """Processes that run one function after the other, each together."""

    def __init__(self, directory: Path) -> None:
        context = multiprocessing.get_context("spawn")  # a forked child cannot use the threads of its parent
        self.connections, self.processes = [], []
        for rank in range(RANKS):
            ours, theirs = context.Pipe()
            arguments = rank, directory / "rendezvous", theirs
            self.connections.append(ours)
            self.processes.append(context.Process(target=serve, args=arguments, daemon=True))
            self.processes[-1].start()
            theirs.close()

    def run(self, function: Any, *arguments: Any) -> list[Any]:
        """Return function(rank, *arguments) of each rank; the first failure ends all of them."""
        for connection in self.connections:
            connection.send((function, arguments))
        answers: dict[int, Any] = {}
        while len(answers) < RANKS:
            pending = [connection for rank, connection in enumerate(self.connections) if rank not in answers]
            ready = wait(pending, DEADLINE)
            if not ready:
                self.end()
                pytest.fail(f"{function.__name__}: no answer after {DEADLINE} seconds")
            for connection in ready:
                rank = self.connections.index(connection)
                try:
                    done, answers[rank] = connection.recv()
                except EOFError:
                    done, answers[rank] = False, "the process died"
                if not done:
                    self.end()
                    pytest.fail(f"rank {rank}: {answers[rank]}")
        return [answers[rank] for rank in range(RANKS)]

    @property
    def alive(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()
        for connection in self.connections:
            connection.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: Any) -> Any:
    """The processes of this module, under "group"; a test that ends them leaves the next one to start new ones."""
    shared: dict[str, Group] = {}
    yield shared
    if group := shared.get("group"):
        group.end()


@pytest.fixture
def group(shared: Any, tmp_path: Path) -> Group:
    if "group" not in shared or not shared["group"].alive:
        shared["group"] = Group(tmp_path)
    return shared["group"]


# --- what they train --------------------------------------------------------------------------------------------------


def network(dtype: torch.dtype = torch.float64) -> torch.nn.Module:
    """A small network, the same each time; its sizes do not divide by the number of processes."""
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 15), torch.nn.Tanh(), torch.nn.Linear(15, 1)).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.uniform_(-0.5, 0.5, generator=generator)
    return model


def batches(dtype: torch.dtype = torch.float64) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(STEPS, BATCH, 8, dtype=dtype, generator=generator)
    return list(zip(x, x.sin().sum(-1, keepdim=True), strict=True))


def loss_of(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (model(x) - y).square().mean()


def values_of(model: torch.nn.Module) -> list[Any]:
    return [p.detach().numpy().copy() for p in model.parameters()]


def trained_alone(case: str, dtype: torch.dtype) -> list[Any]:
    """Return the parameters that one process ends with, on whole batches."""
    cls, settings = OPTIMIZERS[case]
    model = network(dtype)
    optimizer = cls(model.parameters(), **settings)
    for x, y in batches(dtype):
        optimizer.zero_grad()
        loss_of(model, x, y).backward()
        optimizer.step()
    return values_of(model)


def assert_same(left: list[Any], right: list[Any]) -> None:
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def assert_close(left: list[Any], right: list[Any], tolerance: float) -> None:
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance, strict=True)


def rounding(dtype: torch.dtype) -> float:
    """Return how far parameters of size 1 may drift apart when their gradients are summed in another order.

    Such gradients differ by a few units in the last place of the terms of the sum; of the gradient itself by more, as
    terms of both signs cancel: by 100 units, say. Adam divides by the size of the gradient, so that a step differs by
    that times the learning rate, and SGD's by no more; and the steps add up. The differences seen are 30 times less.
    """
    return 100 * torch.finfo(dtype).eps * 0.1 * STEPS


# --- DistributedDataParallel ------------------------------------------------------------------------------------------


def train_parallel(rank: int, case: str, mode: str, dtype: torch.dtype, accumulated: int, to_none: bool) -> Any:
    """Train on every other row of each batch, in so many parts."""
    cls, settings = OPTIMIZERS[case]
    model = DistributedDataParallel(network(dtype), **DDP_MODES[mode])
    optimizer = cls(model.parameters(), **settings)
    views = False
    for x, y in batches(dtype):
        optimizer.zero_grad(set_to_none=to_none)
        parts = list(zip(x[rank::RANKS].chunk(accumulated), y[rank::RANKS].chunk(accumulated), strict=True))
        for part in parts[:-1]:
            with model.no_sync():
                (loss_of(model, *part) / accumulated).backward()
        (loss_of(model, *parts[-1]) / accumulated).backward()
        views = len({p.grad.untyped_storage().data_ptr() for p in model.parameters()}) < len([*model.parameters()])
        optimizer.step()
    return values_of(model), views


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("mode", DDP_MODES)
@pytest.mark.parametrize("case", OPTIMIZERS)
def test_halves_of_batches_train_what_whole_batches_do(group: Group, case: str, mode: str, dtype: torch.dtype) -> None:
    (first, views), (second, _) = group.run(train_parallel, case, mode, dtype, 1, True)
    assert views == ("gradient_as_bucket_view" in DDP_MODES[mode])
    assert_same(first, second)
    assert_close(first, trained_alone(case, dtype), rounding(dtype))


@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("mode", ["as it comes", "gradients are views"])
@pytest.mark.parametrize("case", OPTIMIZERS)
def test_gradients_may_accumulate_before_they_are_shared(group: Group, case: str, mode: str, to_none: bool) -> None:
    (first, _), (second, _) = group.run(train_parallel, case, mode, torch.float64, 2, to_none)
    assert_same(first, second)
    assert_close(first, trained_alone(case, torch.float64), rounding(torch.float64))


# --- ZeroRedundancyOptimizer ------------------------------------------------------------------------------------------


def gradients(steps: int) -> list[list[torch.Tensor]]:
    """Return the same gradients on every rank, so that no order of a sum enters."""
    generator = torch.Generator().manual_seed(2)
    return [[torch.randn(p.shape, generator=generator) for p in network().parameters()] for _ in range(steps)]


def step_on(optimizer: torch.optim.Optimizer, model: torch.nn.Module, steps: list[list[torch.Tensor]]) -> None:
    for grads in steps:
        for p, grad in zip(model.parameters(), grads, strict=True):
            p.grad = grad.clone()
        optimizer.step()


def stepped_alone(cls: type, settings: dict[str, Any], state: Any = None, start: Any = None) -> list[Any]:
    """Return the parameters after all steps of one process, or those after a checkpoint."""
    model = network(torch.float32)
    optimizer = cls(model.parameters(), **settings)
    if state is not None:
        model.load_state_dict(start)
        optimizer.load_state_dict(state)
    step_on(optimizer, model, gradients(STEPS)[0 if state is None else STEPS // 2 :])
    return values_of(model)


def train_sharded(rank: int, case: str, views: bool, directory: Path) -> tuple[list[Any], int]:
    """Train, saving state and parameters halfway; return the parameters and how many have state here."""
    cls, settings = OPTIMIZERS[case]
    model = network(torch.float32)
    optimizer = ZeroRedundancyOptimizer(
        model.parameters(), optimizer_class=cls, parameters_as_bucket_view=views, **settings
    )
    step_on(optimizer, model, gradients(STEPS)[: STEPS // 2])
    optimizer.consolidate_state_dict(to=0)
    if rank == 0:
        torch.save(optimizer.state_dict(), directory / "optimizer.pt")
        torch.save(model.state_dict(), directory / "model.pt")
    step_on(optimizer, model, gradients(STEPS)[STEPS // 2 :])
    return values_of(model), len(optimizer.optim.state)


def resume_sharded(rank: int, case: str, views: bool, directory: Path) -> list[Any]:
    cls, settings = OPTIMIZERS[case]
    model = network(torch.float32)
    model.load_state_dict(torch.load(directory / "model.pt"))
    optimizer = ZeroRedundancyOptimizer(
        model.parameters(), optimizer_class=cls, parameters_as_bucket_view=views, **settings
    )
    optimizer.load_state_dict(torch.load(directory / "optimizer.pt"))
    step_on(optimizer, model, gradients(STEPS)[STEPS // 2 :])
    return values_of(model)


@pytest.mark.parametrize("views", [False, True], ids=["own memory", "parameters are views"])
@pytest.mark.parametrize("case", OPTIMIZERS)
def test_sharded_state_steps_as_one_process_to_the_bit(group: Group, case: str, views: bool, tmp_path: Path) -> None:
    cls, settings = OPTIMIZERS[case]
    alone = stepped_alone(cls, settings)
    (first, here), (second, there) = group.run(train_sharded, case, views, tmp_path)
    assert here + there == len(alone)
    assert_same(first, alone)
    assert_same(second, alone)
    state, start = torch.load(tmp_path / "optimizer.pt"), torch.load(tmp_path / "model.pt")
    assert_same(stepped_alone(cls, settings, state, start), alone)
    theirs = getattr(torch.optim, cls.__name__)
    assert_close(stepped_alone(theirs, settings, state, start), alone, rounding(torch.float32))
    for resumed in group.run(resume_sharded, case, views, tmp_path):
        assert_same(resumed, alone)


# --- fully_shard ------------------------------------------------------------------------------------------------------


def sharded_network() -> torch.nn.Module:
    model = network(torch.float32)
    mesh = init_device_mesh("cpu", (RANKS,))
    for layer in model:
        if isinstance(layer, torch.nn.Linear):
            fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def train_fully_sharded(rank: int, module: str, case: str, directory: Path | None) -> list[Any]:
    """Train on every other row, with parameters, gradients and state in parts; from a checkpoint of half of it on."""
    cls, settings = OPTIMIZERS[case]
    model = sharded_network()
    optimizer = getattr(adamas.torch if module == "adamas" else torch.optim, cls.__name__)(
        model.parameters(), **settings
    )
    for step, (x, y) in enumerate(batches(torch.float32)):
        optimizer.zero_grad()
        loss_of(model, x[rank::RANKS], y[rank::RANKS]).backward()
        optimizer.step()
        if directory is not None and step == STEPS // 2:
            saved = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}
            checkpoint.save(saved, checkpoint_id=directory)
            model = sharded_network()
            optimizer = cls(model.parameters(), **settings)
            saved = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}
            checkpoint.load(saved, checkpoint_id=directory)
            model.load_state_dict(saved["model"])
            set_optimizer_state_dict(model, optimizer, saved["optimizer"])
    return [p.full_tensor().detach().numpy() for p in model.parameters()]


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_parameters_in_parts_are_stepped_as_torch_does(group: Group, case: str) -> None:
    first, second = group.run(train_fully_sharded, "adamas", case, None)
    theirs, _ = group.run(train_fully_sharded, "torch", case, None)
    assert_same(first, second)
    assert_close(first, theirs, rounding(torch.float32))
    assert_close(first, trained_alone(case, torch.float32), rounding(torch.float32))


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_parameters_in_parts_continue_from_a_checkpoint_to_the_bit(group: Group, case: str, tmp_path: Path) -> None:
    straight, _ = group.run(train_fully_sharded, "adamas", case, None)
    resumed, _ = group.run(train_fully_sharded, "adamas", case, tmp_path)
    assert_same(resumed, straight)


def continue_from_rank_0(rank: int, case: str) -> list[Any]:
    """Return the parameters after all steps: those of one model, and of one that took over its whole state halfway."""
    cls, settings = OPTIMIZERS[case]
    models = [sharded_network(), sharded_network()]
    optimizers = [cls(model.parameters(), **settings) for model in models]
    gather = StateDictOptions(full_state_dict=True, cpu_offload=True)
    spread = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    for step, (x, y) in enumerate(batches(torch.float32)):
        if step == STEPS // 2:
            weights = get_model_state_dict(models[0], options=gather)
            state = get_optimizer_state_dict(models[0], optimizers[0], options=gather)
            assert (rank == 0) == bool(state)
            set_model_state_dict(models[1], weights, options=spread)
            set_optimizer_state_dict(models[1], optimizers[1], state, options=spread)
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            loss_of(model, x[rank::RANKS], y[rank::RANKS]).backward()
            optimizer.step()
    return [[p.full_tensor().detach().numpy() for p in model.parameters()] for model in models]


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_whole_state_of_rank_0_can_be_taken_over_to_the_bit(group: Group, case: str) -> None:
    for straight, taken_over in group.run(continue_from_rank_0, case):
        assert_same(taken_over, straight)


# --- torch.distributed.checkpoint, on one process ---------------------------------------------------------------------


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
@pytest.mark.parametrize("case", OPTIMIZERS)
def test_state_by_names_of_parameters_round_trips(case: str, flat: bool) -> None:
    cls, settings = OPTIMIZERS[case]
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    model, other = network(torch.float32), network(torch.float32)
    optimizer = cls(model.parameters(), **settings)
    step_on(optimizer, model, gradients(STEPS)[: STEPS // 2])
    saved = get_optimizer_state_dict(model, optimizer, options=options)
    assert any("0.weight" in key for key in (saved if flat else saved["state"]))

    other.load_state_dict(model.state_dict())
    second = cls(other.parameters(), **settings)
    set_optimizer_state_dict(other, second, saved, options=options)
    for key, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            torch.testing.assert_close(second.state_dict()["state"][key][name], value, rtol=0, atol=0)
    for either, its_model in [(optimizer, model), (second, other)]:
        step_on(either, its_model, gradients(STEPS)[STEPS // 2 :])
    assert_same(values_of(other), values_of(model))
