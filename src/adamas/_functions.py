"""The formulas of the test problems: each returns value and gradient at points of shape (..., n).

They are analytic where the problem is, so that a complex step gives derivatives to the last digit.
"""

from typing import Any

import numpy as np

Array = Any
Values = tuple[Array, Array]


def _sum(x: Array) -> Array:
    return x.sum(axis=-1)


def _xy(*gradient: Array) -> Array:
    return np.stack(gradient, axis=-1)


# --- any dimension ----------------------------------------------------------------------------------------------------


def sphere(x: Array) -> Values:
    return _sum(x * x), 2 * x


def absolute_value(x: Array) -> Values:
    return _sum(np.abs(x)), np.sign(x)


def rosenbrock(x: Array) -> Values:
    a, b = x[..., :-1], x[..., 1:]
    valley, slope = b - a * a, 1 - a
    gradient = np.zeros_like(x)
    gradient[..., :-1] = -400 * a * valley - 2 * slope
    gradient[..., 1:] += 200 * valley
    return _sum(100 * valley * valley + slope * slope), gradient


def ackley(x: Array) -> Values:
    n = x.shape[-1]
    radius = np.sqrt(_sum(x * x) / n)
    bowl, waves = np.exp(-0.2 * radius), np.exp(_sum(np.cos(2 * np.pi * x)) / n)
    inner = np.where(radius == 0, 1, radius)  # at the minimum, a cusp, 0 is a subgradient
    gradient = 4 * x * (bowl / inner)[..., None] / n
    gradient = gradient + 2 * np.pi / n * np.sin(2 * np.pi * x) * waves[..., None]
    return -20 * bowl - waves + 20 + np.e, gradient


def rastrigin(x: Array) -> Values:
    angle = 2 * np.pi * x
    return 10 * x.shape[-1] + _sum(x * x - 10 * np.cos(angle)), 2 * x + 20 * np.pi * np.sin(angle)


def griewank(x: Array) -> Values:
    root = np.sqrt(np.arange(1, x.shape[-1] + 1, dtype=x.real.dtype))
    cosines = np.cos(x / root)
    before = np.cumprod(np.concatenate([np.ones_like(x[..., :1]), cosines[..., :-1]], axis=-1), axis=-1)
    turned = np.concatenate([cosines[..., 1:], np.ones_like(x[..., :1])], axis=-1)[..., ::-1]
    others = before * np.cumprod(turned, axis=-1)[..., ::-1]  # the product of all cosines but one's own
    value = _sum(x * x) / 4000 - before[..., -1] * cosines[..., -1] + 1
    return value, x / 2000 + np.sin(x / root) / root * others


def levy(x: Array) -> Values:
    w = 1 + (x - 1) / 4
    first, inner, last = w[..., 0], w[..., :-1], w[..., -1]
    wave = np.sin(np.pi * inner + 1)
    value = np.sin(np.pi * first) ** 2 + _sum((inner - 1) ** 2 * (1 + 10 * wave**2))
    value = value + (last - 1) ** 2 * (1 + np.sin(2 * np.pi * last) ** 2)
    gradient = np.zeros_like(x)
    gradient[..., 0] = np.pi * np.sin(2 * np.pi * first)
    gradient[..., :-1] += 2 * (inner - 1) * (1 + 10 * wave**2)
    gradient[..., :-1] += (inner - 1) ** 2 * 10 * np.pi * np.sin(2 * np.pi * inner + 2)
    gradient[..., -1] += 2 * (last - 1) * (1 + np.sin(2 * np.pi * last) ** 2)
    gradient[..., -1] += (last - 1) ** 2 * 2 * np.pi * np.sin(4 * np.pi * last)
    return value, gradient / 4


def styblinski_tang(x: Array) -> Values:
    return _sum(x**4 - 16 * x * x + 5 * x) / 2, (4 * x**3 - 32 * x + 5) / 2


def zakharov(x: Array) -> Values:
    weights = np.arange(1, x.shape[-1] + 1, dtype=x.real.dtype) / 2
    s = _sum(weights * x)
    return _sum(x * x) + s**2 + s**4, 2 * x + weights * (2 * s + 4 * s**3)[..., None]


def plateau(x: Array) -> Values:
    well = np.exp(-_sum(x * x) / 2)
    return 1 - well, x * well[..., None]


