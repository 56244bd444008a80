"""A file whose metadata tests edit, and what it contains."""

import gguf
import numpy as np

TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}" * 40
PADDING = "torchgguf.padding"


def write_example(path):
    """Write a file by gguf-py: a vocabulary, a template, and tensors of several types."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("old")
    writer.add_context_length(2048)
    writer.add_token_list([f"token {i}" for i in range(300)])
    writer.add_token_scores([float(-i) for i in range(300)])
    writer.add_chat_template("{{ messages }}")
    writer.add_tensor("a.weight", np.arange(40, dtype=np.float32).reshape(5, 8))
    writer.add_tensor("b.weight", np.arange(7, dtype=np.int8))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def contents(path):
    """What gguf-py reads: metadata with their types, without what edits leave room by; tensors."""
    reader = gguf.GGUFReader(path)
    fields = {
        key: (field.types, field.contents())
        for key, field in reader.fields.items()
        if not key.startswith("GGUF.") and key != PADDING
    }
    tensors = {t.name: (t.tensor_type, t.shape.tolist(), t.data.tobytes()) for t in reader.tensors}
    return fields, tensors
