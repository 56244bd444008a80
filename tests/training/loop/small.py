"""A tiny model and data of random tokens, for runs in this process and in others."""

import torch

from torchgguf import LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM
from torchgguf.models.blocks.losses import IGNORED
from torchgguf.training.data import Item, TrainingData, TrainingSample

VOCABULARY = 64
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}


def llama(**options: object) -> LlamaForCausalLM:
    """A llama with the same random weights each time."""
    torch.manual_seed(0)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
    return LlamaForCausalLM(LlamaConfig(**SIZES, **heads, **options))


def mamba() -> MambaForCausalLM:
    """A model whose layers are recurrent."""
    torch.manual_seed(0)
    return MambaForCausalLM(MambaConfig(**SIZES))


def sample(length: int, generator: torch.Generator, prompt: int) -> TrainingSample:
    """A text of random tokens, of which those after the prompt are learnt."""
    ids = torch.randint(VOCABULARY, (length,), generator=generator).tolist()
    return TrainingSample(tuple(ids), (*[IGNORED] * prompt, *ids[prompt:]))


def texts(count: int = 24, held_out: int = 5, seed: int = 0) -> TrainingData:
    """Texts of 4 to 40 tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, 40, (count + held_out,), generator=generator).tolist()
    items = [Item((sample(length, generator, 2),), f"line {i + 1}") for i, length in enumerate(lengths)]
    return TrainingData(tuple(items[:count]), tuple(items[count:]))


def pairs(count: int = 10) -> TrainingData:
    """Pairs of texts with the same prompt."""
    generator = torch.Generator().manual_seed(0)
    items = []
    for i in range(count):
        both = [sample(12 + i % 3 + j, generator, 5) for j in range(2)]
        prompt = both[0].input_ids[:5]
        same = tuple(TrainingSample((*prompt, *each.input_ids[5:]), each.labels) for each in both)
        items.append(Item(same, f"line {i + 1}"))
    return TrainingData(tuple(items), is_preference=True)
