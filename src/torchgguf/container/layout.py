"""Facts about how a GGUF file is laid out, which reading, writing and editing share."""

MAGIC = b"GGUF"
UNFINISHED_MAGIC = b"EDITGGUF"  # the first bytes of a file while its header is overwritten
ALIGNMENT_KEY = "general.alignment"
DEFAULT_ALIGNMENT = 32  # bytes
MAX_ALIGNMENT = (
    1 << 21
)  # bytes, a huge page; no known file has more, and each tensor may cost as much padding
MAX_KEY_BYTES = 2**16 - 1
# Pairs or tensors: ten times as many as any real file has; they are read in less than a second.
MAX_ENTRIES = 1 << 15


def padded(size: int, alignment: int) -> int:
    """Round `size` up to a multiple of `alignment`."""
    return -(-size // alignment) * alignment


def is_alignment(value: int) -> bool:
    """Return whether this is a valid alignment in bytes: a power of two, and not above `MAX_ALIGNMENT`."""
    return 0 < value <= MAX_ALIGNMENT and value & (value - 1) == 0
