"""What the package promises as a package: its names, its types, its documentation, its source."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import adamas
from adamas import errors, problems, rules, schedules
from adamas._optimizer import Optimizer
from adamas._options import Options

ROOT = Path(__file__).parent.parent


def test_all_is_sorted_and_complete():
    own, of_rules = adamas.__all__[: -len(rules.__all__)], adamas.__all__[-len(rules.__all__) :]
    assert own == sorted(own)
    assert sorted(of_rules) == sorted(rules.RULES)
    for module in (errors, problems, schedules):
        assert module.__all__ == sorted(module.__all__, key=lambda name: (not name.isupper(), name))
    for name in adamas.__all__:
        assert getattr(adamas, name) is not None
    public = {name for name in vars(adamas) if not name.startswith("_")}
    modules = {name for name in public if inspect.ismodule(getattr(adamas, name))}
    assert public - modules == set(adamas.__all__) - {"errors", "problems", "rules", "schedules"}


@pytest.mark.parametrize("name", rules.RULES)
def test_an_optimizer_has_the_signature_and_documentation_of_its_rule(name):
    cls, rule = getattr(adamas, name), rules.RULES[name]
    assert issubclass(cls, rule)
    assert issubclass(cls, Optimizer)
    assert cls.__module__ == "adamas"
    assert cls.__qualname__ == name
    assert list(inspect.signature(cls).parameters) == [*rule.ranges, *Options.option_names, "groups", "sparse"]
    first_line = (rule.__doc__ or "").split("\n", 1)[0]
    assert cls.__doc__.startswith(first_line)
    assert "References:" in cls.__doc__
    for hyperparameter in cls().ranges:
        assert f"\n{hyperparameter}: " in cls.__doc__
    whole = ("cautious", "update_clip", "trust_ratio")
    keyword_only = {"weight_decay", "decoupled", "groups", "sparse", *whole, *Options.option_names}
    for name in (*Options.option_names, "groups", "sparse"):
        assert f"\n{name}: " in cls.__doc__
    for parameter in inspect.signature(cls).parameters.values():
        assert (parameter.kind is parameter.KEYWORD_ONLY) == (parameter.name in keyword_only)
        assert "Annotated" not in str(parameter), "the annotation is for people"


def test_the_defaults():
    defaults = {name: repr(getattr(adamas, name)()) for name in rules.RULES}
    decay = "weight_decay=0.0, decoupled=False)"
    decoupled = "weight_decay=0.0, decoupled=True)"
    moments = "beta1=0.9, beta2=0.999, epsilon=1e-08"
    assert defaults == {
        "SGD": f"SGD(learning_rate=0.001, {decay}",
        "Momentum": f"Momentum(learning_rate=0.001, momentum=0.9, nesterov=False, dampening=0.0, {decay}",
        "AdaGrad": f"AdaGrad(learning_rate=0.01, epsilon=1e-10, {decay}",
        "RMSProp": f"RMSProp(learning_rate=0.01, beta2=0.99, epsilon=1e-08, {decay}",
        "RMSPropMomentum": f"RMSPropMomentum(learning_rate=0.01, beta2=0.99, epsilon=1e-08, momentum=0.9, {decay}",
        "CenteredRMSProp": f"CenteredRMSProp(learning_rate=0.01, beta2=0.99, epsilon=1e-08, {decay}",
        "CenteredRMSPropMomentum": "CenteredRMSPropMomentum(learning_rate=0.01, beta2=0.99, epsilon=1e-08, "
        f"momentum=0.9, {decay}",
        "Adam": f"Adam(learning_rate=0.001, {moments}, {decay}",
        "AdamW": f"AdamW(learning_rate=0.001, {moments}, weight_decay=0.01, decoupled=True)",
        "AMSGrad": f"AMSGrad(learning_rate=0.001, {moments}, {decay}",
        "Adamax": f"Adamax(learning_rate=0.002, {moments}, {decay}",
        "RAdam": f"RAdam(learning_rate=0.001, {moments}, {decay}",
        "AdaBelief": f"AdaBelief(learning_rate=0.001, beta1=0.9, beta2=0.999, epsilon=1e-16, {decay}",
        "Yogi": f"Yogi(learning_rate=0.01, beta1=0.9, beta2=0.999, epsilon=0.001, {decay}",
        "ADOPT": f"ADOPT(learning_rate=0.001, beta1=0.9, beta2=0.9999, epsilon=1e-06, {decay}",
        "AdEMAMix": f"AdEMAMix(learning_rate=0.001, {moments}, beta3=0.9999, alpha=5.0, {decoupled}",
        "Lion": f"Lion(learning_rate=0.0001, beta1=0.9, beta2=0.99, {decoupled}",
        "NAdam": f"NAdam(learning_rate=0.002, {moments}, momentum_decay=0.004, {decay}",
        "LAMB": "LAMB(learning_rate=0.001, beta1=0.9, beta2=0.999, epsilon=1e-06, weight_decay=0.01, decoupled=True, "
        "trust_ratio=True)",
        "ScheduleFreeAdamW": f"ScheduleFreeAdamW(learning_rate=0.0025, {moments}, weight_decay=0.0, decoupled=True)",
        "Adan": f"Adan(learning_rate=0.001, beta1=0.98, beta2=0.92, beta3=0.99, epsilon=1e-08, {decoupled}",
    }


GOOD = """
import numpy as np
from adamas import Adam, AdamW, Momentum, adam_step, schedules

