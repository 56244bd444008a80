"""What a file is that is not GGUF, as far as its first bytes tell."""

from torchgguf.container.layout import UNFINISHED_MAGIC

_PREFIXES = (
    (
        UNFINISHED_MAGIC.lower(),
        "a GGUF file whose metadata are being edited; if no process is at it any more, one has died: "
        "`torchgguf metadata` with the file's name restores it",
    ),
    (
        b"version https://git-lfs",
        "a Git LFS pointer: the file itself was not downloaded (`git lfs pull`)",
    ),
    (b"<!doctype html", "an HTML page: the download gave a web page in place of the file"),
    (b"<html", "an HTML page: the download gave a web page in place of the file"),
    (b"pk\x03\x04", "a ZIP archive or a PyTorch checkpoint"),
    (b"\x1f\x8b", "gzip-compressed: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed: unpack it first"),
    (b"\x80\x02", "a Python pickle or an old PyTorch checkpoint"),
    (b"lmgg", "GGML, a format older than GGUF"),
    (b"fmgg", "GGMF, a format older than GGUF"),
    (b"tjgg", "GGJT, a format older than GGUF"),
    (b"{", "JSON"),
    (b"\x00\x00\x00\x00", "zeros: perhaps an unfinished download"),
)


def guess_format(head: bytes) -> str | None:
    """A guess at what a file is that begins with these bytes (16 to 64 of them are enough), or None."""
    if head[8:10] == b'{"':  # eight bytes of length, then JSON
        return "safetensors"
    start = head.lstrip().lower()
    return next((what for prefix, what in _PREFIXES if start.startswith(prefix)), None)
