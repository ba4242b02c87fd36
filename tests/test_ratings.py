"""Ratings: files of every dialect, the gradient, exact steps that end where dense ones do, the command."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from safetensors.numpy import load_file

import adamas
from adamas.training.ratings import Factors, Ratings, fit, rmse_of_biases, rmse_of_mean

FILES = {
    "titles.csv": "userId,movieId,rating,timestamp\n7,x,3.5,0\n7,y,4,0\nb,x,1,0\n",
    "plain.csv": "7,x,3.5\n7,y,4\nb,x,1\n",
    "movielens.dat": "7::x::3.5::0\n7::y::4::0\nb::x::1::0\n",
    "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttime:float\n7\tx\t3.5\t0\n7\ty\t4\t0\nb\tx\t1\t0\n",
    "other order.csv": '"Rating";"Book";"User"\n3.5;x;7\n4;y;7\n1;x;b\n',
    "with a mark.csv": "\ufeffuser,item,rating\r\n7,x,3.5\r\n7,y,4\r\n\r\nb,x,1\r\n",
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_every_dialect(name, tmp_path):
    (tmp_path / name).write_text(FILES[name], encoding="utf-8", newline="")
    found = Ratings.read(tmp_path / name)
    assert (found.user_names, found.item_names) == (["7", "b"], ["x", "y"])
    assert (found.users.tolist(), found.items.tolist(), found.values.tolist()) == ([0, 0, 1], [0, 1, 0], [3.5, 4, 1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("user,item,rating\n", "has 0 ratings"),
        ("a,b,1\na,c,1\n", "has 2 ratings: it needs three at least"),
        ("a,b,1\n ,b,2\n", "line 2: the user is empty"),
        ("a,b,1\na,b,good\n", "line 2: the rating 'good' is no number"),
        ("a,b,1\na,b,nan\n", "line 2: the rating 'nan' is no number"),
        ("a,b,1\na,b,1e39\n", "line 2: the rating '1e39' is no number"),
        ("a,b,1\na,b\n", "line 2: 2 columns, and user, item and rating are to be in columns 1, 2, 3"),
        ("a,b,c\n1,2,3\n", "line 1: 'a', 'b', 'c' is neither user, item and rating nor has it a title for the user"),
        ("\n\na,b,c\n1,2,3\n", "line 3: 'a', 'b', 'c' is neither"),
        ("user,rating\n1,2\n", "nor has it a title for the item, such as 'item'"),
    ],
)
def test_files_that_are_not(text, words, tmp_path):
    (tmp_path / "x").write_text(text)
    with pytest.raises(ValueError, match=words):
        Ratings.read(tmp_path / "x")


def test_colons_in_a_name_are_no_separator(tmp_path):
    (tmp_path / "x").write_text('user,item,rating\na::x,"Alien::Cut",3\nb,y,4\nc,y,4\n')
    assert Ratings.read(tmp_path / "x").item_names == ["Alien::Cut", "y"]


@pytest.mark.parametrize(
    ("count", "share", "sizes"), [(5, 0.4999, (1, 2, 2)), (3, 0.1, (1, 1, 1)), (100, 0.1, (80, 10, 10))]
)
def test_the_parts_share_the_ratings_and_none_is_empty(count, share, sizes):
    ratings = made(count=count)
    parts = ratings.split(np.random.default_rng(0), share)
    assert tuple(map(len, parts)) == sizes
    assert sorted(np.concatenate([part.values for part in parts])) == sorted(ratings.values)


def test_bytes_are_no_text(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no text with columns"):
        Ratings.read(tmp_path / "x")


def made(users=300, items=200, count=12_000, seed=0):
    """Return ratings of a model of rank 3, with a little noise."""
    rng = np.random.default_rng(seed)
    u, v = rng.normal(0, 0.7, (users, 3)), rng.normal(0, 0.7, (items, 3))
    rows, columns = rng.integers(0, users, count), rng.integers(0, items, count)
    of_users, of_items = rng.normal(0, 0.3, users)[rows], rng.normal(0, 0.3, items)[columns]
    values = 3.5 + of_users + of_items + (u[rows] * v[columns]).sum(1) + rng.normal(0, 0.1, count)
    names = [str(i) for i in range(users)], [str(i) for i in range(items)]
    return Ratings(rows, columns, values.astype(np.float32), *names)


def test_the_gradient_is_that_of_central_differences():
    ratings, rng = made(20, 10, 30), np.random.default_rng(1)
    model, params = Factors(3.5), Factors.init(made(20, 10, 30), 4, rng)
    params = {name: table.astype(np.float64) for name, table in params.items()}
    _, gradients = model.gradients(params, ratings)
    for name, table in params.items():
        dense = gradients[name].dense(len(table))
        for place in [(0, 0), (3, 1), (7, 4)]:
            values = []
            for step in (1e-5, -1e-5):
                changed = {key: array.copy() for key, array in params.items()}
                changed[name][place] += step
                values.append(model.gradients(changed, ratings)[0])
            assert_allclose(dense[place], (values[0] - values[1]) / 2e-5, rtol=1e-4, atol=1e-7)


def fitted(mode, epochs=12):
    train, validation, _ = made().split(np.random.default_rng(2))
    params = Factors.init(train, 4, np.random.default_rng(3))
    opt = adamas.AdamW(0.01, weight_decay=0.02, sparse="exact" if mode == "dense" else mode)
    options = {"epochs": epochs, "batch_size": 64, "rng": np.random.default_rng(4), "dense": mode == "dense"}
    *_, last = fit(Factors(float(train.values.mean())), params, opt, train, validation, **options)
    return last, train, validation


def test_exact_steps_end_where_dense_ones_do_and_lazy_ones_elsewhere():
    last = {mode: fitted(mode)[0].validation_rmse for mode in ("dense", "exact", "lazy")}
    assert abs(last["exact"] - last["dense"]) < 1e-4
    assert abs(last["lazy"] - last["dense"]) > 1e-3


def test_what_made_the_ratings_is_found():
    last, train, seen = fitted("exact")
    biases = rmse_of_biases(train, seen)
    assert last.validation_rmse < 0.5 * biases < biases < rmse_of_mean(train, seen)


def write(path, ratings):
    rows = zip(ratings.users, ratings.items, ratings.values, strict=True)
    path.write_text("user,item,rating\n" + "".join(f"u{u},i{i},{r:.3f}\n" for u, i, r in rows))


def test_the_command(adamas_, tmp_path):
    write(tmp_path / "r.csv", made(count=3000))
    done = adamas_(
        "train", "ratings", "r.csv", "--compare", "dense,exact,lazy", "--epochs", "2", "--out", "o", timeout=200
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("3,000 ratings of 200 items by 300 users\n")
    assert "held-out error of the biases: " in done.stdout
    results = json.loads((tmp_path / "o" / "results.json").read_text())
    assert abs(results["exact"]["rmse"] - results["dense"]["rmse"]) < 1e-4
    names = {path.name for path in (tmp_path / "o").iterdir()}
    assert {"config.json", "history.jsonl", "ratings.png", "factors-exact.safetensors", "names.json"} <= names
    assert len((tmp_path / "o" / "history.jsonl").read_text().splitlines()) == 6
    done = adamas_(
        "train", "ratings", "r.csv", "--learning-rate", "0.05", "--weight-decay", "0", "--out", "p", timeout=200
    )
    results = json.loads((tmp_path / "p" / "results.json").read_text())["exact"]
    rows = [json.loads(line) for line in (tmp_path / "p" / "history.jsonl").read_text().splitlines()]
    errors = [row["validation_rmse"] for row in rows]
    assert results["epochs"] == len(rows) == results["best_epoch"] + 2 < 20  # it overfits, and stops
    assert results["validation_rmse"] == min(errors) == errors[results["best_epoch"] - 1]
    ratings = Ratings.read(tmp_path / "r.csv")
    train, _, test = ratings.split(np.random.default_rng(0).spawn(3)[0])
    kept = load_file(tmp_path / "p" / "factors-exact.safetensors")
    assert Factors(float(train.values.mean(dtype=np.float64))).rmse(kept, test) == pytest.approx(results["rmse"])
    for line, words in (
        ("missing.csv", "cannot be read: No such file"),
        ("r.csv --sparse never", "--sparse is 'never': it must be exact, lazy, dense"),
        ("r.csv --compare exact,no", "--compare is 'no'"),
        ("r.csv --held-out 1", "--held-out must be between 0 and 0.5"),
        ("r.csv --factors 0", "--factors must be at least 1, got 0"),
        ("r.csv --out o", "--out 'o' cannot be used: it is not empty"),
        ("r.csv --learning-rate -1", "learning_rate must be finite and at least 0"),
        ("r.csv --learning-rate 1e30", "with sparse gradients it must be below 1"),
        ("r.csv --compare exact,exact", "--compare names exact twice"),
    ):
        done = adamas_("train", "ratings", *line.split())
        assert done.returncode == 2, line
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
