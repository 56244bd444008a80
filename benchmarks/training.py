"""Speed and memory of a training step: LoRA of rank 16 on all linear layers, four texts of 256 tokens.

Each side trains the model of the same file. transformers unpacks it, and bitsandbytes packs it again as NF4.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.memory import peak_memory

BATCH, LENGTH, RANK, STEPS = 4, 256, 16, 3

Samples = dict[str, list[float]]


def measure(model: Any, loss_of: Callable[[Any], Any], threads: int) -> Samples:
    """Time steps; the first one warms caches up."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    tokens = torch.randint(100, model.config.vocab_size - 100, (BATCH, LENGTH))
    model.train()
    speeds = []
    for _ in range(STEPS):
        begin = perf_counter()
        loss_of(tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
        speeds.append(tokens.numel() / (perf_counter() - begin))
    return {"train": speeds[1:], "train_memory": [peak_memory()]}


def torchgguf_train(file: Path, threads: int) -> Samples:
    """Measure steps of the packed model, and its speed of reading the same tokens."""
    import torch

    from torchgguf import AutoModelForCausalLM
    from torchgguf.training.lora import add_lora, remove_adapter

    model = AutoModelForCausalLM.from_pretrained(file)
    add_lora(model, RANK, 2 * RANK)
    samples = measure(model, model.loss, threads)
    remove_adapter(model, "default")
    tokens = torch.randint(100, model.config.vocab_size - 100, (BATCH, LENGTH))
    model.eval()
    with torch.inference_mode():
        begin = perf_counter()
        model(tokens, use_cache=False, logits_to_keep=1)
        samples["train_prefill"] = [tokens.numel() / (perf_counter() - begin)]
    return samples


def _peft_train(model: Any, threads: int) -> Samples:
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, settings)
    return measure(
        adapted, lambda tokens: adapted(input_ids=tokens, labels=tokens, use_cache=False).loss, threads
    )


def peft_train_fp32(file: Path, threads: int) -> Samples:
    """Measure PEFT on the unpacked model in FP32."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    return _peft_train(model, threads)


def peft_train_bf16(file: Path, threads: int) -> Samples:
    """Measure PEFT on the unpacked model in BF16."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    return _peft_train(model, threads)


def peft_train_nf4(file: Path, threads: int) -> Samples:
    """Measure PEFT on a checkpoint that bitsandbytes packs as NF4 while it loads."""
    import tempfile

    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    with tempfile.TemporaryDirectory() as folder:
        # Written by another process, whose memory is not that of training.
        script = (
            "import sys; from torchgguf import AutoModelForCausalLM as M; "
            "M.from_pretrained(sys.argv[1], dequantize=True, dtype='bfloat16').save_pretrained(sys.argv[2])"
        )
        subprocess.run([sys.executable, "-c", script, str(file), folder], check=True)
        packing = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
        )
        model = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=packing, dtype=torch.float32, device_map="cpu"
        )
    return _peft_train(model, threads)
