"""However large a model is, to convert it takes the memory of a few of its tensors."""

import json
import subprocess
import sys

import pytest

# Models whose layers differ in number and not in size. The most memory that a process has had is set back to
# what it has before each conversion; the first one, which is of neither, loads whatever loads itself once.
PROGRAM = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from torchgguf.conversion.from_checkpoint import convert_to_gguf
from torchgguf.conversion.to_checkpoint import convert_to_checkpoint
from torchgguf.models import LlamaConfig

place = Path(sys.argv[1])

def publish(layers):
    config = LlamaConfig(vocab_size=256, hidden_size=512, intermediate_size=2048, num_hidden_layers=layers,
                         num_attention_heads=8, num_key_value_heads=8, architectures=["LlamaForCausalLM"])
    folder = place / str(layers)
    folder.mkdir()
    (folder / "config.json").write_text(config.to_json_string(use_diff=False))
    index = {}
    def write(number, **shapes):
        tensors = {name: torch.randn(shape).mul(0.02).bfloat16() for name, shape in shapes.items()}
        file = f"model-{number:05}-of-{layers:05}.safetensors"
        save_file(tensors, folder / file, {"format": "pt"})
        index.update(dict.fromkeys(tensors, file))
    for i in range(layers):
        attention = {f"self_attn.{x}_proj.weight": (512, 512) for x in "qkvo"}
        mlp = {"mlp.up_proj.weight": (2048, 512), "mlp.gate_proj.weight": (2048, 512),
               "mlp.down_proj.weight": (512, 2048)}
        norms = {"input_layernorm.weight": (512,), "post_attention_layernorm.weight": (512,)}
        layer = attention | mlp | norms
        write(i + 1, **{f"model.layers.{i}.{name}": shape for name, shape in layer.items()})
    ends = {"model.embed_tokens.weight": (256, 512), "lm_head.weight": (256, 512)}
    write(0, **ends, **{"model.norm.weight": (512,)})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder

def resident(what):
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in status if line.startswith(what)).split()[1])

def most_memory(convert):
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    convert()
    return resident("VmHWM") - before

peaks = {}
for layers in (1, 8, 32):
    folder, file = publish(layers), place / f"{layers}.gguf"
    for name, kind in {"as it is": None, "F16": "F16", "Q4_K_M": "Q4_K_M"}.items():
        peak = most_memory(lambda: convert_to_gguf(folder, file, quantization=kind, tokenizer=False))
        peaks.setdefault(name, {})[layers] = peak
    back = lambda: convert_to_checkpoint(file, place / f"back-{layers}", dtype="bfloat16")
    peaks.setdefault("back", {})[layers] = most_memory(back)
sizes = {layers: sum(file.stat().st_size for file in (place / str(layers)).iterdir()) for layers in (8, 32)}
print(json.dumps({"sizes": sizes, "peaks": peaks}))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Bytes of two models, one four times the other, and the most memory that each conversion took."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path_factory.mktemp("models"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much memory was in use")
@pytest.mark.parametrize("way", ["as it is", "F16", "Q4_K_M", "back"])
def test_memory_does_not_grow_with_the_model(measured, way):
    small, large = (measured["sizes"][layers] for layers in ("8", "32"))
    assert large > 3.9 * small > 250e6
    peaks = measured["peaks"][way]
    assert peaks["32"] < large / 3, measured
    assert peaks["32"] - peaks["8"] < (large - small) / 3, measured  # what is kept would be all of it
