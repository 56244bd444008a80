"""Vocabularies for tiny models, each of the kind that llama.cpp's converter expects of the architecture."""

import io
import json
from functools import cache
from pathlib import Path

import sentencepiece
import tokenizers
import transformers

from tests.support import ROOT

TEXT = (ROOT / "tests" / "data" / "gpl-3.0.txt").read_text()

VOCAB_SIZE = 400
# Models with a byte-level vocabulary, and how theirs splits texts: the others get one of sentencepiece.
BYTE_LEVEL = {
    "bloom": "bloom",
    "cohere": "command-r",
    "cohere2": "command-r",
    "deepseek_v2": "deepseek-llm",
    "deepseek_v3": "deepseek-v3",
    "dots1": "qwen2",
    "exaone4": "exaone4",
    "exaone_moe": "exaone-moe",
    "falcon": "falcon",
    "falcon_h1": "falcon-h1",
    "falcon_mamba": "falcon",
    "glm": "chatglm-bpe",
    "glm4": "glm4",
    "glm4_moe": "glm4",
    "gpt2": "gpt-2",
    "gpt_bigcode": "starcoder",
    "gpt_neox": "olmo",
    "hunyuan_v1_dense": "hunyuan-dense",
    "hunyuan_v1_moe": "hunyuan",
    "kimi_linear": "kimi-k2",
    "lfm2": "lfm2",
    "lfm2_moe": "lfm2",
    "mamba": "mpt",
    "mamba2": "mpt",
    "jais2": "gpt-2",
    "minimax_m2": "minimax-m2",
    "olmo": "olmo",
    "nemotron_h": "pixtral",
    "modernbert": "modern-bert",
    "olmo2": "dbrx",
    "olmo3": "dbrx",
    "olmoe": "olmo",
    "phi": "phi-2",
    "gpt_oss": "gpt-4o",
    "granite": "refact",
    "granitemoe": "refact",
    "granitemoehybrid": "refact",
    "granitemoeshared": "refact",
    "qwen2": "qwen2",
    "qwen2_moe": "qwen2",
    "qwen3": "qwen2",
    "qwen3_5_moe_text": "qwen35",
    "qwen3_5_text": "qwen35",
    "qwen3_moe": "qwen2",
    "qwen3_next": "qwen2",
    "seed_oss": "seed-coder",
    "stablelm": "stablelm2",
    "starcoder2": "starcoder",
}
# Models with a vocabulary of WordPiece.
WORDPIECE = {"bert": "bert-bge", "nomic_bert": "bert-bge"}
# Models whose vocabulary is one of sentencepiece with a list of merges.
LISTED = ("gemma4_text",)
# Models with a unigram vocabulary of sentencepiece.
UNIGRAM = ("t5", "umt5")
# Tokens that the converter looks for.
MORE_TOKENS = {"glm4_moe": ("[gMASK]", "<|observation|>")}
# Models whose vocabulary of sentencepiece puts no space before a text.
UNPREFIXED = ("gemma", "gemma2", "gemma3_text", "gemma3n_text")


def add_tokenizer(folder: Path, model_type: str) -> None:
    """Give a folder a tokenizer of the kind that its architecture has."""
    if model_type in BYTE_LEVEL:
        _byte_level(MORE_TOKENS.get(model_type, ())).save(str(folder / "tokenizer.json"))
        # Not the class of the architecture, which adds its own special tokens.
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    elif model_type in UNIGRAM:
        (folder / "spiece.model").write_bytes(_unigram())
        names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        stated = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, **names}
        (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    elif model_type in LISTED:
        names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
        listed = transformers.PreTrainedTokenizerFast(tokenizer_object=_listed(), **names)
        listed.save_pretrained(folder)
    elif model_type in WORDPIECE:
        transformers.BertTokenizer(vocab=_wordpiece()).save_pretrained(folder)
    else:
        (folder / "tokenizer.model").write_bytes(_sentencepiece(model_type not in UNPREFIXED))


@cache
def _byte_level(more: tuple[str, ...]) -> tokenizers.ByteLevelBPETokenizer:
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    special = ["<|endoftext|>", "<|user|>", *more]
    tokenizer.train_from_iterator(TEXT.splitlines(), VOCAB_SIZE, special_tokens=special, show_progress=False)
    return tokenizer


@cache
def _listed() -> tokenizers.Tokenizer:
    learned = tokenizers.Tokenizer(tokenizers.models.BPE())
    learned.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=VOCAB_SIZE, special_tokens=names, show_progress=False)
    learned.train_from_iterator(TEXT.splitlines(), trainer)
    model = json.loads(learned.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    # Anew: of those learned, the tokens of bytes would be special.
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(model["vocab"], merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    tokenizer.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
        ]
    )
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return tokenizer


@cache
def _wordpiece() -> dict[str, int]:
    tokenizer = tokenizers.BertWordPieceTokenizer()
    tokenizer.train_from_iterator(TEXT.splitlines(), VOCAB_SIZE, show_progress=False)
    return tokenizer.get_vocab()


@cache
def _unigram() -> bytes:
    out = io.BytesIO()
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=out,
        vocab_size=VOCAB_SIZE,
        model_type="unigram",
        minloglevel=2,
        **ids,
    )
    return out.getvalue()


@cache
def _sentencepiece(prefix: bool) -> bytes:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=out,
        vocab_size=VOCAB_SIZE,
        byte_fallback=True,
        model_type="bpe",
        add_dummy_prefix=prefix,
        minloglevel=2,
    )
    return out.getvalue()
