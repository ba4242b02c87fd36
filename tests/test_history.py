"""The recorder, and the pictures of what it recorded."""

import copy
import json
import pickle
from typing import Any

import ml_dtypes
import numpy as np
import optree
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import adamas
import adamas.torch
from adamas import History, _torch_parts, minimize, plot, problems, rules
from adamas.training.peers import TorchOptimizer

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
        assert name in ("SGD", "Momentum", "ADOPT", "Lion")
        with pytest.raises(KeyError, match="'rate' was not recorded: there are step, loss"):
            history["rate"]
        return
    t, state = history["step"][:, None], {key: history[key] for key in getattr(adamas, name).rule.state_names}
    if name == "Adamax":
        assert_allclose(history["rate"], 0.01 / state["u"], rtol=1e-9)
        return
    second = {"AMSGrad": "v_max", "AdaGrad": "s", "AdaBelief": "s", "Adan": "n"}.get(name, "v")
    v = state[second] - (state["n"] ** 2 if "Centered" in name else 0)
    if "RMS" not in name and name != "AdaGrad":
        v = v / (1 - (0.99 if name == "Adan" else 0.999) ** t)
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
    history, opt = History(coordinates=1000), adamas.Adam()
    params = {"w": np.ones((500, 500), np.float32), "b": np.zeros(3)}
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


@pytest.mark.parametrize("coordinates", [-1, [0, -1], [0.5], "x", [[0]]])
def test_wrong_coordinates(coordinates):
    with pytest.raises(ValueError, match="coordinates must be a number of them, or indices from 0 up, got"):
        History(coordinates=coordinates)
    with pytest.raises(AttributeError, match="coordinates"):
        History().coordinates = coordinates
    history, opt, w = History(coordinates=[7]), adamas.Adam(), np.ones(7)
    with pytest.raises(ValueError, match="coordinates has 7, but there are 7, counted from 0"):
        opt.update(w, w.copy(), history=history)
    assert (opt.t, len(history), w.sum()) == (0, 0, 7)


@pytest.mark.parametrize("text", ["{", "[1]", '{"loss": 1}'])
def test_a_file_that_is_no_history(tmp_path, text):
    (tmp_path / "x.jsonl").write_text(text + "\n")
    with pytest.raises(ValueError, match=r"x\.jsonl is not a saved history: line 1"):
        History.load(tmp_path / "x.jsonl")


# --- steps that are given their history -------------------------------------------------------------------------------


def tree(rng: np.random.Generator) -> Any:
    """Arrays of several types and layouts, and floats."""
    return {
        "w": rng.standard_normal((40, 30)).astype(np.float32),
        "half": rng.standard_normal(20).astype(ml_dtypes.bfloat16),
        "turned": np.asfortranarray(rng.standard_normal((3, 5))),
        "deep": [1.0, {"b": -2.0}],
        "complex": rng.standard_normal(4) + 1j,
        "empty": np.zeros(0),
    }


def gradients_like(rng: np.random.Generator, params: Any) -> Any:
    return optree.tree_map(lambda p: np.asarray(p * rng.standard_normal()).astype(np.asarray(p).dtype)[()], params)


def flat(values: Any) -> Any:
    leaves = [np.asarray(leaf) for leaf in optree.tree_leaves(values)]
    return np.concatenate([x.view(float) if x.dtype.kind == "c" else x.astype(float).ravel() for x in leaves])


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.1, "grad_scale": 4.0}, {"clip_value": 0.05}, {"ema": 0.9}])
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_step_that_is_recorded_is_the_same_step(name, options):
    """The same bits, with the statistics of what it did."""
    rng = np.random.default_rng(0)
    make = {"adam": adamas.Adam, "sgd": adamas.SGD}[name]
    recorded_one = tree(rng)
    plain = copy.deepcopy(recorded_one)
    history, opt, other = History(coordinates=10_000), make(0.01, **options), make(0.01, **options)
    for step in range(1, 6):
        g = gradients_like(rng, plain)
        before = flat(plain)
        recorded_one = opt.update(recorded_one, copy.deepcopy(g), history=history, loss=step / 2)
        plain = other.update(plain, g)
        assert_array_equal(flat(recorded_one), flat(plain))
        row = history.rows[-1]
        assert (row["step"], row["loss"], row["learning_rate"]) == (step, step / 2, 0.01)
        assert row["grad_norm"] == pytest.approx(np.linalg.norm(flat(g)) / options.get("grad_scale", 1.0), rel=1e-6)
        assert row["param_norm"] == pytest.approx(np.linalg.norm(flat(plain)), rel=1e-6)
        assert row["change_norm"] == pytest.approx(np.linalg.norm(flat(plain) - before), rel=1e-3)
        if "clip_norm" in options:
            assert row["clip_factor"] == pytest.approx(0.1 / row["grad_norm"], rel=1e-4)
        assert row["clipped"] == (abs(flat(g)) > options["clip_value"]).sum() if "clip_value" in options else True
        assert np.isnan(row["rate_mean"]) == (name == "sgd")
    assert len(history.paths) == 5  # the floats are stepped together
    parts = np.array([history["grad_norm", path] for path in history.paths])
    floats = history["g"][:, -8 - 2 : -8] / options.get("grad_scale", 1.0)
    assert_allclose((parts**2).sum(axis=0) + (floats**2).sum(axis=1), history["grad_norm"] ** 2, rtol=1e-9)
    with pytest.raises(KeyError, match="'nothing' is not the path of an array whose statistics were recorded"):
        history["grad_norm", "nothing"]
    with pytest.raises(KeyError, match="'x' is not recorded of arrays: there are grad_norm"):
        history["x", "w"]


