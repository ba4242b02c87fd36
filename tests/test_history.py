"""The recorder, and the pictures of what it recorded."""

import json

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import adamas
from adamas import History, minimize, plot, problems, rules

ROSENBROCK = problems.get("rosenbrock")


def recorded(method="adam", steps=50, problem=ROSENBROCK, history=None, **options):
    history = History() if history is None else history
    minimize(
        problem.value_and_gradient, problem.start, jac=True, method=method, maxiter=steps, history=history, **options
    )
    return history


# --- what is recorded -------------------------------------------------------------------------------------------------


def test_every_step_is_recorded_as_it_was():
    history = recorded(learning_rate=0.05)
    opt, x = adamas.Adam(0.05), ROSENBROCK.start.copy()
    for i in range(50):
        value, gradient = ROSENBROCK.value_and_gradient(x)
        opt.update(x, gradient)
        assert history["loss"][i] == value
        assert_array_equal(history["g"][i], gradient)
        assert_array_equal(history["x"][i], x)
        assert_array_equal(history["m"][i], opt.state[""]["m"])
        assert history["grad_norm"][i] == pytest.approx(np.linalg.norm(gradient))
    assert_array_equal(history["step"], np.arange(1, 51))


@pytest.mark.parametrize("name", rules.RULES)
def test_the_effective_learning_rate_is_what_the_change_is_made_of(name):
    """By the paper's formula, with bias correction; rules without a second moment have none."""
    history = recorded(name.lower(), learning_rate=0.01 if "epsilon" in getattr(adamas, name)().ranges else 1e-4)
    if "rate" not in history.rows[0]:
        assert name in ("SGD", "Momentum")
        with pytest.raises(KeyError, match="'rate' was not recorded: there are step, loss"):
            history["rate"]
        return
    t, state = history["step"][:, None], {key: history[key] for key in getattr(adamas, name).rule.state_names}
    second = {"AMSGrad": "v_max", "AdaGrad": "s"}.get(name, "v")
    v = state[second] - (state["n"] ** 2 if "n" in state else 0)
    if name in ("Adam", "AdamW", "AMSGrad"):
        v = v / (1 - 0.999**t)
    epsilon = getattr(adamas, name)().epsilon
    assert_allclose(history["rate"], 0.01 / (np.sqrt(v) + epsilon), rtol=1e-9)
    if name == "Adam":
        change = -history["rate"] * history["m"] / (1 - 0.9**t)
        assert_allclose(history["change"][1:], change[1:], rtol=1e-9)


def test_memory_stays_bounded():
    history = recorded(steps=1000, history=History(most=100))
    assert len(history) <= 100
    assert history.every == 16
    assert (np.diff(history["step"]) == history.every).all()


def test_large_parameters_are_recorded_in_part():
    history, opt, params = History(), adamas.Adam(), {"w": np.ones((500, 500), np.float32), "b": np.zeros(3)}
    grads = {"w": np.ones((500, 500), np.float32), "b": np.ones(3)}
    opt.update(params, grads)
    history.record(1, None, params, grads, opt)
    assert history["x"].shape == (1, 1000)
    assert np.isnan(history["loss"][0])
    assert history["grad_norm"][0] == pytest.approx(np.sqrt(250_003))
    chosen = History(coordinates=[0, 250_000])
    chosen.record(1, 0.5, params, grads, opt)
    assert_allclose(chosen["x"], [[params["w"][0, 0], params["b"][0]]])


def test_json_lines_and_pandas(tmp_path):
    history = recorded()
    history.save(tmp_path / "history.jsonl")
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert len(lines) == 50
    assert json.loads(lines[0])["step"] == 1
    loaded = History.load(tmp_path / "history.jsonl")
    for name in history.rows[0]:
        assert_array_equal(loaded[name], history[name])
    frame = history.to_pandas()
    assert {"step", "loss", "x[0]", "x[1]", "rate[1]"} <= set(frame.columns)
    assert_array_equal(frame["x[1]"], history["x"][:, 1])


