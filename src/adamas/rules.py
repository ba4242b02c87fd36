r"""The update rules, in rising complexity: the specification of adamas.

Every optimizer of the package is defined here and only here, as the few lines that its paper gives; the compiled
engine holds the same lines in C++ and is tested to return the same bits. The file imports nothing outside the
standard library. Loaded alone by its path it is "Adam from scratch": ``Adam().update([x, y], [gx, gy])`` works on
floats and on lists and dicts of them; in the package the same classes also take arrays and use the engine.

How to read a rule. Its annotated fields are the hyper-parameters. ``state_names`` names what it remembers of each
parameter, all zero at the start. ``coefficients`` gives the numbers of step t = 1, 2, ..., in float64; those that
``first_carry`` names live across steps. ``change(xp, c, p, g, *state)`` is the rule itself, elementwise, for parameter
p and gradient g: it returns the change, which `step` subtracts from p, and the new state. ``xp`` is the namespace of
the values: `scalars` for Python floats, ``numpy``, ``torch``, or any other with the array-API functions sqrt, where,
maximum and finfo. What needs a number of the whole array (a norm, the mean of a mask) is a stage of `step`.

Three habits keep the arithmetic exact in low precision; each was measured:

- averages are lerps (`lerp`), because the rounded beta and 1 - beta do not add up to one;
- what a finite gradient makes overflow saturates (`square`, `contain`), so that the state stays finite;
- a rule returns the change and decay is added to it (`step`), because 1 - decay rounds the decay away.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, TypeVar, dataclass_transform

# The rules, which the package takes over by these names; `step`, `lerp`, `scalars`, `RULES` and `Rule` are public too.
__all__ = [
    "ADOPT",
    "LAMB",
    "SGD",
    "AMSGrad",
    "AdEMAMix",
    "AdaBelief",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "CenteredRMSProp",
    "CenteredRMSPropMomentum",
    "Lion",
    "Momentum",
    "NAdam",
    "RAdam",
    "RMSProp",
    "RMSPropMomentum",
    "ScheduleFreeAdamW",
    "Yogi",
]

# --- hyper-parameters -------------------------------------------------------------------------------------------------

Schedule = Callable[[int], float]
"""A function of the step, first called with 0, that returns a hyper-parameter."""


@dataclass(frozen=True)
class Range:
    """The numbers that a hyper-parameter may take: at least 0, below `below`, and finite unless `or_infinite`."""

    below: float = math.inf
    or_infinite: bool = False

    def check(self, name: str, value: object, where: str = "") -> float:
        """Return value as a float; raise TypeError or ValueError if it is not a number of this range."""
        if isinstance(value, bool | str) or not hasattr(value, "__float__"):
            raise TypeError(f"{name} must be a number or a function of the step, got {value!r}{where}")
        number = float(value)
        if not (0 <= number < self.below or (self.or_infinite and number == math.inf)):  # NaN is neither
            raise ValueError(f"{name} must be {self}, got {number!r}{where}")
        return number

    def __str__(self) -> str:
        if self.or_infinite:
            return "at least 0"
        return "finite and at least 0" if self.below == math.inf else f"in [0, {self.below:g})"


NonNegative = Annotated[float | Schedule, Range()]
Fraction = Annotated[float | Schedule, Range(below=1.0)]
Limit = Annotated[float | Schedule, Range(or_infinite=True)]

# --- arithmetic that the rules share ----------------------------------------------------------------------------------


class scalars:
    """The namespace `xp` of Python floats: the functions that the rules use, by their array-API names."""

    sqrt = staticmethod(math.sqrt)

    @staticmethod
    def where(condition: bool, a: float, b: float) -> float:
        return a if condition else b

    @staticmethod
    def maximum(a: float, b: float) -> float:
        return a if a >= b or math.isnan(a) else b

    @staticmethod
    def finfo(dtype: type) -> Any:
        return sys.float_info


def alike(number: Any) -> Any:
    """Return a coefficient to decide by, or of a column of them, one for each row of the arrays, the first.

    So the numbers of a column must lie on the same side of 1/2, and all of them or none be 0.
    """
    return number.item(0) if getattr(number, "ndim", 0) else number


def lerp(a: Any, b: Any, beta: float) -> Any:
    """Return beta*a + (1 - beta)*b, exactly a where a equals b.

    In float32 the rounded beta and 1 - beta do not add up to 1, so the usual sum has the wrong fixed point: after
    6,000 steps an average is some 190 spacings off, this form 5. The difference is distributed, w*b - w*a rather than
    w*(b - a), so that it cannot overflow; and the smaller weight multiplies it, so that beta = 0 returns b itself.
    """
    w = 1 - beta
    if alike(w) < 0.5:
        return a + (w * b - w * a)
    return b + (beta * a - beta * b)


def largest(xp: Any, x: Any) -> Any:
    """Return the largest finite number of x's type."""
    return xp.finfo(getattr(x, "dtype", float)).max


def saturate(xp: Any, x: Any) -> Any:
    """Return x >= 0 with infinity replaced by the largest finite number; NaN passes."""
    most = largest(xp, x)
    return xp.where(x > most, most, x)


def clamp(xp: Any, x: Any, bound: float) -> Any:
    """Return x cut to -bound ... bound; NaN passes."""
    return xp.where(x > bound, bound, xp.where(x < -bound, -bound, x))


def contain(xp: Any, x: Any, g: Any) -> Any:
    """Return x, saturated where it is infinite though the g that it is made from is finite."""
    return contain_within(xp, x, largest(xp, x), g)


def contain_within(xp: Any, x: Any, bound: float, g: Any) -> Any:
    """Return x cut to -bound ... bound where the g that it is made from is finite."""
    return xp.where(abs(g) <= largest(xp, g), clamp(xp, x, bound), x)


def square(xp: Any, x: Any) -> Any:
    """Return x*x, saturated."""
    return saturate(xp, x * x)


def variance(xp: Any, mean_of_squares: Any, mean: Any) -> Any:
    """Return the mean of squares less the square of the mean, and 0 where rounding would make it negative."""
    difference = mean_of_squares - square(xp, mean)
    return xp.where(difference < 0, 0.0, difference)