def test_coordinates_of_a_recorded_step():
    history, opt = History(coordinates=[1, 5, 6]), adamas.AMSGrad(0.1)
    params, g = [np.arange(6.0).reshape(2, 3).T, 3.0], [np.full((3, 2), 2.0), None]
    params = opt.update(params, g, history=history)
    x = params[0].reshape(-1)
    assert_array_equal(history["x"], [[x[1], x[5], 3.0]])
    assert_array_equal(history["g"], [[2.0, 2.0, np.nan]])
    assert_array_equal(history["change"][0, 2], 0.0)
    assert_allclose(history["change"][0, :2], -0.1)
    assert_allclose(history["m"], [[0.2, 0.2, 0.0]])
    assert_allclose(history["rate"][0, :2], 0.1 / 2)
    assert history["grad_norm"][0] == np.sqrt(6 * 4.0)  # of what has a gradient


def test_coordinates_of_state_in_8_bits():
    rng = np.random.default_rng(4)
    start = rng.standard_normal((80, 70)).astype(np.float32)
    history, of_tensors = History(coordinates=[0, 255, 256, 5599]), History(coordinates=[0, 255, 256, 5599])
    p, tensor = start.copy(), torch.tensor(start)
    opt = adamas.AdamW(0.01, state_format="q8", seed=3)
    other = adamas.torch.AdamW([tensor], lr=0.01, state_format="q8", seed=3)
    for _ in range(3):
        g = rng.standard_normal(start.shape).astype(np.float32)
        tensor.grad = torch.tensor(g)
        opt.update(p, g, history=history)
        other.step(history=of_tensors)
        shown = opt.state[""]
        for name in ("m", "v"):
            assert_array_equal(history[name][-1], shown[name].ravel()[[0, 255, 256, 5599]])
    for name in ("x", "m", "v", "rate"):
        assert_array_equal(of_tensors[name], history[name])


