"""What a step does beside its rule, on arrays and for PyTorch alike: options, their checks, their numbers."""

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from adamas.rules import Range, Schedule, Stages, clip_factor

NONFINITE = ("propagate", "skip", "raise")
FORMATS = {"state_format": ("float32", "bfloat16", "q8"), "weight_copy": (None, "bfloat16", "float16")}
POSITIVE, FRACTION = Range(), Range(below=1.0)


@dataclass(eq=False, repr=False, kw_only=True)
class Options:
    """The options of a step.

    In one step the gradients are unscaled, clipped (norm, then value), used, averaged, copied and zeroed in this order.

    clip_norm: gradients whose norm, of all of them together, is greater are made that long; None, or a number or
        function of the step. The formula is torch.nn.utils.clip_grad_norm_'s. Costs one more read of the gradients.
    clip_value: gradients are cut to -clip_value ... clip_value; None, or a number or function of the step.
    grad_scale: how many times too large the gradients are (as after loss scaling): they are divided by it. At least
        1e-30; a number or function of the step.
    nonfinite: what to do about gradients with NaN or infinity: "propagate" them into the parameters, "skip" the step,
        or "raise" FloatingPointError; the latter two change nothing, count in `nonfinite_steps`, and cost one more read
        of the gradients.
    ema: the decay, below 1, of an exponential moving average of the parameters, which starts at their first values and
        is read as ``opt.ema``; None, or a number or function of the step, such as `schedules.AverageWarmup`.
    weight_copy: "bfloat16" or "float16" for a copy of the parameters in that format, read as ``opt.weight_copy``;
        complex parameters are copied as they are.
    zero_grads: whether gradient arrays are set to zero when they have been used (or skipped).
    state_format: "float32" or "bfloat16", in which the state of all but float64 and complex parameters is kept; or
        "q8", in which that of arrays of at least 4,096 elements takes a byte per element, rounded at random. Then there
        may be no arrays of float64 or complex numbers.
    stochastic_rounding: whether what is kept in bfloat16, parameters and state, is rounded at random, so that it is
        right on average, instead of to the nearest number, which loses all changes below 1/512.
    seed: of rounding at random, from 0 to 2**64 - 1. The same seed gives the same bits.
    """

    clip_norm: float | Schedule | None = None
    clip_value: float | Schedule | None = None
    grad_scale: float | Schedule = 1.0
    nonfinite: str = "propagate"
    ema: Any = None
    weight_copy: Any = None
    zero_grads: bool = False
    state_format: str = "float32"
    stochastic_rounding: bool = False
    seed: int = 0

    option_names: ClassVar[tuple[str, ...]] = ()
    lasting: ClassVar[tuple[str, ...]] = ("ema", "weight_copy", "state_format", "stochastic_rounding", "seed")
    """The options that are what a state is made by, so they cannot change once there is one."""

    def option(self, name: str) -> Any:
        """Return an option; not all of the names are its own as an attribute (`ema` is the average)."""
        return vars(self)[name]

    @staticmethod
    def checked_option(name: str, value: Any) -> Any:
        """Return an option as it is kept; raise TypeError or ValueError if it cannot be one."""
        if name in ("zero_grads", "stochastic_rounding"):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, got {value!r}")
        elif name in FORMATS or name == "nonfinite":
            allowed = FORMATS.get(name, NONFINITE)
            if value not in allowed:
                raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, got {value!r}")
        elif name == "seed":
            if isinstance(value, bool) or not hasattr(value, "__index__") or not 0 <= value < 2**64:
                raise ValueError(f"seed must be an integer from 0 to 2**64 - 1, got {value!r}")
            value = value.__index__()
        elif not callable(value) and not (value is None and name != "grad_scale"):
            value = _checked_number(name, value)
        return value

    @property
    def needs_norm(self) -> bool:
        """Whether the norm of the gradients is asked for."""
        return self.option("clip_norm") is not None or self.option("nonfinite") != "propagate"

    @property
    def scheduled(self) -> bool:
        """Whether any of the options is a function of the step."""
        return any(callable(self.option(name)) for name in self.option_names)

    @property
    def plan_options(self) -> tuple[bool, bool, bool, bool, int]:
        """What the engine's plans take as options."""
        keeps = self.option("ema") is not None, self.option("weight_copy") is not None
        return *keeps, self.option("zero_grads"), self.option("stochastic_rounding"), self.option("seed")

    def looks_at_arrays(self, group: int) -> bool:  # noqa: ARG002 - a rule knows
        """Return whether the steps of a group look at whole arrays, so that floats are stepped one by one."""
        return False

    @property
    def extra_names(self) -> tuple[str, ...]:
        """The names of what is remembered of a parameter besides the rule's state."""
        return tuple(name for name in ("ema", "weight_copy") if self.option(name) is not None)

    def number(self, name: str, t: int) -> Any:
        """Return the option for step t = 1, 2, ...: a number, or None."""
        value = self.option(name)
        return _checked_number(name, value(t - 1), f" from its schedule at step {t - 1}") if callable(value) else value

    def with_options(self, stages: Stages, t: int) -> Stages:
        """Return the stages of step t with what the options ask for."""
        clip, ema, scale = (self.number(name, t) for name in ("clip_value", "ema", "grad_scale"))
        return stages._replace(
            scale=stages.scale / scale, clip=math.inf if clip is None else clip, ema=0.0 if ema is None else ema
        )

    def factor(self, norm: float, finite: bool, t: int) -> float | None:
        """Return what the gradients of step t are to be multiplied by to clip their norm, None to skip the step.

        norm: of the gradients before they are unscaled. finite: whether all of their numbers are.
        """
        if not finite and self.option("nonfinite") != "propagate":
            return None
        limit = self.number("clip_norm", t)
        return 1.0 if limit is None else clip_factor(norm / self.number("grad_scale", t), limit)


Options.option_names = tuple(f.name for f in fields(Options))


def _checked_number(name: str, value: Any, where: str = "") -> float:
    number = (FRACTION if name == "ema" else POSITIVE).check(name, value, where)
    if name == "grad_scale" and number < 1e-30:
        raise ValueError(f"grad_scale must be at least 1e-30, got {number!r}{where}")
    return number
