"""adamas.torch in the training loop of others: Hugging Face's Trainer, with a tiny network that no hub provides."""

from pathlib import Path
from typing import Any

import pytest
import torch

import adamas.torch

pytestmark = pytest.mark.stress

STEPS = 20
LEARNING_RATE = 1e-3
VOCABULARY, LENGTH = 32, 16
WAYS = ["instance", "groups", "class"]
"""How Trainer is given the optimizer: as one, as one with a group that does not decay, as its class and arguments."""
ARGUMENTS = {
    "plain": {},
    "clipped": {"max_grad_norm": 0.1},
    "accumulated and clipped": {"gradient_accumulation_steps": 2, "max_grad_norm": 0.1},
}


@pytest.fixture(scope="module")
def transformers() -> Any:
    """The package, which asks nobody anything: it is imported here, as it reads the environment only then."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
            environment.setenv(name, "1")
        import transformers  # noqa: PLC0415 - only make stress installs it

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the network is so small that two wait for each other
        yield transformers
        torch.set_num_threads(threads)


def rows() -> list[dict[str, torch.Tensor]]:
    """Return sequences that count up by 1, 2 or 3, which a network can learn to continue."""
    generator = torch.Generator().manual_seed(0)
    starts = torch.randint(VOCABULARY, (64, 1), generator=generator)
    strides = torch.randint(1, 4, (64, 1), generator=generator)
    sequences = (starts + strides * torch.arange(LENGTH)) % VOCABULARY
    return [{"input_ids": sequence, "labels": sequence} for sequence in sequences]


def trainer_of(transformers: Any, cls: type, way: str, directory: Path, arguments: dict[str, Any]) -> Any:
    transformers.set_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": LENGTH, "vocab_size": VOCABULARY}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    settings = {"lr": LEARNING_RATE, "weight_decay": 0.1, "eps": 1e-6}
    decaying = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    match way:
        case "instance":
            given = {"optimizers": (cls(model.parameters(), **settings), None)}
        case "groups":
            groups = [{"params": decaying}, {"params": rest, "weight_decay": 0.0}]
            given = {"optimizers": (cls(groups, **settings), None)}
        case "class":
            given = {"optimizer_cls_and_kwargs": (cls, settings)}
    return transformers.Trainer(
        model,
        transformers.TrainingArguments(
            output_dir=str(directory),
            max_steps=STEPS,
            per_device_train_batch_size=4,
            logging_steps=1,
            save_steps=STEPS // 2,
            learning_rate=LEARNING_RATE,
            seed=1,
            use_cpu=True,
            disable_tqdm=True,
            report_to=[],
            **arguments,
        ),
        train_dataset=rows(),
        **given,
    )


def outcome(trainer: Any) -> tuple[dict[str, torch.Tensor], dict[int, float]]:
    """Return the parameters, and the loss of each step."""
    losses = {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}
    return {name: p.detach() for name, p in trainer.model.named_parameters()}, losses


def assert_close(left: Any, right: Any) -> None:
    """Compare outcomes of training in float32.

    Two optimizers round differently: in each step by a spacing of the parameters, which is 1.2e-7 near 1, and of the
    change; and the network passes that on. The differences seen are 6 spacings, and 4 of the losses, which are near 3.
    """
    (params, losses), (other_params, other_losses) = left, right
    torch.testing.assert_close(params, other_params, rtol=0, atol=5e-6)
    assert losses == pytest.approx(other_losses, abs=5e-6)


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("way", WAYS)
def test_trainer_ends_where_torch_does(transformers: Any, way: str, arguments: str, tmp_path: Path) -> None:
    outcomes = []
    for module in (adamas.torch, torch.optim):
        trainer = trainer_of(transformers, module.AdamW, way, tmp_path / module.__name__, ARGUMENTS[arguments])
        trainer.train()
        assert type(trainer.optimizer.optimizer) is module.AdamW
        outcomes.append(outcome(trainer))
    assert_close(*outcomes)
    losses = outcomes[0][1]
    assert len(losses) == STEPS
    assert losses[STEPS] < losses[1]


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("way", WAYS)
def test_trainer_resumes_to_the_bit(transformers: Any, way: str, arguments: str, tmp_path: Path) -> None:
    straight = trainer_of(transformers, adamas.torch.AdamW, way, tmp_path, ARGUMENTS[arguments])
    straight.train()
    resumed = trainer_of(transformers, adamas.torch.AdamW, way, tmp_path, ARGUMENTS[arguments])
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{STEPS // 2}"))
    (params, losses), (expected, expected_losses) = outcome(resumed), outcome(straight)
    torch.testing.assert_close(params, expected, rtol=0, atol=0)
    assert losses == expected_losses


@pytest.mark.parametrize("way", WAYS)
def test_trainer_resumes_what_torch_began_and_the_other_way_around(transformers: Any, way: str, tmp_path: Path) -> None:
    for first, second in [(torch.optim, adamas.torch), (adamas.torch, torch.optim)]:
        directory = tmp_path / first.__name__
        straight = trainer_of(transformers, first.AdamW, way, directory, {})
        straight.train()
        resumed = trainer_of(transformers, second.AdamW, way, directory, {})
        resumed.train(resume_from_checkpoint=str(directory / f"checkpoint-{STEPS // 2}"))
        assert_close(outcome(resumed), outcome(straight))
