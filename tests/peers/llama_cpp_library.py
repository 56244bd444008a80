"""What llama.cpp's library offers and `xllamacpp` does not: control vectors. Called in its shared object."""

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
import xllamacpp


class _Parameters(ctypes.Structure):
    """Any structure of options: larger than each of them, which callers of both directions allow.

    The first number is `n_ctx` of a context's.
    """

    _fields_ = (("first", ctypes.c_uint32), ("second", ctypes.c_uint32), ("rest", ctypes.c_uint64 * 64))


class _Batch(ctypes.Structure):
    _fields_ = (("n_tokens", ctypes.c_int32), *((f"pointer{i}", ctypes.c_void_p) for i in range(6)))


@cache
def _library() -> ctypes.CDLL:
    (path,) = Path(xllamacpp.__file__).parent.glob("xllamacpp*.so")
    library = ctypes.CDLL(str(path))
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    for name, result, arguments in (
        ("model_default_params", _Parameters, ()),
        ("context_default_params", _Parameters, ()),
        ("model_load_from_file", pointer, (ctypes.c_char_p, _Parameters)),
        ("init_from_model", pointer, (pointer, _Parameters)),
        ("batch_get_one", _Batch, (pointer, number)),
        ("decode", number, (pointer, _Batch)),
        ("get_logits_ith", ctypes.POINTER(ctypes.c_float), (pointer, number)),
        ("set_adapter_cvec", number, (pointer, pointer, ctypes.c_size_t, number, number, number)),
        ("free", None, (pointer,)),
        ("model_free", None, (pointer,)),
    ):
        function = getattr(library, f"llama_{name}")
        function.restype, function.argtypes = result, arguments
    library.llama_backend_init()
    return library


def steered_logits(
    path: Path, ids: Sequence[int], directions: torch.Tensor, layers: tuple[int, int], vocab_size: int
) -> torch.Tensor:
    """llama.cpp's logits after a text, with directions `(n, hidden_size)` for the layers 1 to n."""
    library = _library()
    model = library.llama_model_load_from_file(str(path).encode(), library.llama_model_default_params())
    options = library.llama_context_default_params()
    options.first = 64
    context = library.llama_init_from_model(model, options)
    data = directions.float().contiguous()
    assert library.llama_set_adapter_cvec(context, data.data_ptr(), data.numel(), data.shape[1], *layers) == 0
    tokens = (ctypes.c_int32 * len(ids))(*ids)
    batch = library.llama_batch_get_one(ctypes.cast(tokens, ctypes.c_void_p), len(ids))
    assert library.llama_decode(context, batch) == 0
    logits = torch.tensor(library.llama_get_logits_ith(context, -1)[:vocab_size])
    library.llama_free(context)
    library.llama_model_free(model)
    return logits
