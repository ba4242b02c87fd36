"""Threads and processes: forks, pools, floating-point modes, the settings that a process is started with."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from harness import ISA_LEVELS
from numpy.testing import assert_array_equal

import adamas
import adamas.torch
from adamas._native import engine

pytestmark = pytest.mark.skipif(engine is None, reason="adamas was installed without its engine")


@pytest.fixture
def two_threads():
    """As many threads for adamas and torch, which have one pool."""
    before = torch.get_num_threads()
    adamas.set_num_threads(2)
    torch.set_num_threads(2)
    yield
    adamas.set_num_threads(None)
    torch.set_num_threads(before)


def run_python(code: str, **environment: str) -> str:
    """Return what a new Python process prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- forks ------------------------------------------------------------------------------------------------------------

FORKS = """
import os, signal, numpy as np, adamas
adamas.set_num_threads(2)
opt, p, g = adamas.Adam(clip_norm=1.0, ema=0.9), np.ones(200_000, np.float32), np.ones(200_000, np.float32)
opt.update(p, g)
q = p.copy()
for _ in range({children}):
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a child that hangs is killed
        opt.update(p, g)
        os._exit(0 if adamas.get_num_threads() == 1 and (p != q).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
opt.update(p, g)
print(adamas.get_num_threads())
"""


def test_processes_forked_after_a_threaded_step_run_serially():
    assert run_python(FORKS.format(children=20), ADAMAS_ISA=ISA_LEVELS[0]) == "2\n"


@pytest.mark.stress
def test_a_thousand_forked_processes():
    assert run_python(FORKS.format(children=1000), ADAMAS_ISA=ISA_LEVELS[0]) == "2\n"


def test_a_fork_steps_torch_parameters_too():
    code = FORKS.replace("numpy as np, adamas", "numpy as np, torch, adamas.torch as at; import adamas")
    code = code.replace("opt.update(p, g)", "opt.step()").replace("p.copy()", "p.detach().clone()")
    made = """ps = [torch.nn.Parameter(torch.ones(1000)) for _ in range(200)]
for x in ps: x.grad = torch.ones(1000)
p, opt = ps[7], at.Adam(ps, ema=0.9)
opt.step()"""
    lines = code.splitlines()
    lines[3] = made
    assert run_python("\n".join(lines).format(children=5), ADAMAS_ISA=ISA_LEVELS[0]) == "2\n"


# --- floating-point modes ---------------------------------------------------------------------------------------------


def test_denormals_are_flushed_in_the_kernel_and_nowhere_else():
    least = np.nextafter(np.float32(0), np.float32(1))
    one = np.float32(1)
    opt = adamas.Momentum(learning_rate=1.0, momentum=0.5)
    p = np.zeros(3, np.float32)
    opt.update(p, np.full(3, least))
    assert_array_equal(p, 0)
    assert least * one == least
    with adamas.flush_denormals():
        assert least * one == 0
        opt.update(p, np.full(3, least))
        assert least * one == 0
    assert least * one == least
    with pytest.raises(ValueError, match="grads"):
        opt.update(p, np.ones(4, np.float32))
    assert least * one == least


def modes(n: int = 2_000_000) -> set[float]:
    """Return what becomes of a denormal number in each thread: here, in another, in the pool that torch shares."""
    least = np.nextafter(np.float32(0), np.float32(1))
    with ThreadPoolExecutor(1) as other:
        seen = {float(least * np.float32(1)), float(other.submit(lambda: least * np.float32(1)).result())}
    return seen | set((torch.full((n,), float(least)) * 1).unique().tolist())


def test_no_thread_has_another_mode_after_a_step_or_an_exception(two_threads):
    least = {float(np.nextafter(np.float32(0), np.float32(1)))}
    assert modes() == least
    p, g = np.ones(500_000, np.float32), np.ones(500_000, np.float32)
    opt = adamas.Adam(clip_norm=1.0, ema=0.9, state_format="bfloat16", nonfinite="raise")
    for _ in range(2):
        opt.update(p, g)
        assert modes() == least
    g[-1] = np.nan
    with pytest.raises(FloatingPointError):
        opt.update(p, g)
    with pytest.raises(ValueError, match="grads"):
        opt.update(p, g[1:])
    with pytest.raises(ZeroDivisionError):
        adamas.Adam(lambda step: 1 / step).update(p, np.ones_like(p))
    assert modes() == least


def test_importing_adamas_changes_no_mode():
    code = "import numpy as np{}; x = np.nextafter(np.float32(0), np.float32(1)); print(float(x * np.float32(1)) > 0)"
    assert run_python(code.format(", adamas"), ADAMAS_ISA=ISA_LEVELS[0]) == "True\n"


# --- threads of Python ------------------------------------------------------------------------------------------------


def trained(seed: int, steps: int = 20, n: int = 60_000) -> tuple[adamas.Adam, np.ndarray]:
    rng = np.random.default_rng(seed)
    opt, p = adamas.Adam(0.01, clip_norm=1.0, ema=0.9), rng.standard_normal(n, np.float32)
    for _ in range(steps):
        opt.update(p, rng.standard_normal(n, np.float32))
    return opt, p


