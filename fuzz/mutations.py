"""Changes of a document's structure, chosen by a random generator."""

from __future__ import annotations

import json
import math
from random import Random
from typing import Any

from fuzz.documents import CODES, LIST, TEXT, FolderDocument, GGUFDocument, Tensor, Text, Values

_POWERS = (8, 15, 16, 24, 31, 32, 53, 62, 63, 64)
NUMBERS = [*range(9), 31, 33, 100, 1000, *((1 << power) + near for power in _POWERS for near in (-1, 0, 1))]
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-6, 1e30, 65504.0, math.inf, -math.inf, math.nan]
TEXTS = [
    *(
        b"",
        b"\0",
        b"\xff\xfe",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\n\x1b[31m",
        b" ",
        b"a b",
        b"a  b",
        b" a",
        b"-1",
        b"nan",
    ),
    *(b"a" * 63, b"a" * 64, b"a" * 1000, b"<0x0A>", b"<0xZZ>", b"../../x", b"%s{}{{}}", b"{{ x.__class__ }}"),
    *(
        text.encode()
        for text in ("é", "\u202e\u2066\ufeff", "\U0001f468\u200d\U0001f469", "▁", "Ġ", "\u0130")
    ),
    *(
        b"linear",
        b"yarn",
        b"longrope",
        b"none",
        b"gpt2",
        b"llama",
        b"bert",
        b"t5",
        b"rwkv",
        b"mistral",
        b"default",
    ),
]
_TYPES = [*range(45), 99, 1 << 31]
_VALUE_TYPES = [*range(14), 99]
_JSON = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        7,
        10**6,
        2**31,
        2**63,
        -(2**63),
        10**30,
        0.5,
        -1.5,
        1e308,
        math.nan,
        math.inf,
    ),
    *(
        "",
        "x",
        "\ud800",
        "\0",
        "a" * 1000,
        "float16",
        "gelu",
        "llama",
        "qwen2",
        "longrope",
        "(a+)+$",
        "\\",
        "▁",
        "Ġ",
    ),
    *([], {}, [0], [None], ["x"], [[]], [{}], {"": None}, {"type": "x"}, {"0": "x"}, [["a", "b"]], ["a b"]),
]


def number(random: Random, now: Any = None) -> int:
    """Return a number near another one, or one at a border."""
    if isinstance(now, int) and random.random() < 0.3:
        return int(now) + random.choice((-1, 1, -8, 8, -32, 32, 256))
    return (
        random.choice(NUMBERS)
        if random.random() < 0.9
        else random.getrandbits(random.choice((8, 16, 32, 64)))
    )


def value(random: Random, kind: int, depth: int = 0) -> Any:
    """Return a value of a type."""
    if kind == TEXT:
        return Text(random.choice(TEXTS))
    if kind == LIST:
        element = random.choice([kind for kind in _VALUE_TYPES if kind != LIST or depth < 9])
        items = [value(random, element, depth + 1) for _ in range(random.choice((0, 1, 2, 3, 17)))]
        return Values(element, items, number(random, len(items)) if random.random() < 0.2 else None)
    if CODES.get(kind) in ("f", "d"):
        return random.choice(FLOATS)
    return number(random) if kind in CODES else random.randbytes(random.choice((0, 1, 4, 8)))


def _value_of(random: Random, kind: int, now: Any) -> Any:
    """Return a value that differs a little from another of its type."""
    if isinstance(now, Text):
        if random.random() < 0.2:
            return Text(now.data, number(random, len(now.data)))
        data = bytearray(now.data or b"x")
        data[random.randrange(len(data))] = random.randrange(256)
        return Text(bytes(data)) if random.random() < 0.5 else Text(random.choice(TEXTS))
    if not isinstance(now, Values):
        return value(random, kind)
    items, choice = [*now.items], random.random()
    if choice < 0.15:
        return Values(now.element, items, number(random, len(items)))
    if choice < 0.25:
        return Values(random.choice(_VALUE_TYPES), items)
    if not items or choice < 0.35:
        return Values(now.element, [*items, value(random, now.element)])
    at = random.randrange(len(items))
    if choice < 0.5:
        return Values(now.element, items[:at])
    if choice < 0.6:
        items[at] = random.choice(items)
    else:
        items[at] = _value_of(random, now.element, items[at])
    return Values(now.element, items)


def _change_pair(random: Random, document: GGUFDocument) -> None:
    if not document.pairs:
        return
    at, choice = random.randrange(len(document.pairs)), random.random()
    key, kind, now = document.pairs[at]
    if choice < 0.6:
        document.pairs[at] = key, kind, _value_of(random, kind, now)
    elif choice < 0.7:
        kind = random.choice(_VALUE_TYPES)
        document.pairs[at] = key, kind, value(random, kind)
    elif choice < 0.75:
        document.pairs[at] = key, random.choice(_VALUE_TYPES), now
    elif choice < 0.8:
        document.pairs[at] = Text(random.choice(TEXTS)), kind, now
    elif choice < 0.9:
        del document.pairs[at]
    else:
        document.pairs.append(random.choice(document.pairs))


