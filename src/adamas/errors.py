"""The errors and warnings that are adamas's own; all others are Python's."""

__all__ = ["CheckpointError", "CheckpointWarning"]


class CheckpointError(ValueError):
    """A checkpoint is damaged, is no checkpoint, or does not fit what it is loaded into. Nothing was changed."""


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was passed over, or a part of one does not fit and was left out as was asked for."""