# --- two dimensions ---------------------------------------------------------------------------------------------------


def beale(x: Array) -> Values:
    a, b = x[..., 0], x[..., 1]
    r1, r2, r3 = 1.5 - a + a * b, 2.25 - a + a * b**2, 2.625 - a + a * b**3
    da = 2 * (r1 * (b - 1) + r2 * (b**2 - 1) + r3 * (b**3 - 1))
    return r1**2 + r2**2 + r3**2, _xy(da, 2 * a * (r1 + 2 * r2 * b + 3 * r3 * b**2))


def booth(x: Array) -> Values:
    r, s = x[..., 0] + 2 * x[..., 1] - 7, 2 * x[..., 0] + x[..., 1] - 5
    return r**2 + s**2, _xy(2 * r + 4 * s, 4 * r + 2 * s)


def himmelblau(x: Array) -> Values:
    a, b = x[..., 0], x[..., 1]
    r, s = a**2 + b - 11, a + b**2 - 7
    return r**2 + s**2, _xy(4 * a * r + 2 * s, 2 * r + 4 * b * s)


def matyas(x: Array) -> Values:
    a, b = x[..., 0], x[..., 1]
    return 0.26 * (a**2 + b**2) - 0.48 * a * b, _xy(0.52 * a - 0.48 * b, 0.52 * b - 0.48 * a)


def branin(x: Array) -> Values:
    a, b = x[..., 0], x[..., 1]
    curve, scale = b - 5.1 / (4 * np.pi**2) * a**2 + 5 / np.pi * a - 6, 10 * (1 - 1 / (8 * np.pi))
    da = 2 * curve * (5 / np.pi - 5.1 / (2 * np.pi**2) * a) - scale * np.sin(a)
    return curve**2 + scale * np.cos(a) + 10, _xy(da, 2 * curve)


def goldstein_price(x: Array) -> Values:
    a, b = x[..., 0], x[..., 1]
    s, q = a + b + 1, 19 - 14 * a + 3 * a**2 - 14 * b + 6 * a * b + 3 * b**2
    t, r = 2 * a - 3 * b, 18 - 32 * a + 12 * a**2 + 48 * b - 36 * a * b + 27 * b**2
    first, second = 1 + s**2 * q, 30 + t**2 * r
    dq = -14 + 6 * a + 6 * b  # in both directions
    first_a = first_b = 2 * s * q + s**2 * dq
    second_a = 4 * t * r + t**2 * (-32 + 24 * a - 36 * b)
    second_b = -6 * t * r + t**2 * (48 - 36 * a + 54 * b)
    return first * second, _xy(first_a * second + first * second_a, first_b * second + first * second_b)


def mccormick(x: Array) -> Values:
    a, b = x[..., 0], x[..., 1]
    slope, value = np.cos(a + b) - 1.5, np.sin(a + b) + (a - b) ** 2 - 1.5 * a + 2.5 * b + 1
    return value, _xy(slope + 2 * (a - b), slope + 4 - 2 * (a - b))


def three_hump_camel(x: Array) -> Values:
    a, b = x[..., 0], x[..., 1]
    return 2 * a**2 - 1.05 * a**4 + a**6 / 6 + a * b + b**2, _xy(4 * a - 4.2 * a**3 + a**5 + b, a + 2 * b)


def six_hump_camel(x: Array) -> Values:
    a, b = x[..., 0], x[..., 1]
    value = (4 - 2.1 * a**2 + a**4 / 3) * a**2 + a * b + (4 * b**2 - 4) * b**2
    return value, _xy(8 * a - 8.4 * a**3 + 2 * a**5 + b, a + 16 * b**3 - 8 * b)


def easom(x: Array) -> Values:
    a, b = x[..., 0] - np.pi, x[..., 1] - np.pi
    cos_a, cos_b, well = np.cos(x[..., 0]), np.cos(x[..., 1]), np.exp(-(a**2) - b**2)
    gradient = _xy(np.sin(x[..., 0]) * cos_b + 2 * a * cos_a * cos_b, np.sin(x[..., 1]) * cos_a + 2 * b * cos_a * cos_b)
    return -cos_a * cos_b * well, gradient * well[..., None]


def saddle(x: Array) -> Values:
    a, b = x[..., 0], x[..., 1]
    return a**2 - b**2 + b**4 / 2, _xy(2 * a, -2 * b + 2 * b**3)
