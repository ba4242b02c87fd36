"""adamas.torch inside what torch.compile compiles: the graph breaks at the step, which runs as it does outside."""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

import adamas.torch

STEPS = 6
BACKENDS = ["eager", "aot_eager"]
OPTIMIZERS = {
    "AdamW": (adamas.torch.AdamW, {"lr": 0.01}),
    "Adam, amsgrad": (adamas.torch.Adam, {"lr": 0.01, "amsgrad": True}),
    "SGD, momentum": (adamas.torch.SGD, {"lr": 0.1, "momentum": 0.9}),
    "AdamW, the learning rate a tensor": (adamas.torch.AdamW, {"lr": torch.tensor(0.01)}),
}

pytestmark = [
    # The compiler asks a tensor that lives across a break of the graph, such as the loss, whether it has a gradient.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning"),
    # Importing the compiler's default backend uses what torch deprecates.
    pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is deprecated:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def compiler() -> Any:
    """A compiler that has seen nothing, and raises where it would compile the same code a second time."""
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    torch._dynamo.reset()


class Training:
    """A small network, its optimizer and their batches: the same each time."""

    def __init__(self, case: str, schedule: bool = False) -> None:
        cls, settings = OPTIMIZERS[case]
        generator = torch.Generator().manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(8, 15), torch.nn.Tanh(), torch.nn.Linear(15, 1))
        with torch.no_grad():
            for p in self.model.parameters():
                p.uniform_(-0.5, 0.5, generator=generator)
        self.optimizer = cls(self.model.parameters(), **copy.deepcopy(settings))
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 2, 0.5) if schedule else None
        self.x = torch.randn(STEPS, 16, 8, generator=generator)
        self.y = self.x.sin().sum(-1, keepdim=True)
        self.gradients = [
            [torch.randn(p.shape, generator=generator) for p in self.model.parameters()] for _ in range(STEPS)
        ]

    def backward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = (self.model(x) - y).square().mean()
        loss.backward()
        return loss.detach()

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """All of a step, as a user would compile it."""
        loss = (self.model(x) - y).square().mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def train(self, step: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
        """Return the losses of all steps, then the parameters."""
        losses = []
        for x, y in zip(self.x, self.y, strict=True):
            losses.append(step(x, y))
            if self.schedule:
                self.schedule.step()
        return [*losses, *(p.detach() for p in self.model.parameters())]

    def step_on_gradients(self, step: Callable[[], Any]) -> list[torch.Tensor]:
        """Return the parameters after steps on given gradients."""
        for grads in self.gradients:
            for p, grad in zip(self.model.parameters(), grads, strict=True):
                p.grad = grad
            step()
            if self.schedule:
                self.schedule.step()
        return [p.detach() for p in self.model.parameters()]


def assert_same(left: list[torch.Tensor], right: list[torch.Tensor]) -> None:
    for a, b in itertools.zip_longest(left, right):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("schedule", [False, True], ids=["constant", "scheduled"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", OPTIMIZERS)
def test_a_compiled_training_step_is_the_uncompiled_one_to_the_bit(case: str, backend: str, schedule: bool) -> None:
    plain, compiled = Training(case, schedule), Training(case, schedule)
    assert_same(compiled.train(torch.compile(compiled.step, backend=backend)), plain.train(plain.step))
    assert counters["stats"]["unique_graphs"] >= 1  # something was compiled


@pytest.mark.parametrize("schedule", [False, True], ids=["constant", "scheduled"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", OPTIMIZERS)
def test_the_method_itself_may_be_compiled(case: str, backend: str, schedule: bool) -> None:
    plain, compiled = Training(case, schedule), Training(case, schedule)
    step = torch.compile(compiled.optimizer.step, backend=backend)
    assert_same(compiled.step_on_gradients(step), plain.step_on_gradients(plain.optimizer.step))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_function_may_only_step(backend: str) -> None:
    plain, compiled = Training("AdamW"), Training("AdamW")

    @torch.compile(backend=backend)
    def step() -> None:
        compiled.optimizer.step()

    assert_same(compiled.step_on_gradients(step), plain.step_on_gradients(plain.optimizer.step))


def test_a_closure_may_be_stepped_in_a_compiled_function() -> None:
    plain, compiled = Training("AdamW"), Training("AdamW")

    def step(training: Training, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        def closure() -> torch.Tensor:
            training.optimizer.zero_grad()
            return training.backward(x, y)

        return training.optimizer.step(closure)

    expected = plain.train(lambda x, y: step(plain, x, y))
    compile_step = torch.compile(step, backend="eager")
    assert_same(compiled.train(lambda x, y: compile_step(compiled, x, y)), expected)


def test_gradients_of_compiled_networks_are_stepped_by_the_engine_too() -> None:
    plain, compiled = Training("AdamW"), Training("AdamW")
    compiled.model = torch.compile(compiled.model, backend="aot_eager")
    assert_same(compiled.train(compiled.step), plain.train(plain.step))


def test_a_whole_graph_is_refused_with_the_name_of_the_step() -> None:
    training = Training("AdamW")
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"Stepper\.step"):
        training.step_on_gradients(torch.compile(training.optimizer.step, backend="eager", fullgraph=True))


@pytest.mark.stress
@pytest.mark.parametrize("case", OPTIMIZERS)
def test_generated_code_may_surround_the_step(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default backend sums in an order of its own, so that it is compared with itself, outside of the step."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    apart, together = Training(case), Training(case)
    backward = torch.compile(apart.backward)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = backward(x, y)
        apart.optimizer.step()
        apart.optimizer.zero_grad()
        return loss

    assert_same(together.train(torch.compile(together.step)), apart.train(step))
    assert counters["stats"]["unique_graphs"] >= 1
