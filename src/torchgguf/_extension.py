"""The native part, `torchgguf._native`, where it was built: `native` is that module, or None.

Only a module that is not there counts as not built. One that is there and cannot be loaded (built for another
Python, stale, broken) is an error that everybody sees, not a package that has silently become slow.
"""

try:
    import torchgguf._native as native
except ModuleNotFoundError as missing:
    if missing.name != "torchgguf._native":
        raise
    native = None  # type: ignore[assignment]

__all__ = ["native"]
