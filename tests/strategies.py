"""Hypothesis strategies that several test modules share."""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

DTYPES = st.sampled_from([np.float32, np.float64])
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
KEYS = st.one_of(st.text(max_size=3), st.integers(-3, 12), st.sampled_from(["0", "a.b", "-1", "", "'", "\\"]))


@st.composite
def layouts(draw: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of a shape in some layout: axes in any order, steps between elements, some of them backwards."""
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.sampled_from([1, 1, 2, -1, -3])) for _ in shape]
    base = np.zeros([n * abs(s) + (n == 0) for n, s in ((shape[axis], steps[axis]) for axis in order)], dtype)
    view = base.transpose(np.argsort(order)) if shape else base
    view = view[(*(slice(None, None, step) for step in steps), ...)]
    return view[(*(slice(0, n) for n in shape), ...)]


@st.composite
def trees(draw: Any, leaves: Any) -> Any:
    """Lists, tuples and dicts nested at will."""
    return draw(
        st.recursive(
            leaves,
            lambda node: st.one_of(
                st.lists(node, max_size=3),
                st.lists(node, max_size=3).map(tuple),
                st.dictionaries(KEYS, node, max_size=3),
            ),
            max_leaves=8,
        )
    )
