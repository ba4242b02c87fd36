"""Every rule as a method of scipy.optimize.minimize: ``minimize(fun, x0, jac=..., method=adamas.scipy.adam)``.

Options are the keywords of `adamas.minimize`, in ``options={...}``; ``tol`` is gtol. Without ``jac`` the gradient is
SciPy's finite difference. What SciPy passes to its own methods and no rule needs (hess, hessp) is ignored; constraints
are refused.
"""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

from adamas._minimize import Minimizer, minimize, scipy_optimize
from adamas._optimizers import OPTIMIZERS

Method = Callable[..., Any]


def _method(name: str) -> Method:
    """Return a rule as a method."""
    known = {*inspect.signature(Minimizer).parameters, *inspect.signature(OPTIMIZERS[name]).parameters}
    known -= {"fun", "x0", "method", "jac", "args", "bounds", "hyperparameters"}

    def method(
        fun: Callable[..., Any],
        x0: Any,
        args: tuple[Any, ...] = (),
        jac: Any = None,
        hess: Any = None,  # noqa: ARG001 - SciPy passes them to all methods
        hessp: Any = None,  # noqa: ARG001
        bounds: Any = None,
        constraints: Any = (),
        callback: Callable[..., Any] | None = None,
        **options: Any,
    ) -> Any:
        if constraints:
            raise ValueError(f"constraints are not supported by {name}: use bounds, or a penalty in fun")
        unknown = [key for key in options if key not in known and key not in ("disp", "maxfev")]
        if unknown:
            warnings.warn(
                f"Unknown solver options: {', '.join(unknown)}", scipy_optimize().OptimizeWarning, stacklevel=3
            )
        options = {key: value for key, value in options.items() if key in known}
        return minimize(fun, x0, method=name, args=args, jac=jac, bounds=bounds, callback=callback, **options)

    method.__name__ = method.__qualname__ = name.lower()
    method.__doc__ = f"adamas.{name} as a method of scipy.optimize.minimize; options as of `adamas.minimize`."
    return method


globals().update({name.lower(): _method(name) for name in OPTIMIZERS})

__all__ = sorted([name.lower() for name in OPTIMIZERS])  # noqa: PLE0605