@pytest.mark.parametrize("arguments", [{"every": 0}, {"most": 1}, {"every": 1.5}])
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be an integer"):
        History(**arguments)


# --- pictures ---------------------------------------------------------------------------------------------------------


def labels(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_trajectories_on_contours():
    runs = {name: recorded(name, learning_rate=rate) for name, rate in (("adam", 0.05), ("sgd", 0.001))}
    ax = plot.trajectory(ROSENBROCK, runs)
    assert labels(ax) == ["adam", "sgd", "start", "minimum"]
    paths = {line.get_label(): line.get_xydata() for line in ax.lines}
    for name, run in runs.items():
        assert_array_equal(paths[name], [ROSENBROCK.start, *run["x"]])
    assert_array_equal(paths["start"], [ROSENBROCK.start])
    assert_array_equal(paths["minimum"], ROSENBROCK.minimizers)
    (low_x, high_x), (low_y, high_y) = ax.get_xlim(), ax.get_ylim()
    for path in paths.values():
        assert ((path >= [low_x, low_y]) & (path <= [high_x, high_y])).all()
    contours = [collection for collection in ax.collections if hasattr(collection, "levels")]
    ratios = np.diff(np.log(contours[0].levels))
    assert_allclose(ratios, ratios[0])
    with pytest.raises(ValueError, match="drawn in two dimensions, but sphere has 3"):
        plot.trajectory(problems.get("sphere", 3), {})


def test_an_animation_has_its_frames(tmp_path):
    seen = []
    runs = {"adam": recorded(learning_rate=0.05)}
    plot.animate(ROSENBROCK, runs, tmp_path / "path.gif", frames=5, progress=lambda frame, of: seen.append((frame, of)))
    with Image.open(tmp_path / "path.gif") as movie:
        assert movie.n_frames == 5
    assert len(seen) == 5


def test_a_run_that_diverges_is_marked_where_it_leaves():
    with np.errstate(all="ignore"):
        run = recorded("sgd", learning_rate=0.1)
    ax = plot.trajectory(ROSENBROCK, {"sgd": run})
    crosses = [line for line in ax.lines if line.get_marker() == "X"]
    assert len(crosses) == 1
    run.rows[-1]["loss"] = np.inf
    assert any(line.get_marker() == "X" for line in plot.loss({"sgd": run}).lines)


def test_losses_rates_and_ratios():
    run = recorded(learning_rate=0.05)
    ax = plot.loss({"adam": run})
    assert ax.get_yscale() == "log"
    assert_array_equal(ax.lines[0].get_ydata(), run["loss"])
    upper, lower = plot.effective_rates(run)
    assert lower.get_yscale() == "log"
    assert labels(lower) == ["$x_1$", "$x_2$"]
    assert_array_equal(lower.lines[1].get_ydata(), run["rate"][:, 1])
    assert_array_equal(upper.lines[0].get_ydata(), run["x"][:, 0])
    ratio = plot.update_ratio({"adam": run})
    assert labels(ratio) == ["adam", "1e-3"]
    assert ratio.lines[1].get_ydata()[0] == 1e-3


def test_bands_and_heat_maps():
    losses = np.exp(-np.arange(20) / 5) * np.arange(1, 6)[:, None]
    ax = plot.loss_band({"adam": losses})
    assert_array_equal(ax.lines[0].get_ydata(), np.median(losses, axis=0))
    assert len(ax.collections) == 1
    table = np.array([[1.0, 0.1, np.nan], [2.0, 0.2, 0.3]])
    ax = plot.heat_map([1e-3, 1e-2, 1e-1], [0.9, 0.99], table, labels=("learning rate", "beta1"))
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == "learning rate"
    assert_array_equal(ax.lines[0].get_xydata(), [[1e-1, 0.9]])


def test_pictures_draw_into_axes_that_are_given():
    ax = Figure().subplots()
    assert plot.loss({"adam": recorded()}, ax=ax) is ax
    assert plot.__all__ == sorted(plot.__all__)
