"""Guess the format of a file that is not GGUF, from its first bytes."""

from torchgguf.container.layout import UNFINISHED_MAGIC

_PREFIXES = (
    (
        UNFINISHED_MAGIC.lower(),
        "a GGUF file with an unfinished edit of its metadata; if no process is editing it now, "
        "`torchgguf metadata` with the file's name restores it",
    ),
    (
        b"version https://git-lfs",
        "a Git LFS pointer: download the file itself with `git lfs pull`",
    ),
    (b"<!doctype html", "an HTML page: the download returned a web page instead of the file"),
    (b"<html", "an HTML page: the download returned a web page instead of the file"),
    (b"pk\x03\x04", "a ZIP archive or a PyTorch checkpoint"),
    (b"\x1f\x8b", "a gzip archive: decompress it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive: decompress it first"),
    (b"\x80\x02", "a Python pickle or an old PyTorch checkpoint"),
    (b"lmgg", "GGML, a format older than GGUF"),
    (b"fmgg", "GGMF, a format older than GGUF"),
    (b"tjgg", "GGJT, a format older than GGUF"),
    (b"{", "JSON"),
    (b"\x00\x00\x00\x00", "zeros: the download may be incomplete"),
)


def guess_format(head: bytes) -> str | None:
    """Return what a file with these first bytes probably is, or None; 16 to 64 bytes are enough."""
    if head[8:10] == b'{"':  # an 8-byte length, then JSON
        return "safetensors"
    start = head.lstrip().lower()
    return next((what for prefix, what in _PREFIXES if start.startswith(prefix)), None)
