"""Packages that only some of the training needs."""

from importlib.util import find_spec

__all__ = ["require"]


def require(package: str, purpose: str) -> None:
    """Raise ImportError, naming the purpose and what to install, if a package is not there. It is not imported."""
    if find_spec(package) is None:
        raise ImportError(f"{purpose} needs the package {package}, which is missing: pip install 'adamas[train]'")
