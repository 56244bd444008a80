"""Small real parts: random models of transformers, and tokenizers trained on a few lines."""

from typing import Any, NamedTuple

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.models.tiny import CASES, counterpart, reference
from torchgguf import GenerationConfig

TEXT = [
    "Hello there, the quick brown fox stops; its stopper stopped the laser-stop!\n\nfunction(){return 1}\n",
    "Füße, naïve café – “quotes” … 你好，世界。日本語のテキスト 👩‍👩‍👧 emoji 🎉🎉, done.\n###END### of it\n",
] * 3


@pytest.fixture(scope="session")
def hf_llama() -> transformers.LlamaForCausalLM:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return transformers.LlamaForCausalLM(config).eval()


class Twins(NamedTuple):
    """The same weights in transformers and here."""

    theirs: Any
    ours: Any


TWINS = ("llama", "qwen2-sliding", "mistral-sliding", "gpt2", "bloom")


@pytest.fixture(scope="package", params=TWINS)
def twins(request) -> Twins:
    """Both read as many tokens as they are told, and end at none unless told."""
    theirs = reference(CASES[request.param])
    theirs.generation_config = transformers.GenerationConfig(pad_token_id=1)
    ours = counterpart(theirs)
    ours.generation_config = GenerationConfig(pad_token_id=1)
    return Twins(theirs, ours)


def prompts(
    side: str = "left", lengths: tuple[int, ...] = (3, 9, 6), seed: int = 0
) -> dict[str, torch.Tensor]:
    """A batch of random prompts for the twins, padded on a side."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.full((len(lengths), max(lengths)), 1)
    mask = torch.zeros_like(rows)
    for row, real, n in zip(rows, mask, lengths, strict=True):
        where = slice(-n, None) if side == "left" else slice(n)
        row[where] = torch.randint(3, 400, (n,), generator=generator)
        real[where] = 1
    return {"input_ids": rows, "attention_mask": mask}


def byte_level() -> Tokenizer:
    """Like GPT-2's: every byte is a token, so characters and words fall apart anywhere."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"])
    )
    return tokenizer


def sentencepiece() -> Tokenizer:
    """Like Llama-2's: words start with a visible space, and what the vocabulary lacks is spelled in bytes."""
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + sorted(set("".join(TEXT[:1]).replace(" ", "▁")))
    pieces += ["st", "op", "▁st", "▁qu", "ick", "sto"]
    vocabulary = {piece: index for index, piece in enumerate(["<unk>", "<s>", "</s>", *pieces])}
    merges = [("s", "t"), ("o", "p"), ("▁", "st"), ("st", "o")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


@pytest.fixture(scope="session", params=[byte_level, sentencepiece], ids=lambda make: make.__name__)
def hf_tokenizer(request) -> transformers.PreTrainedTokenizerFast:
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=request.param(), bos_token="<s>", eos_token="</s>"
    )