def _change_tensor(random: Random, document: GGUFDocument) -> None:
    if not document.tensors:
        return
    tensor, choice = random.choice(document.tensors), random.random()
    if choice < 0.25 and tensor.dims:
        at = random.randrange(len(tensor.dims))
        tensor.dims[at] = number(random, tensor.dims[at])
    elif choice < 0.3:
        tensor.dims = [number(random) for _ in range(random.randrange(6))]
    elif choice < 0.35:
        tensor.dims_stated = number(random, len(tensor.dims))
    elif choice < 0.5:
        tensor.type_id = random.choice(_TYPES)
    elif choice < 0.6:
        tensor.offset = number(random, tensor.offset)
    elif choice < 0.7:
        tensor.name = Text(
            random.choice((*TEXTS, b"rope_freqs.weight", b"output.weight", b"blk.1.attn_q.bias"))
        )
    elif choice < 0.8:
        document.tensors.remove(tensor)
    elif choice < 0.9:
        tensor.dims = [*reversed(tensor.dims)] if random.random() < 0.5 else [math.prod(tensor.dims)]
    else:
        name = Text(random.choice((b"rope_freqs.weight", b"blk.1.attn_q.weight", b"x", b"blk.0.attn_q.bias")))
        document.tensors.append(Tensor(name, [*tensor.dims], tensor.type_id, len(document.data)))
        document.data += bytes(-len(document.data) % 32 + 4096)


def _change_header(random: Random, document: GGUFDocument) -> None:
    choice = random.random()
    if choice < 0.2:
        document.version = random.choice((0, 1, 2, 3, 4, 3 << 24))
    elif choice < 0.4:
        document.order = ">" if document.order == "<" else "<"
    elif choice < 0.6:
        document.counts[random.randrange(2)] = number(random)
    elif choice < 0.8:
        document.alignment = number(random)
        document.pairs.append((Text(b"general.alignment"), 4, document.alignment))
    else:
        document.data = document.data[: random.randrange(len(document.data) + 1)]


def gguf(random: Random, document: GGUFDocument) -> bytes:
    """Return the bytes of a changed copy."""
    document = document.copy()
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        changes = (_change_pair, _change_pair, _change_pair, _change_tensor, _change_tensor, _change_header)
        random.choice(changes)(random, document)
    return _bytes(random, document.build())


def _bytes(random: Random, data: bytes) -> bytes:
    """Change single bytes, rarely."""
    choice = random.random()
    if choice > 0.1 or not data:
        return data
    if choice < 0.03:
        return data[: random.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(random.choice((1, 2, 8))):
        changed[random.randrange(min(len(changed), 4096))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _change_json(random: Random, contents: Any, values: list[Any]) -> None:
    """Change one value somewhere in a JSON object or list."""
    while isinstance(contents, dict | list) and contents:
        key = random.choice([*contents] if isinstance(contents, dict) else range(len(contents)))
        inner = contents[key]
        if isinstance(inner, dict | list) and inner and random.random() < 0.8:
            contents = inner
            continue
        choice = random.random()
        if choice < 0.6:
            contents[key] = random.choice(values)
        elif choice < 0.7 and isinstance(inner, int) and not isinstance(inner, bool):
            contents[key] = number(random, inner)
        elif choice < 0.8:
            del contents[key]
        elif choice < 0.9 and isinstance(contents, list):
            contents.insert(key, random.choice(contents))
        else:
            contents[key] = [inner] * random.choice((2, 50)) if choice < 0.95 else str(inner)
        return


def folder(random: Random, document: FolderDocument) -> dict[str, bytes]:
    """Return the files of a changed copy."""
    document = document.copy()
    added = (
        "num_labels",
        "id2label",
        "layer_types",
        "rope_scaling",
        "head_dim",
        "dtype",
        "pad_token_id",
        "num_experts",
    )
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        choice = random.random()
        if choice < 0.6:
            _change_json(random, document.files[random.choice([*document.files])], _JSON)
        elif choice < 0.7:
            document.files["config.json"][random.choice(added)] = random.choice(_JSON)
        elif choice < 0.9:
            _change_json(
                random,
                document.header,
                [*NUMBERS, -1, None, [], [0], [1, 2, 3], "I8", "F64", "BF16", "F8_E4M3", "BOOL", "F4"],
            )
        elif choice < 0.95:
            document.header_size = number(random)
        else:
            document.data_size = random.randrange((document.data_size or 0) + 9)
    files = {name: _bytes(random, data) for name, data in document.build().items()}
    if random.random() < 0.05:
        shard = random.choice(("model-1.safetensors", "../x.safetensors", "\0", "", 7, None))
        files["model-1.safetensors"] = files.pop("model.safetensors")
        index = {"weight_map": dict.fromkeys(document.header, "model-1.safetensors") | {"x": shard}}
        files["model.safetensors.index.json"] = json.dumps(index).encode()
    return files