Adam(0.001, 0.9, 0.999, 1e-8)
Adam(learning_rate=lambda step: 1e-3, beta2=0.99, weight_decay=0.1, decoupled=True)
Adam(schedules.Cosine(1e-3, 100), groups=[("*.bias", {"weight_decay": 0.0})])
Momentum(0.1, 0.9, True)
AdamW().learning_rate = 0.1
x, y = Adam().update([1.0, 2.0], [0.1, 0.2])
reveal_type(x)
reveal_type(Adam().update({"w": np.ones(3)}, {"w": np.ones(3)}, copy=True))
reveal_type(Adam().t)
reveal_type(adam_step([1.0], [1.0], None, None, 1)[0])
"""
BAD = """
from adamas import Adam, AdamW
Adam("fast")
Adam(lr=0.1)
Adam(0.1, 0.9, 0.999, 1e-8, 0.1)
AdamW(decoupled=0.5)
Adam().updaet([1.0], [1.0])
"""


def test_type_checkers_see_the_hyperparameters(tmp_path):
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text(BAD)

    def mypy(name):
        command = [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file=",
            f"--cache-dir={tmp_path / 'cache'}",
            name,
        ]
        environment = {"MYPYPATH": str(Path(adamas.__file__).parent.parent)}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        ).stdout

    good = mypy("good.py")
    assert "Success" in good, good
    for revealed in ('"float"', '"dict[str, numpy.ndarray', '"int"', '"list[float]"'):
        assert revealed in good
    bad = mypy("bad.py")
    for line in (3, 4, 5, 6, 7):
        assert f"bad.py:{line}: error" in bad, bad


def test_the_stanzas_of_contributing_are_those_of_the_source():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (diff,) = re.findall(r"```diff\n(.*?)```", text, re.DOTALL)
    for part in diff.split("--- ")[1:]:
        file, *lines = part.splitlines()
        added = "\n".join(line[1:] for line in lines if line.startswith("+") and not line.endswith(">;"))
        first, *stanza = added.partition("\n@rule\n")
        assert first in (ROOT / file).read_text(), file
        assert "".join(stanza) in (ROOT / file).read_text(), file


def test_the_readme_lists_every_rule():
    text = (ROOT / "README.md").read_text()
    for name in rules.RULES:
        assert f"| `{name}` |" in text