def test_rows_do_not_depend_on_when_they_are_read():
    read, other = History(most=50), History(most=50)
    for opt, history in ((adamas.Adam(), read), (adamas.Adam(), other)):
        rng, loss = np.random.default_rng(0), np.zeros(())
        params = tree(rng)
        for step in range(1, 80):
            loss[...] = step
            params = opt.update(params, gradients_like(rng, params), history=history, loss=loss)
            if history is read:
                assert history.rows[-1]["loss"] == (step if step < 51 else step // 2 * 2)
            elif step == 40:
                history = pickle.loads(pickle.dumps(history))  # noqa: PLW2901
    assert len(read) == len(history) == 39
    for name in (*(set(read.rows[0]) - {"arrays"}), ("grad_norm", "w"), ("rate_mean", "half")):
        assert_array_equal(history[name], read[name])


def test_wrong_gradients_of_a_recorded_step_are_refused_as_ever():
    opt, history, params = adamas.Adam(), History(), {"w": np.ones(3), "b": np.ones(2)}
    for _ in range(2):
        for grads in ({"w": np.ones(3)}, {"w": np.ones(3), "b": np.ones(3)}, {"w": np.ones(3), "b": "x"}):
            errors = []
            for given in ({"history": history}, {}):
                with pytest.raises((ValueError, TypeError)) as caught:
                    opt.update(params, grads, **given)
                errors.append(str(caught.value))
            assert errors[0] == errors[1]
        recorded_steps = len(history)
        opt.update(params, {"w": np.ones(3), "b": np.ones(2)}, history=history)
        assert len(history) == recorded_steps + 1 == opt.t


def test_effective_rates_of_groups_are_their_own():
    history, opt = History(), adamas.Adam(0.1, groups=[("b", {"learning_rate": 0.2})])
    opt.update({"a": np.ones(2), "b": np.ones(2)}, {"a": np.ones(2), "b": np.ones(2)}, history=history)
    assert_allclose(history["rate"], [[0.1, 0.1, 0.2, 0.2]])
    assert_allclose([history["rate_max", "a"], history["rate_max", "b"]], [[0.1], [0.2]])


def test_skipped_steps_are_counted_and_only_due_steps_are_recorded():
    history, opt, w = History(every=2), adamas.Adam(nonfinite="skip"), np.ones(3)
    for g in (1.0, np.nan, 2.0, np.inf, 3.0, 4.0):
        opt.update(w, np.full(3, g), history=history)
    assert_array_equal(history["step"], [2, 4])
    assert_array_equal(history["skips"], [1, 2])


def test_saved_statistics_come_back(tmp_path):
    rng = np.random.default_rng(1)
    history, opt, params = History(), adamas.Adam(), tree(rng)
    for _ in range(3):
        params = opt.update(params, gradients_like(rng, params), history=history)
    history.save(tmp_path / "h.jsonl")
    loaded = History.load(tmp_path / "h.jsonl")
    assert loaded.paths == history.paths
    for path in history.paths:
        assert_array_equal(loaded["change_norm", path], history["change_norm", path])
    assert "rate_mean of w" in loaded.to_pandas().columns


@pytest.mark.parametrize("engine", [True, False])
def test_steps_of_tensors(engine, monkeypatch):
    monkeypatch.setattr(_torch_parts, "HAS_ENGINE", engine and _torch_parts.HAS_ENGINE)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 1)).double()
    twin = copy.deepcopy(net)
    history = History()
    opt = adamas.torch.AdamW(net.named_parameters(), lr=0.01, clip_norm=0.5)
    other = adamas.torch.AdamW(twin.parameters(), lr=0.01, clip_norm=0.5)
    x = torch.randn(20, 5, dtype=torch.float64)

    def closure(net=net, opt=opt):
        opt.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        return loss

    for step in range(1, 4):
        before = torch.cat([p.detach().ravel() for p in net.parameters()])
        loss = opt.step(closure, history=history)
        other.step(lambda: closure(twin, other))
        now = torch.cat([p.detach().ravel() for p in net.parameters()])
        assert_array_equal(now, torch.cat([p.detach().ravel() for p in twin.parameters()]))
        grads = torch.cat([p.grad.ravel() for p in net.parameters()])
        row = history.rows[-1]
        assert (row["step"], row["loss"]) == (step, loss.item())
        assert_array_equal(row["x"], now)
        assert_array_equal(row["g"], grads)
        assert_array_equal(row["change"], now - before)
        assert row["grad_norm"] == pytest.approx(grads.norm().item())
        assert row["change_norm"] == pytest.approx((now - before).norm().item())
        assert row["rate_mean"] == pytest.approx(row["rate"].mean())
        assert row["clip_factor"] == pytest.approx(min(1, 0.5 / row["grad_norm"]), rel=1e-5)
    assert history.paths == ["0.weight", "0.bias", "1.weight", "1.bias"]
    unnamed = History()
    other.step(history=unnamed, loss=1.0)
    assert (unnamed.paths, unnamed["loss"]) == (["0", "1", "2", "3"], [1.0])


def test_steps_of_torchs_own_optimizers():
    history, params = History(), {"w": np.ones(3), "b": np.zeros(2)}
    opt = TorchOptimizer(torch.optim.Adam, params, {"learning_rate": 0.1})
    opt.update(params, {"w": np.full(3, 2.0), "b": np.ones(2)}, history=history, loss=3.0)
    assert_allclose(history["change_norm"], np.sqrt(5) * 0.1)
    assert_allclose(history["grad_norm", "w"], np.sqrt(12))
    assert np.isnan(history["rate_mean"])
    assert "rate" not in history.rows[0]


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


def test_an_overview_of_runs():
    run = recorded(learning_rate=0.05)
    given, opt, w = History(), adamas.Adam(), {"w": np.ones(5)}
    for step in range(20):
        opt.update(w, {"w": w["w"] * (step + 1)}, history=given, loss=1.0)
    axes = plot.overview({"a": run, "b": given, "c": recorded("sgd", learning_rate=1e-4)})
    assert [ax.get_ylabel() for ax in axes] == [
        "loss", "change / parameters", "gradient norm", "effective learning rate",
    ]  # fmt: skip
    assert all(ax.get_yscale() == "log" for ax in axes)
    assert labels(axes[3]) == ["a", "b", "c: learning rate"]
    assert_array_equal(axes[3].lines[1].get_ydata(), given["rate_mean"])
    assert_array_equal(axes[2].lines[0].get_ydata(), run["grad_norm"])
    assert len(axes[3].collections) == 2


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