def test_optimizers_in_threads_of_their_own_give_the_bits_of_serial_runs(two_threads):
    serial = [trained(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(trained, range(8)))
    for (opt, p), (other, q) in zip(serial, parallel, strict=True):
        assert_array_equal(p, q)
        assert_array_equal(opt.ema, other.ema)


def test_large_steps_let_other_threads_run(two_threads):
    """While one thread is in steps of large arrays, another takes steps too: each waits for the other's progress."""
    progress = [threading.Semaphore(0), threading.Semaphore(0)]

    def work(own: int) -> None:
        opt, p, g = adamas.Adam(), np.ones(2_000_000, np.float32), np.ones(2_000_000, np.float32)
        for _ in range(5):
            opt.update(p, g)
            progress[own].release()
            assert progress[1 - own].acquire(timeout=60)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, 0), pool.submit(work, 1)]:
            done.result()


def test_one_optimizer_in_two_threads_is_refused_and_stays_whole():
    entered, leave = threading.Event(), threading.Event()

    def schedule(step: int) -> float:
        if step == 1:
            entered.set()
            assert leave.wait(timeout=60)
        return 0.5

    opt, p, g = adamas.SGD(schedule), np.zeros(3), np.ones(3)
    opt.update(p, g)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(opt.update, p, g)
        assert entered.wait(timeout=60)
        with pytest.raises(RuntimeError, match="in an update already: use one per thread"):
            opt.update(p, g)
        leave.set()
        first.result()
    assert_array_equal(p, -1)
    assert opt.t == 2


def test_one_torch_optimizer_in_two_threads_is_refused_each_time():
    """The refusal must not undo what the first thread is in the middle of."""
    entered, leave = threading.Event(), threading.Event()

    class Slow(float):
        def __float__(self) -> float:
            entered.set()
            assert leave.wait(timeout=60)
            return 1.0

    params = [torch.nn.Parameter(torch.zeros(3)) for _ in range(100)]
    for p in params:
        p.grad = torch.ones(3)
    opt = adamas.torch.SGD(params, lr=1.0)
    opt.step()
    opt.param_groups[0]["lr"] = Slow(1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(opt.step)
        assert entered.wait(timeout=60)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="in a step already: use one per thread"):
                opt.step()
        leave.set()
        first.result()
    assert all(torch.equal(p.detach(), torch.full((3,), -2.0)) for p in params)


# --- counts and sizes -------------------------------------------------------------------------------------------------


def test_steps_are_counted_exactly_to_2_to_the_53():
    last = 2**53 - 2
    opt, p = adamas.Adam(), np.ones(3)
    opt._memory.t = last
    opt.update(p, np.ones(3))
    opt.update(p, np.ones(3))
    assert opt.t == last + 2
    assert np.isfinite(p).all()
    tensor = torch.nn.Parameter(torch.ones(3))
    tensor.grad = torch.ones(3)
    theirs = adamas.torch.Adam([tensor])
    theirs.step()
    for start in (2**24, last):  # torch's own count, in float32, stays at 2**24
        state = theirs.state_dict()
        state["state"][0]["step"] = torch.tensor(float(start), dtype=torch.float64)
        theirs.load_state_dict(state)
        theirs.step()
        assert float(theirs.state[tensor]["step"]) == start + 1


def test_more_than_2_to_the_31_elements_in_one_array():
    n = 2**31 + 1
    p = np.zeros(n, np.float16)
    adamas.SGD(0.5).update(p, np.broadcast_to(np.float16(1), n))
    for i in (0, 1, 2**31 - 1, 2**31, n - 1):
        assert p[i] == -0.5
    assert p[::4096].min() == p[::4096].max() == -0.5


# --- the process ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["torch, adamas", "adamas, torch"])
def test_one_pool_of_threads_beside_torch(order):
    """Each library's parallel work after the other's adds no thread."""
    out = run_python(
        f"""
import os
import {order}
import numpy as np
count = lambda: len(os.listdir("/proc/self/task"))
torch.set_num_threads(2); adamas.set_num_threads(2)
def ours():
    adamas.Adam().update(np.ones(500_000, np.float32), np.ones(500_000, np.float32))
    return count()
def theirs():
    torch.ones(2_000_000).exp_().sum()
    return count()
work = [ours, theirs] if "{order}".startswith("adamas") else [theirs, ours]
print(work[0](), work[1]())
""",
        ADAMAS_ISA=ISA_LEVELS[0],
    )
    first, second = out.split()
    assert first == second


def test_the_number_of_threads_follows_its_settings():
    code = "import adamas; print(adamas.get_num_threads())"
    native = {"ADAMAS_ISA": ISA_LEVELS[0]}
    assert run_python(code, OMP_NUM_THREADS="3", **native) == "3\n"
    limited = "import adamas, threadpoolctl\nwith threadpoolctl.threadpool_limits(1): print(adamas.get_num_threads())"
    assert run_python(limited, OMP_NUM_THREADS="3", **native) == "1\n"
    own = "import adamas; adamas.set_num_threads(5); print(adamas.get_num_threads())"
    assert run_python(own, OMP_NUM_THREADS="3", **native) == "5\n"


def test_adamas_isa_picks_the_engine():
    code = "import adamas; print(adamas.engine)"
    for level in ISA_LEVELS:
        assert run_python(code, ADAMAS_ISA=level) == f"native ({level})\n"
    assert run_python(code, ADAMAS_ISA="specification") == "specification\n"
    with pytest.raises(AssertionError, match=r"ADAMAS_ISA must be one of .*specification on this machine, got 'mmx'"):
        run_python(code, ADAMAS_ISA="mmx")