def sign(xp: Any, x: Any) -> Any:
    """Return 1, -1 or 0, as x is above, below or 0; NaN passes."""
    return xp.where(x > 0, 1.0, xp.where(x < 0, -1.0, x))


def ratio(xp: Any, a: Any, b: Any) -> Any:
    """Return a / b, and 0 where b is 0: a parameter without any gradient so far does not move."""
    return a / xp.where(b == 0, math.inf, b)


BLOCK, LANES = 4096, 16


def total(xp: Any, x: Any) -> float:
    """Return the sum of all numbers of x, which is in float64.

    In blocks of 4,096, as 16 partial sums each; so the engine returns the same bits, however many threads it uses.
    """
    if xp is scalars:
        return float(x)
    x = x.reshape(-1)
    zeros = xp.zeros_like(x[:1]).repeat(-len(x) % BLOCK)
    x = xp.concatenate([x, zeros]).reshape(-1, BLOCK // LANES, LANES)
    sums = xp.zeros_like(x[:, 0])
    for k in range(BLOCK // LANES):
        sums = sums + x[:, k]
    return total_of(sums)


def total_of(sums: Any) -> float:
    """Return the sum of float64 partial sums, (blocks, lanes): the lanes pairwise, then the blocks in order."""
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    added = 0.0
    for part in sums[:, 0].tolist():  # not sum(), which compensates from Python 3.12 on
        added += part
    return added


def dot(xp: Any, a: Any, b: Any) -> float:
    """Return the sum of a*b over all elements, in float64."""
    if xp is scalars:
        return float(a * b)
    return total(xp, xp.asarray(a, dtype=xp.float64) * xp.asarray(b, dtype=xp.float64))


# --- one step ---------------------------------------------------------------------------------------------------------


class Stages(NamedTuple):
    """The numbers of the stages around a rule, in their order.

    The gradient is multiplied by `scale` (which unscales it, clips its norm and turns it round to ascend) and cut to
    -clip ... clip; `l2` and `decay` are coupled and decoupled weight decay; `ema` is the decay of the average. If the
    step is `frozen`, which is at a learning rate of 0, no parameter moves, not even where 0 meets an infinite quotient.

    The others need to know the whole array, see `Whole`. `update_clip` is what the root mean square of the change is
    at most; `trust`, if not 0, is the length of the change, in lengths of the parameter; `cautious` is whether only
    what goes against the gradient changes.
    """

    scale: float = 1.0
    clip: float = math.inf
    l2: float = 0.0
    decay: float = 0.0
    ema: float = 0.0
    update_clip: float = math.inf
    trust: float = 0.0
    frozen: bool = False
    cautious: bool = False


def named(coefficients: dict[str, float], stages: Stages) -> SimpleNamespace:
    """Return the numbers of a step by name, as `step` takes them."""
    return SimpleNamespace(**coefficients, **stages._asdict())


def clip_factor(norm: float, limit: float) -> float:
    """Return what makes gradients of a global norm no longer than limit: min(1, limit / (norm + 1e-6)).

    The formula of torch.nn.utils.clip_grad_norm_; NaN gives NaN. Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063,
    Algorithm 1.
    """
    factor = limit / (norm + 1e-6)
    return 1.0 if factor > 1 else factor


def step(rule: "type[Rule]", xp: Any, c: SimpleNamespace, p: Any, g: Any, *state: Any) -> tuple[Any, ...]:
    """Take one step of one parameter (array): the rule and the stages around it, in their order.

    `c` holds the numbers of the step (`Rule.at`, `named`; see `Stages`). Returns the new p, then the new state. The
    gradient is scaled and clipped first. Coupled (L2) decay adds to the gradient; decoupled decay (Loshchilov and
    Hutter 2019, arXiv:1711.05101, Algorithm 2) adds to the change.
    """
    g = c.scale * g
    if c.clip < math.inf:
        g = clamp(xp, g, c.clip)
    if alike(c.l2):
        g = contain(xp, g + c.l2 * p, g)
    change, *state = rule.change(xp, c, p, g, *state)
    if c.frozen:
        change = 0.0
    whole = reduce(rule, xp, c, p, g, change, state)
    if c.cautious:
        change = xp.where(agrees(xp, change, g), whole.mask * change, 0.0)
    if alike(c.decay):
        change = change + c.decay * p
    if whole.factor != 1:
        change = whole.factor * contain(xp, change, g)
    return p - change, *state


class Whole(NamedTuple):
    """What the stages that look at a whole array multiply its change by: where the mask is 1, and everywhere."""

    mask: float = 1.0
    factor: float = 1.0


def agrees(xp: Any, change: Any, g: Any) -> Any:
    """Return where a change goes against the gradient."""
    return sign(xp, g) * change > 0


def reduce(rule: "type[Rule]", xp: Any, c: SimpleNamespace, p: Any, g: Any, change: Any, state: Any) -> Whole:
    """Return the factors of the stages that look at the whole array, from sums over it.

    A cautious change (Liang et al. 2024, arXiv:2411.16085, Algorithm 1) is 0 where it does not go against the gradient,
    and the rest is divided by its share of all numbers, or by 1/1000 if that is more. So the authors' code; the paper,
    and pytorch_optimizer, count one more among what is kept.

    Clipping the update (Wortsman et al. 2023, arXiv:2304.13013, Algorithm 2) makes the root mean square of
    g / (sqrt(v) + epsilon), or of the change of a rule without effective learning rate, at most so many learning rates,
    by shortening the change and the decoupled decay.

    The trust ratio (You et al. 2020, arXiv:1904.00962, Algorithm 2) makes both together as long as the learning rate
    times the parameter.

    Where a norm is 0 or infinite, or a ratio of norms too large for float32, they do nothing.
    """
    if not (c.cautious or c.update_clip < math.inf or c.trust):
        return Whole()
    size = 1 if xp is scalars else math.prod(g.shape)
    mask = factor = 1.0
    kept = change
    if c.cautious:
        agreeing = agrees(xp, change, g)
        kept = xp.where(agreeing, change, 0.0)
        ones = xp.where(agreeing, 1.0, 0.0)
        mask = 1 / max(dot(xp, ones, ones) / max(size, 1), 1e-3)
    if c.update_clip < math.inf:
        unit = change if rule.rate is None else g * rule.rate(xp, c, *state)
        rms = math.sqrt(dot(xp, unit, unit) / max(size, 1))
        if c.update_clip < rms < math.inf:
            factor = c.update_clip / rms
    if c.trust:
        squares = dot(xp, p, p)
        changes = (
            mask * mask * dot(xp, kept, kept) + 2 * mask * c.decay * dot(xp, kept, p) + c.decay * c.decay * squares
        )
        if 0 < squares < math.inf and 0 < changes < math.inf:
            ratio_of_norms = c.trust * math.sqrt(squares) / math.sqrt(changes)
            factor = ratio_of_norms if ratio_of_norms < 2.0**127 else factor
    return Whole(mask, factor)


def average(c: SimpleNamespace, e: Any, p: Any) -> Any:
    """Return the exponential moving average e of a parameter, which starts at its first value, after a step to p.

    Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging", with weights that fall off.
    """
    return lerp(e, p, c.ema)


# --- what all rules share ---------------------------------------------------------------------------------------------

if TYPE_CHECKING:  # in the package each rule is completed to this Optimizer on arrays; type checkers see it so
    from adamas._optimizer import Optimizer
else:

    class Optimizer:
        """A rule with a memory, from scratch: plain Python on floats and on lists and dicts of floats."""

        t = 0

        def update(self, params, grads):
            """Take one step; lists and dicts are overwritten and returned, floats and tuples come back new."""
            self.t += 1
            self.memory = getattr(self, "memory", {})
            c = self.at(self.t, getattr(self, "carry", {}))
            self.carry = {name: getattr(c, name) for name in self.first_carry}
            return self.walk(c, params, grads, ())

        def walk(self, c, p, g, path):
            if isinstance(p, tuple):
                return tuple(self.walk(c, q, g[k], (*path, k)) for k, q in enumerate(p))
            if isinstance(p, list | dict):
                for k, q in p.items() if isinstance(p, dict) else enumerate(p):
                    p[k] = self.walk(c, q, g[k], (*path, k))
                return p
            zeros = [0.0] * len(self.state_names)
            p, *self.memory[path] = step(type(self), scalars, c, p, g, *self.memory.get(path, zeros))
            return p


@dataclass(eq=False, repr=False)
class Rule(Optimizer):
    """The hyper-parameters that every rule has, their checks, and the coefficients of a step.

    weight_decay: at least 0; adds weight_decay * p to the gradient (L2), or, if decoupled, learning_rate *
        weight_decay * p to the change.
    decoupled: which of the two.
    cautious: whether a parameter only changes against its gradient; see `reduce` for this and the next two.
    update_clip: what the root mean square of the change of an array is at most, in learning rates; infinity for no end.
    trust_ratio: whether the change of an array is as long as the learning rate times the array.
    """

    weight_decay: NonNegative = field(default=0.0, kw_only=True)
    decoupled: bool = field(default=False, kw_only=True)
    cautious: bool = field(default=False, kw_only=True)
    update_clip: Limit = field(default=math.inf, kw_only=True)
    trust_ratio: bool = field(default=False, kw_only=True)

    state_names: ClassVar[tuple[str, ...]] = ()
    first_carry: ClassVar[dict[str, float]] = {}
    """Coefficients that live across steps -> what they are before the first.

    `coefficients` finds those of the step before as attributes.
    """
    nonnegative: ClassVar[tuple[str, ...]] = ("s", "u", "v", "v_max")
    """The names of state that is never negative, because squares or magnitudes go into it."""
    if_rounded: ClassVar[str] = ""
    """What goes wrong if the state is rounded to a few bits, for a warning; empty if nothing does."""
    ranges: ClassVar[dict[str, Range | None]] = {}
    """Hyper-parameter name -> its range; None for a flag. Filled by `rule`."""

    def coefficients(self, t: int) -> dict[str, float]:
        """Return the rule's numbers for step t = 1, 2, ..., by name, in the order that the engine expects."""
        raise NotImplementedError

    @staticmethod
    def change(xp: Any, c: Any, p: Any, g: Any, *state: Any) -> tuple[Any, ...]:
        """Return the change, to be subtracted from p, and the new state."""
        raise NotImplementedError

    rate: ClassVar[Callable[..., Any] | None] = None
    """Returns the effective learning rate of each coordinate, ``rate(xp, c, *state)``, if the rule has such a thing.

    `c` is as in `change`; the state is that after the step.
    """

    evaluated: ClassVar[Callable[..., Any] | None] = None
    """Returns where to evaluate the model, if not at p itself: ``evaluated(h, p, *state)``, h with hyper-parameters."""

    def __repr__(self) -> str:
        stages = ("cautious", "update_clip", "trust_ratio")  # shown if they differ from what all have
        shown = [name for name in self.ranges if name not in stages or getattr(self, name) != getattr(Rule, name)]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.ranges:
            value = self.checked(name, value)
        object.__setattr__(self, name, value)

    @classmethod
    def checked(cls, name: str, value: object, where: str = "") -> Any:
        """Return a hyper-parameter as it is kept (a float, a bool or a function); raise if it cannot be one."""
        allowed = cls.ranges[name]
        if allowed is None:
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, got {value!r}{where}")
            return value
        return value if callable(value) else allowed.check(name, value, where)

    @classmethod
    def numbers_at(
        cls, hyperparameters: Mapping[str, Any], t: int, carry: Mapping[str, float] = MappingProxyType({})
    ) -> tuple[dict[str, float], Stages]:
        """Return the rule's coefficients of step t, and those of the stages around it.

        The hyper-parameters that are functions are called with t - 1; raises if they return what is out of range.
        carry: the coefficients of the step before that live across steps.
        """
        h = SimpleNamespace(**{**cls.first_carry, **hyperparameters, **carry})
        for name, allowed in cls.ranges.items():
            if allowed is not None and callable(value := hyperparameters[name]):
                setattr(h, name, allowed.check(name, value(t - 1), f" from its schedule at step {t - 1}"))
        return cls.numbers(h, t)

    @classmethod
    def numbers(cls, h: SimpleNamespace, t: Any) -> tuple[dict[str, float], Stages]:
        """Return the same for hyper-parameters that are numbers, as attributes of h."""
        rate = h.learning_rate
        stages = Stages(
            l2=0.0 if h.decoupled else h.weight_decay,
            decay=rate * h.weight_decay if h.decoupled else 0.0,
            update_clip=rate * h.update_clip if h.update_clip < math.inf and alike(rate) else math.inf,
            trust=rate if h.trust_ratio else 0.0,
            frozen=not alike(rate),
            cautious=h.cautious,
        )
        return cls.coefficients(h, t), stages  # type: ignore[arg-type]

    def at(self, t: int, carry: Mapping[str, float] = MappingProxyType({})) -> SimpleNamespace:
        """Return all coefficients of step t = 1, 2, ... by name, as `step` takes them; carry: as in `numbers_at`."""
        return named(*self.numbers_at({name: getattr(self, name) for name in self.ranges}, t, carry))

    @staticmethod
    def reduces(hyperparameters: Mapping[str, Any]) -> bool:
        """Return whether a step looks at whole arrays, so that what counts as one matters."""
        h = hyperparameters
        return bool(h["cautious"] or h["trust_ratio"] or h["update_clip"] != math.inf)


RULES: dict[str, type[Rule]] = {}
"""Every rule by its name."""

R = TypeVar("R", bound=Rule)


@dataclass_transform(eq_default=False, field_specifiers=(field,))
def rule(cls: type[R]) -> type[R]:
    """Make a class with annotated hyper-parameters a rule, and register it."""
    cls = dataclass(eq=False, repr=False)(cls)
    in_order = sorted(fields(cls), key=lambda f: f.kw_only is True)  # as the constructor takes them
    cls.ranges = {f.name: getattr(f.type, "__metadata__", (None,))[0] for f in in_order}
    for name, first in cls.first_carry.items():
        setattr(cls, name, first)
    RULES[cls.__name__] = cls
    return cls


# --- the rules --------------------------------------------------------------------------------------------------------


@rule
class SGD(Rule):
    r"""Gradient descent: against the gradient, in proportion to it.

    .. math:: \theta_t = \theta_{t-1} - \eta g_t

    The same as torch.optim.SGD without momentum and optax.sgd.

    References: Robbins and Monro 1951, "A Stochastic Approximation Method", eq. (8).
    """

    learning_rate: NonNegative = 1e-3

    def coefficients(self, t):
        return {"learning_rate": self.learning_rate}

    @staticmethod
    def change(xp, c, p, g):
        return (c.learning_rate * g,)


@rule
class Momentum(Rule):
    r"""Gradient descent with momentum: a heavy ball, or Nesterov's look-ahead.

    .. math::
        b_t &= \mu b_{t-1} + (1 - \tau) g_t, \qquad b_1 = g_1 \\
        \theta_t &= \theta_{t-1} - \eta b_t \qquad\text{(Nesterov: } \theta_{t-1} - \eta (g_t + \mu b_t)\text{)}

    The same as torch.optim.SGD with momentum, in the first step too, which no dampening tau makes smaller. Without
    dampening the sum is not averaged: a constant gradient moves the parameter by 1/(1 - momentum) times the learning
    rate; with dampening = momentum it is a running mean that starts at the first gradient.

    References: Polyak 1964, "Some methods of speeding up the convergence of iteration methods", eq. (9); Sutskever et
    al. 2013, "On the importance of initialization and momentum in deep learning", eqs. (1)-(4).
    """

    learning_rate: NonNegative = 1e-3
    momentum: Fraction = 0.9
    nesterov: bool = False
    dampening: Fraction = 0.0

    state_names = ("b",)

    def coefficients(self, t):
        return {
            "learning_rate": self.learning_rate,
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "gain": 1.0 if t == 1 else 1 - self.dampening,
        }

    @staticmethod
    def change(xp, c, p, g, b):
        b = contain(xp, c.momentum * b + c.gain * g, g)
        return c.learning_rate * (g + c.momentum * b if c.nesterov else b), b


@rule
class AdaGrad(Rule):
    r"""AdaGrad: each coordinate's rate falls with the sum of its squared gradients.

    .. math::
        s_t &= s_{t-1} + g_t^2 \\
        \theta_t &= \theta_{t-1} - \eta\, g_t / (\sqrt{s_t} + \epsilon)

    The same as torch.optim.Adagrad with its defaults; optax.adagrad starts s at 0.1 and puts epsilon inside the root.

    References: Duchi, Hazan and Singer 2011, "Adaptive Subgradient Methods", Figure 1 (diagonal).
    """

    learning_rate: NonNegative = 1e-2
    epsilon: NonNegative = 1e-10

    state_names = ("s",)

    def coefficients(self, t):
        return {"learning_rate": self.learning_rate, "epsilon": self.epsilon}

    @staticmethod
    def change(xp, c, p, g, s):
        s = saturate(xp, s + square(xp, g))
        return c.learning_rate * ratio(xp, g, xp.sqrt(s) + c.epsilon), s

    @staticmethod
    def rate(xp, c, s):
        return ratio(xp, c.learning_rate, xp.sqrt(s) + c.epsilon)


@rule
class RMSProp(Rule):
    r"""RMSProp: the gradient over the root of a running mean of its square.

    .. math::
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \theta_t &= \theta_{t-1} - \eta\, g_t / (\sqrt{v_t} + \epsilon)

    The same as torch.optim.RMSprop (whose alpha is beta2), not centered and without momentum. The mean starts at zero
    and is not corrected for it, so the first steps are long: 1/sqrt(1 - beta2) learning rates.

    References: Tieleman and Hinton 2012, "Neural Networks for Machine Learning", lecture 6e.
    """

    learning_rate: NonNegative = 1e-2
    beta2: Fraction = 0.99
    epsilon: NonNegative = 1e-8

    state_names = ("v",)

    def coefficients(self, t):
        return {"learning_rate": self.learning_rate, "beta2": self.beta2, "epsilon": self.epsilon}

    @staticmethod
    def change(xp, c, p, g, v):
        v = lerp(v, square(xp, g), c.beta2)
        return c.learning_rate * ratio(xp, g, xp.sqrt(v) + c.epsilon), v

    @staticmethod
    def rate(xp, c, v, *_):
        return ratio(xp, c.learning_rate, xp.sqrt(v) + c.epsilon)


@rule
class RMSPropMomentum(RMSProp):
    r"""RMSProp with momentum: a running sum of RMSProp's changes.

    .. math::
        b_t &= \mu b_{t-1} + g_t / (\sqrt{v_t} + \epsilon) \\
        \theta_t &= \theta_{t-1} - \eta b_t

    with RMSProp's mean of squares. The same as torch.optim.RMSprop with momentum.

    References: Tieleman and Hinton 2012, "Neural Networks for Machine Learning", lecture 6e.
    """

    momentum: Fraction = 0.9

    state_names = ("v", "b")

    def coefficients(self, t):
        return RMSProp.coefficients(self, t) | {"momentum": self.momentum}

    @staticmethod
    def change(xp, c, p, g, v, b):
        v = lerp(v, square(xp, g), c.beta2)
        b = contain(xp, c.momentum * b + ratio(xp, g, xp.sqrt(v) + c.epsilon), g)
        return c.learning_rate * b, v, b


@rule
class CenteredRMSProp(RMSProp):
    r"""Centered RMSProp: the gradient over the root of a running estimate of its variance.

    .. math::
        n_t &= \beta_2 n_{t-1} + (1 - \beta_2) g_t \\
        \theta_t &= \theta_{t-1} - \eta\, g_t / (\sqrt{v_t - n_t^2} + \epsilon)

    with RMSProp's mean of squares. The same as torch.optim.RMSprop with centered=True; Graves puts epsilon inside the
    root. A variance that rounds below zero counts as zero.

    References: Graves 2013, arXiv:1308.0850, eqs. (38)-(40).
    """

    state_names = ("v", "n")
    if_rounded = "its variance is a difference, which may round to nothing, and then its steps are far too long"

    @staticmethod
    def change(xp, c, p, g, v, n):
        v = lerp(v, square(xp, g), c.beta2)
        n = lerp(n, g, c.beta2)
        return c.learning_rate * ratio(xp, g, xp.sqrt(variance(xp, v, n)) + c.epsilon), v, n

    @staticmethod
    def rate(xp, c, v, n):
        return ratio(xp, c.learning_rate, xp.sqrt(variance(xp, v, n)) + c.epsilon)


@rule
class CenteredRMSPropMomentum(RMSPropMomentum):
    r"""Centered RMSProp with momentum: a running sum of centered RMSProp's changes.

    .. math::
        b_t &= \mu b_{t-1} + g_t / (\sqrt{v_t - n_t^2} + \epsilon) \\
        \theta_t &= \theta_{t-1} - \eta b_t

    with centered RMSProp's means. The same as torch.optim.RMSprop with centered=True and momentum; Graves multiplies
    by the learning rate before the sum and puts epsilon inside the root.

    References: Graves 2013, arXiv:1308.0850, eqs. (38)-(41).
    """

    state_names = ("v", "n", "b")
    if_rounded = CenteredRMSProp.if_rounded

    @staticmethod
    def change(xp, c, p, g, v, n, b):
        v = lerp(v, square(xp, g), c.beta2)
        n = lerp(n, g, c.beta2)
        b = contain(xp, c.momentum * b + ratio(xp, g, xp.sqrt(variance(xp, v, n)) + c.epsilon), g)
        return c.learning_rate * b, v, n, b

    @staticmethod
    def rate(xp, c, v, n, b):
        return CenteredRMSProp.rate(xp, c, v, n)


@rule
class Adam(Rule):
    r"""Adam: the running mean of the gradient over the root of the running mean of its square.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \theta_t &= \theta_{t-1} - \eta\, \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    The same as torch.optim.Adam and optax.adam. Keras, scikit-learn and PennyLane add epsilon before v is corrected
    (the paper's note on efficiency), which in the first steps acts like a larger epsilon.

    References: Kingma and Ba 2015, arXiv:1412.6980, Algorithm 1.
    """

    learning_rate: NonNegative = 1e-3
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: NonNegative = 1e-8

    state_names = ("m", "v")

    def coefficients(self, t):
        return {
            "learning_rate": self.learning_rate,
            "step": self.learning_rate / (1 - self.beta1**t),
            "beta1": self.beta1,
            "beta2": self.beta2,
            "root_scale": (1 - self.beta2**t) ** -0.5,
            "epsilon": self.epsilon,
        }

    @staticmethod
    def change(xp, c, p, g, m, v):
        m = lerp(m, g, c.beta1)
        v = lerp(v, square(xp, g), c.beta2)
        return c.step * ratio(xp, m, xp.sqrt(v) * c.root_scale + c.epsilon), m, v

    @staticmethod
    def rate(xp, c, m, v):
        return ratio(xp, c.learning_rate, xp.sqrt(v) * c.root_scale + c.epsilon)


@rule
class AdamW(Adam):
    r"""AdamW: Adam whose weight decay acts on the parameter, not on the gradient.

    .. math::
        \theta_t = \theta_{t-1} - \Big(\eta\, \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}
        + \eta \lambda\, \theta_{t-1}\Big)

    with Adam's moments. The same as torch.optim.AdamW, whose weight decay defaults to 0.01 too (optax 1e-4, Keras
    4e-3). It is Adam with ``weight_decay=0.01, decoupled=True``.

    References: Loshchilov and Hutter 2019, arXiv:1711.05101, Algorithm 2.
    """

    weight_decay: NonNegative = field(default=0.01, kw_only=True)
    decoupled: bool = field(default=True, kw_only=True)


@rule
class AMSGrad(Adam):
    r"""AMSGrad: Adam with the largest second moment so far, so that a rate never grows again.

    .. math::
        \hat v_t &= \max(\hat v_{t-1}, v_t) \\
        \theta_t &= \theta_{t-1} - \eta\, \frac{m_t / (1 - \beta_1^t)}{\sqrt{\hat v_t / (1 - \beta_2^t)} + \epsilon}

    with Adam's moments. The same as torch.optim.Adam(amsgrad=True): the maximum is of the raw v and the correction
    comes after; optax takes the maximum of the corrected v; the paper corrects neither.

    References: Reddi, Kale and Kumar 2018, arXiv:1904.09237, Algorithm 2.
    """

    state_names = ("m", "v", "v_max")
    if_rounded = "its maximum only grows, by about a tenth in 5,000 steps, so that its steps become too short"

    @staticmethod
    def change(xp, c, p, g, m, v, v_max):
        m = lerp(m, g, c.beta1)
        v = lerp(v, square(xp, g), c.beta2)
        v_max = xp.maximum(v_max, v)
        return c.step * ratio(xp, m, xp.sqrt(v_max) * c.root_scale + c.epsilon), m, v, v_max

    @staticmethod
    def rate(xp, c, m, v, v_max):
        return Adam.rate(xp, c, m, v_max)


@rule
class Adamax(Adam):
    r"""Adamax: Adam with a decaying maximum of the gradient's magnitude for its root of the mean of squares.

    .. math::
        u_t &= \max(\beta_2 u_{t-1}, |g_t| + \epsilon) \\
        \theta_t &= \theta_{t-1} - \eta\, \frac{m_t / (1 - \beta_1^t)}{u_t}

    with Adam's mean m. The same as torch.optim.Adamax and optax.adamax; Keras adds epsilon to u instead; the paper has
    none, so that an epsilon of 0 is the paper's form.

    References: Kingma and Ba 2015, arXiv:1412.6980, Algorithm 2.
    """

    learning_rate: NonNegative = 2e-3

    state_names = ("m", "u")

    def coefficients(self, t):
        return {
            "learning_rate": self.learning_rate,
            "step": self.learning_rate / (1 - self.beta1**t),
            "beta1": self.beta1,
            "beta2": self.beta2,
            "epsilon": self.epsilon,
        }

    @staticmethod
    def change(xp, c, p, g, m, u):
        m = lerp(m, g, c.beta1)
        u = xp.maximum(c.beta2 * u, abs(g) + c.epsilon)
        return c.step * ratio(xp, m, u), m, u

    @staticmethod
    def rate(xp, c, m, u):
        return ratio(xp, c.learning_rate, u)


@rule
class RAdam(Adam):
    r"""RAdam: Adam whose first steps are those of momentum, and later ones shorter as long as v is of few gradients.

    .. math::
        \rho_t &= \rho_\infty - 2t\, \frac{\beta_2^t}{1 - \beta_2^t}, \qquad \rho_\infty = \frac{2}{1 - \beta_2} - 1 \\
        r_t &= \sqrt{\frac{(\rho_t - 4)(\rho_t - 2)\rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2)\rho_t}} \\
        \theta_t &= \theta_{t-1} - \eta\, \frac{m_t}{1 - \beta_1^t} \cdot \begin{cases}
            r_t / (\sqrt{v_t / (1 - \beta_2^t)} + \epsilon) & \rho_t > 5 \\ 1 & \text{else} \end{cases}

    with Adam's moments. The same as optax.radam (which takes 5 itself for the first case). torch.optim.RAdam adds
    epsilon before v is corrected; the paper has no epsilon and takes 4 for 5.

    References: Liu et al. 2020, arXiv:1908.03265, Algorithm 2.
    """

    def coefficients(self, t):
        rho_inf = 2 / (1 - self.beta2) - 1
        rho = rho_inf - 2 * t * self.beta2**t / (1 - self.beta2**t)
        rectified = rho > 5
        r = 1.0
        if rectified:
            r = ((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) ** 0.5
        adam = Adam.coefficients(self, t)
        return adam | {"step": adam["step"] * r, "rectified": rectified}

    @staticmethod
    def change(xp, c, p, g, m, v):
        m = lerp(m, g, c.beta1)
        v = lerp(v, square(xp, g), c.beta2)
        return c.step * (ratio(xp, m, xp.sqrt(v) * c.root_scale + c.epsilon) if c.rectified else m), m, v


@rule
class AdaBelief(Adam):
    r"""AdaBelief: Adam that takes long steps where gradients are as expected: near their mean.

    .. math::
        s_t &= \beta_2 s_{t-1} + (1 - \beta_2) (g_t - m_t)^2 + \epsilon \\
        \theta_t &= \theta_{t-1} - \eta\, \frac{m_t / (1 - \beta_1^t)}{\sqrt{s_t / (1 - \beta_2^t)} + \epsilon}

    with Adam's mean m. Epsilon adds up in s, to about epsilon / (1 - beta2). The same as the authors' code, and as
    optax.adabelief, whose eps_root is the one in s.

    References: Zhuang et al. 2020, arXiv:2010.07468, Algorithm 2.
    """

    epsilon: NonNegative = 1e-16

    state_names = ("m", "s")

    @staticmethod
    def change(xp, c, p, g, m, s):
        m = lerp(m, g, c.beta1)
        s = lerp(s, square(xp, g - m), c.beta2) + c.epsilon
        return c.step * ratio(xp, m, xp.sqrt(s) * c.root_scale + c.epsilon), m, s


@rule
class Yogi(Adam):
    r"""Yogi: Adam whose mean of squares moves towards the new square by a share of that, however far it is.

    .. math::
        v_t &= v_{t-1} - (1 - \beta_2)\, \mathrm{sign}(v_{t-1} - g_t^2)\, g_t^2 \\
        \theta_t &= \theta_{t-1} - \eta\, \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    with Adam's mean m. The same as optax.yogi with initial_accumulator_value=0 (there 1e-6 is the start of both m and
    v). The paper's algorithm corrects neither m nor v; implementations do.

    References: Zaheer et al. 2018, "Adaptive Methods for Nonconvex Optimization", Algorithm 2.
    """

    learning_rate: NonNegative = 1e-2
    epsilon: NonNegative = 1e-3

    def coefficients(self, t):
        return Adam.coefficients(self, t) | {"beta2": 1 - self.beta2}

    @staticmethod
    def change(xp, c, p, g, m, v):
        m = lerp(m, g, c.beta1)
        g2 = square(xp, g)
        v = saturate(xp, v - sign(xp, v - g2) * (c.beta2 * g2))
        return c.step * ratio(xp, m, xp.sqrt(v) * c.root_scale + c.epsilon), m, v


@rule
class ADOPT(Rule):
    r"""ADOPT: the mean of gradients, each over the root of the mean of the squares before it; any beta2 converges.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1)\, \mathrm{clip}\Big(\frac{g_t}{\max(\sqrt{v_{t-1}}, \epsilon)},
            (t - 1)^{1/4}\Big), \qquad m_1 = 0 \\
        \theta_t &= \theta_{t-1} - \eta m_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \qquad v_1 = g_1^2

    The first step only looks at the gradient. The same as the authors' code, which counts from 0, and whose decoupled
    decay also begins with the second step, and as optax.contrib.adopt; torch and Keras have none.

    References: Taniguchi et al. 2024, arXiv:2411.02853, Algorithm 2.
    """

    learning_rate: NonNegative = 1e-3
    beta1: Fraction = 0.9
    beta2: Fraction = 0.9999
    epsilon: NonNegative = 1e-6

    state_names = ("m", "v")

    def coefficients(self, t):
        return {
            "learning_rate": self.learning_rate,
            "beta1": self.beta1,
            "beta2": self.beta2 if t > 1 else 0.0,
            "epsilon": self.epsilon,
            "bound": (t - 1) ** 0.25,
        }

    @staticmethod
    def change(xp, c, p, g, m, v):
        root = xp.sqrt(v)
        normed = ratio(xp, g, xp.where(root < c.epsilon, c.epsilon, root))
        m = lerp(m, contain_within(xp, normed, c.bound, g), c.beta1)
        v = lerp(v, square(xp, g), c.beta2)
        return c.learning_rate * m, m, v


@rule
class AdEMAMix(Adam):
    r"""AdEMAMix: Adam with a second, much slower mean of the gradient beside the first.

    .. math::
        n_t &= \beta_3 n_{t-1} + (1 - \beta_3) g_t \\
        \theta_t &= \theta_{t-1} - \eta\, \frac{m_t / (1 - \beta_1^t) + \alpha n_t}
            {\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    with Adam's moments. The slow mean is not corrected, so it comes in slowly. The same as optax.contrib.ademamix. In
    long runs the paper lets alpha rise linearly and beta3 from beta1 on, both over all steps: functions of the step do
    that here.

    References: Pagliardini, Ablin and Grangier 2024, arXiv:2409.03137, Algorithm 1.
    """

    beta3: Fraction = 0.9999
    alpha: NonNegative = 5.0
    decoupled: bool = field(default=True, kw_only=True)

    state_names = ("m", "n", "v")

    def coefficients(self, t):
        return {
            "learning_rate": self.learning_rate,
            "mean_scale": 1 / (1 - self.beta1**t),
            "beta1": self.beta1,
            "beta2": self.beta2,
            "beta3": self.beta3,
            "alpha": self.alpha,
            "root_scale": (1 - self.beta2**t) ** -0.5,
            "epsilon": self.epsilon,
        }

    @staticmethod
    def change(xp, c, p, g, m, n, v):
        m = lerp(m, g, c.beta1)
        n = lerp(n, g, c.beta3)
        v = lerp(v, square(xp, g), c.beta2)
        mixed = contain(xp, c.mean_scale * m + c.alpha * n, g)
        return c.learning_rate * ratio(xp, mixed, xp.sqrt(v) * c.root_scale + c.epsilon), m, n, v

    @staticmethod
    def rate(xp, c, m, n, v):
        return Adam.rate(xp, c, m, v)


@rule
class Adan(Rule):
    r"""Adan: Nesterov's momentum by the difference of gradients, over the root of the mean square of both.

    .. math::
        d_t &= g_t - g_{t-1}, \qquad d_1 = 0 \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) d_t \\
        n_t &= \beta_3 n_{t-1} + (1 - \beta_3) (g_t + \beta_2 d_t)^2 \\
        \theta_t &= \theta_{t-1} - \eta\, \frac{m_t / (1 - \beta_1^t) + \beta_2 v_t / (1 - \beta_2^t)}
            {\sqrt{n_t / (1 - \beta_3^t)} + \epsilon}

    The same as the authors' code with no_prox=True. The paper writes 1 - beta for each beta and divides by 1 plus the
    decay instead of subtracting it. optax.adan multiplies d and v by 1 - beta2 where the paper's weight is our beta2.

    References: Xie et al. 2022, arXiv:2208.06677, Algorithm 1.
    """

    learning_rate: NonNegative = 1e-3
    beta1: Fraction = 0.98
    beta2: Fraction = 0.92
    beta3: Fraction = 0.99
    epsilon: NonNegative = 1e-8
    decoupled: bool = field(default=True, kw_only=True)

    state_names = ("m", "v", "n", "g_before")
    nonnegative = ("n",)

    def coefficients(self, t):
        return {
            "learning_rate": self.learning_rate,
            "beta1": self.beta1,
            "beta2": self.beta2,
            "beta3": self.beta3,
            "mean_scale": 1 / (1 - self.beta1**t),
            "change_weight": self.beta2,
            "change_scale": self.beta2 / (1 - self.beta2**t),
            "root_scale": (1 - self.beta3**t) ** -0.5,
            "epsilon": self.epsilon,
            "has_before": t > 1,
        }

    @staticmethod
    def change(xp, c, p, g, m, v, n, g_before):
        d = contain(xp, g - g_before, g) if c.has_before else 0 * g
        m = lerp(m, g, c.beta1)
        v = lerp(v, d, c.beta2)
        n = lerp(n, square(xp, g + c.change_weight * d), c.beta3)
        ahead = contain(xp, c.mean_scale * m + c.change_scale * v, g)
        return c.learning_rate * ratio(xp, ahead, xp.sqrt(n) * c.root_scale + c.epsilon), m, v, n, g

    @staticmethod
    def rate(xp, c, m, v, n, g_before):
        return ratio(xp, c.learning_rate, xp.sqrt(n) * c.root_scale + c.epsilon)


@rule
class Lion(Rule):
    r"""Lion: against the sign of the momentum, which looks ahead to the gradient more than it remembers it.

    .. math::
        \theta_t &= \theta_{t-1} - \eta\, \mathrm{sign}(\beta_1 m_{t-1} + (1 - \beta_1) g_t) \\
        m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    All coordinates move by the learning rate, so that it should be 3 to 10 times smaller than Adam's, and a decoupled
    weight decay as many times larger. The same as optax.lion (whose weight decay is 1e-3) and keras.optimizers.Lion.

    References: Chen et al. 2023, arXiv:2302.06675, Algorithm 2.
    """

    learning_rate: NonNegative = 1e-4
    beta1: Fraction = 0.9
    beta2: Fraction = 0.99
    decoupled: bool = field(default=True, kw_only=True)

    state_names = ("m",)

    def coefficients(self, t):
        return {"learning_rate": self.learning_rate, "beta1": self.beta1, "beta2": self.beta2}

    @staticmethod
    def change(xp, c, p, g, m):
        return c.learning_rate * sign(xp, lerp(m, g, c.beta1)), lerp(m, g, c.beta2)


@rule
class NAdam(Adam):
    r"""NAdam: Adam with Nesterov's momentum, which grows to beta1.

    .. math::
        \mu_t &= \beta_1 (1 - 0.96^{t \psi} / 2) \\
        \theta_t &= \theta_{t-1} - \eta\, \frac{\mu_{t+1} m_t / (1 - \prod_{i=1}^{t+1} \mu_i)
            + (1 - \mu_t) g_t / (1 - \prod_{i=1}^t \mu_i)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    with Adam's moments and psi = momentum_decay. The product lives across steps. The same as torch.optim.NAdam, which
    keeps the product in float32 unless torch's default is float64; Keras has psi = 1; optax.nadam has mu = beta1.

    References: Dozat 2016, "Incorporating Nesterov Momentum into Adam", Algorithm 2, with its section 3 for mu.
    """

    learning_rate: NonNegative = 2e-3
    momentum_decay: NonNegative = 4e-3

    first_carry = {"mu_product": 1.0}

    def coefficients(self, t):
        mu, mu_next = (self.beta1 * (1 - 0.5 * 0.96 ** (k * self.momentum_decay)) for k in (t, t + 1))
        product = self.mu_product * mu
        return {
            "learning_rate": self.learning_rate,
            "mean_weight": mu_next / (1 - product * mu_next),
            "gradient_weight": (1 - mu) / (1 - product),
            "beta1": self.beta1,
            "beta2": self.beta2,
            "root_scale": (1 - self.beta2**t) ** -0.5,
            "epsilon": self.epsilon,
            "mu_product": product,
        }

    @staticmethod
    def change(xp, c, p, g, m, v):
        m = lerp(m, g, c.beta1)
        v = lerp(v, square(xp, g), c.beta2)
        ahead = contain(xp, c.mean_weight * m + c.gradient_weight * g, g)
        return c.learning_rate * ratio(xp, ahead, xp.sqrt(v) * c.root_scale + c.epsilon), m, v


@rule
class LAMB(AdamW):
    r"""LAMB: AdamW, each of whose changes of an array is as long as the learning rate times the array.

    .. math::
        u_t &= \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon} + \lambda \theta_{t-1} \\
        \theta_t &= \theta_{t-1} - \eta\, \frac{\lVert \theta_{t-1} \rVert}{\lVert u_t \rVert} u_t

    with Adam's moments; the ratio is 1 where one of the norms is 0. It is AdamW with ``trust_ratio=True``, which
    `groups` may set to False for biases, as is usual. The same as optax.lamb, with the paper's decay.

    References: You et al. 2020, arXiv:1904.00962, Algorithm 2.
    """

    epsilon: NonNegative = 1e-6
    trust_ratio: bool = field(default=True, kw_only=True)


@rule
class ScheduleFreeAdamW(Rule):
    r"""Schedule-free AdamW: the gradient at a point between the iterate and its average, and no schedule to an end.

    .. math::
        u_t &= \frac{g_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon} + \lambda y_{t-1}, \qquad z_t = z_{t-1} - \eta u_t \\
        x_t &= (1 - c_t) x_{t-1} + c_t z_t, \qquad c_t = \eta_{\max}^2 / \textstyle\sum_{i \le t} \eta_{\max, i}^2 \\
        y_t &= (1 - \beta_1) z_t + \beta_1 x_t

    with Adam's v. The parameters are y, where gradients are taken; x, to evaluate and keep, is
    ``opt.eval_params(params)``. What is remembered is z - y, exact where the two are close. A schedule should only warm
    up. The same as optax.contrib.schedule_free_adamw and, but for its own warmup, the authors' AdamWScheduleFree; the
    decay is that of y in all three. torch and Keras have none.

    References: Defazio et al. 2024, arXiv:2405.15682, Algorithm 1.
    """

    learning_rate: NonNegative = 2.5e-3
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: NonNegative = 1e-8
    decoupled: bool = field(default=True, kw_only=True)

    state_names = ("d", "v")
    if_rounded = "it remembers a place, not an average, so that the errors of all steps add up"
    first_carry = {"weight_sum": 0.0, "largest_rate": 0.0}

    def coefficients(self, t):
        largest_rate = max(self.largest_rate, self.learning_rate)
        weight = largest_rate**2 if self.learning_rate else 0.0
        weight_sum = self.weight_sum + weight
        share = weight / weight_sum if weight else 0.0
        return {
            "learning_rate": self.learning_rate,
            "step": self.learning_rate * (1 - self.beta1 * (1 - share)),
            "pull": self.learning_rate * self.beta1,
            "share": share,
            "rest": 1 - share,
            "beta2": self.beta2,
            "root_scale": (1 - self.beta2**t) ** -0.5,
            "epsilon": self.epsilon,
            "own_decay": self.weight_decay if self.decoupled else 0.0,
            "weight_sum": weight_sum,
            "largest_rate": largest_rate,
        }

    @classmethod
    def numbers(cls, h, t):
        coefficients, stages = super().numbers(h, t)
        return coefficients, stages._replace(decay=0.0)  # the decay of y is one of z too

    @staticmethod
    def change(xp, c, p, g, d, v):
        v = lerp(v, square(xp, g), c.beta2)
        u = ratio(xp, g, xp.sqrt(v) * c.root_scale + c.epsilon) + c.own_decay * p
        return c.step * u - c.share * d, c.rest * (d - c.pull * u), v

    @staticmethod
    def rate(xp, c, d, v):
        return ratio(xp, c.learning_rate, xp.sqrt(v) * c.root_scale + c.epsilon)

    @staticmethod
    def evaluated(h, p, d, v):
        if not h.beta1:
            raise ValueError("beta1 is 0: then the average is not remembered; use one above 0")
        return p - (1 / h.beta1 - 1) * d
