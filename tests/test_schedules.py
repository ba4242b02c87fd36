"""Schedules: where they begin and end, that they join, and that they are values."""

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adamas.schedules import Constant, Cosine, Exponential, Linear, Warmup

values = st.floats(0, 10)
lengths = st.integers(1, 1000)


@given(values, values, lengths, st.integers(0, 2000))
def test_schedules_begin_end_and_stay_between(start, end, steps, step):
    for schedule in (Linear(start, end, steps), Cosine(start, steps, end)):
        assert schedule(0) == pytest.approx(start)
        assert schedule(steps) == pytest.approx(end)
        assert schedule(steps + 10) == schedule(steps)
        assert min(start, end) - 1e-9 <= schedule(step) <= max(start, end) + 1e-9


@given(values, lengths, lengths, st.integers(0, 500))
def test_warmup_rises_to_the_schedule_and_continues_it(start, rise, steps, step):
    then = Cosine(start, steps)
    schedule = Warmup(rise, then)
    assert schedule(rise + step) == then(step)
    assert schedule(rise - 1) == pytest.approx(start)
    assert schedule(0) == pytest.approx(start / rise)


def test_values():
    assert Constant(0.5)(10**6) == 0.5
    assert Exponential(1.0, 0.5, 10)(20) == 0.25
    assert Cosine(1.0, 4)(1) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert Linear(1.0, 0.0, 4)(1) == 0.75


def test_schedules_are_values():
    schedule = Warmup(10, Cosine(1e-3, steps=100))
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert repr(schedule) == "Warmup(steps=10, then=Cosine(start=0.001, steps=100, end=0.0))"


@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
def test_bad_steps(steps):
    for make in (lambda: Linear(1, 0, steps), lambda: Cosine(1, steps), lambda: Warmup(steps, Constant(1))):
        with pytest.raises(ValueError, match="steps must be an integer of at least 1, got"):
            make()
    with pytest.raises(ValueError, match="factor must be positive and finite, got 0"):
        Exponential(1.0, 0)
