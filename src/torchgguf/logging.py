"""How much the package logs: the functions of transformers' `logging`, for the logger `torchgguf`.

Messages go through Python's own logging, so that a program's settings apply to them. Until a program chooses
otherwise, warnings appear, and other messages do not.
"""

import logging
import sys
from logging import CRITICAL, DEBUG, ERROR, FATAL, INFO, NOTSET, WARN, WARNING

__all__ = [
    "CRITICAL",
    "DEBUG",
    "ERROR",
    "FATAL",
    "INFO",
    "NOTSET",
    "WARN",
    "WARNING",
    "add_handler",
    "disable_default_handler",
    "disable_progress_bar",
    "disable_propagation",
    "enable_default_handler",
    "enable_explicit_format",
    "enable_progress_bar",
    "enable_propagation",
    "get_logger",
    "get_verbosity",
    "is_progress_bar_enabled",
    "remove_handler",
    "reset_format",
    "set_verbosity",
    "set_verbosity_debug",
    "set_verbosity_error",
    "set_verbosity_info",
    "set_verbosity_warning",
]

_LOGGER = logging.getLogger("torchgguf")
_EXPLICIT = logging.Formatter("[%(levelname)s|%(filename)s:%(lineno)s] %(asctime)s >> %(message)s")

_handler: logging.Handler | None = None
_bars = True


def get_logger(name: str | None = None) -> logging.Logger:
    """Return the logger of a module, by default that of the package."""
    return logging.getLogger(name) if name else _LOGGER


def get_verbosity() -> int:
    """Return the lowest level that is logged, such as `logging.WARNING`."""
    return _LOGGER.getEffectiveLevel()


def set_verbosity(verbosity: int) -> None:
    """Set the lowest level that is logged.

    Args:
        verbosity: a level of Python's `logging`, such as `logging.INFO`.
    """
    _LOGGER.setLevel(verbosity)
    if verbosity < WARNING and not _LOGGER.hasHandlers():  # Python itself shows only warnings then
        enable_default_handler()


def set_verbosity_debug() -> None:
    """Log everything."""
    set_verbosity(DEBUG)


def set_verbosity_info() -> None:
    """Log messages and warnings."""
    set_verbosity(INFO)


def set_verbosity_warning() -> None:
    """Log warnings and errors, which is the default."""
    set_verbosity(WARNING)


def set_verbosity_error() -> None:
    """Log errors only."""
    set_verbosity(ERROR)


def enable_default_handler() -> None:
    """Write messages to the standard error."""
    global _handler
    if _handler is None:
        _handler = logging.StreamHandler(sys.stderr)
        _LOGGER.addHandler(_handler)


def disable_default_handler() -> None:
    """Undo `enable_default_handler`."""
    global _handler
    if _handler is not None:
        _LOGGER.removeHandler(_handler)
        _handler = None


def add_handler(handler: logging.Handler) -> None:
    """Send messages to a handler too."""
    _LOGGER.addHandler(handler)


def remove_handler(handler: logging.Handler) -> None:
    """Undo `add_handler`."""
    _LOGGER.removeHandler(handler)


def enable_propagation() -> None:
    """Send messages to the handlers of the program too, which is the default."""
    _LOGGER.propagate = True


def disable_propagation() -> None:
    """Do not send messages to the handlers of the program."""
    _LOGGER.propagate = False


def enable_explicit_format() -> None:
    """Let all handlers of the package show level, file, line and time."""
    for handler in _LOGGER.handlers:
        handler.setFormatter(_EXPLICIT)


def reset_format() -> None:
    """Undo `enable_explicit_format`."""
    for handler in _LOGGER.handlers:
        handler.setFormatter(None)


def is_progress_bar_enabled() -> bool:
    """Return whether loading and saving show bars, which they do only on a terminal."""
    return _bars


def bar_disabled() -> bool | None:
    """Return tqdm's `disable`: None shows a bar on a terminal only."""
    return None if _bars else True


def enable_progress_bar() -> None:
    """Show bars while models load and save, which is the default."""
    global _bars
    _bars = True


def disable_progress_bar() -> None:
    """Show no bars while models load and save."""
    global _bars
    _bars = False
