"""Adam as a function: the bits of the class, whatever the values are."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from strategies import DTYPES, SHAPES, layouts, trees

from adamas import Adam, _tree, adam_step


@given(st.data(), SHAPES, DTYPES)
def test_arrays_of_any_layout_give_the_bits_of_the_class(data, shape, dtype):
    rng = np.random.default_rng(0)
    p, m, v = (data.draw(layouts(shape, dtype)) for _ in range(3))
    q, opt = np.zeros(shape, dtype), Adam()
    for t in range(1, 4):
        g = rng.standard_normal(shape).astype(dtype)
        new = adam_step(p, g, m, v, t)
        assert all(a is b for a, b in zip(new, (p, m, v), strict=True))
        opt.update(q, g)
    assert_array_equal(p, q)
    assert_array_equal(m, opt.state[""]["m"])
    assert_array_equal(v, opt.state[""]["v"])


@given(trees(st.one_of(st.floats(-5, 5), st.just(np.float32(1)), st.just(np.float64(2)))))
def test_trees_give_the_bits_of_the_class(params):
    opt, others = Adam(0.1, 0.8, 0.9, 1e-3), copy.deepcopy(params)
    m = v = None
    for t in range(1, 4):
        grads = _tree.replace(params, (np.sin(t + i) for i, _ in enumerate(_tree.leaves(params))), in_place=False)
        others = opt.update(others, grads)
        params, m, v = adam_step(params, grads, m, v, t, 0.1, 0.8, 0.9, 1e-3)
    assert list(_tree.leaves(params)) == list(_tree.leaves(others))
    for (keys, value), (_, second) in zip(_tree.leaves(m), _tree.leaves(v), strict=True):
        assert opt.state[_tree.path(keys)] == {"m": value, "v": second}


def test_lists_are_updated_in_place():
    params, m, v = [1.0, 2.0], [0.0, 0.0], [0.0, 0.0]
    for t in range(1, 3):
        new = adam_step(params, [0.5, -0.5], m, v, t)
        assert all(a is b for a, b in zip(new, (params, m, v), strict=True))
    assert params == pytest.approx([0.998, 2.002])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0], [1.0], [0.0], [0.0], 0), ValueError, "t must be an integer of at least 1, got 0"),
        (([1.0], [1.0], [0.0], [0.0], 1.0), ValueError, "t must be an integer"),
        (([1.0], [1.0, 2.0], None, None, 1), ValueError, "grads has 2 entries"),
        (([1.0], [1.0], [0.0, 0.0], None, 1), ValueError, "m has 2 entries but params has 1"),
        (
            ({"w": np.ones(2)}, {"w": np.ones(2)}, {"w": np.zeros(3)}, None, 1),
            ValueError,
            r"m\['w'\] is float64 of shape",
        ),
        ((np.ones(2), np.ones(2), None, np.zeros(2, np.float32), 1), ValueError, "v is float32 of shape"),
        (([1.0], [1.0], ["0"], None, 1), TypeError, r"m\[0\] is '0', a str"),
        (([1.0], [1.0], None, None, 1, -0.1), ValueError, "learning_rate must be"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        adam_step(*arguments)


def test_moments_must_not_share_memory():
    p, m = np.ones(3), np.zeros(3)
    with pytest.raises(ValueError, match="m and v are the same array"):
        adam_step(p, np.ones(3), m, m, 1)
    assert p.tolist() == [1, 1, 1]
