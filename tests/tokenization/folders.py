"""Folders with small tokenizers in Hugging Face's files, in the layouts of the models that have them."""

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import transformers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, WordPieceTrainer

from tests.support import ROOT
from torchgguf.tokenization import PRE_TOKENIZERS

LINES = (ROOT / "tests" / "data" / "gpl-3.0.txt").read_text().splitlines()
SIZE = 400
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"


# What a line of a conversation ends with, and a token that is no special one.
ADDED = [AddedToken("<|im_end|>", special=True, normalized=False), AddedToken("<tool>", normalized=False)]


def write(folder: Path, name: str, value: Any) -> None:
    """Write a file as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(value, ensure_ascii=False))


def model_config(folder: Path, architecture: str, model_type: str, vocab_size: int, **more: Any) -> None:
    """Write a config.json that the converter takes for that of a model."""
    sizes = dict.fromkeys(("hidden_size", "n_embd", "intermediate_size", "max_position_embeddings"), 64)
    sizes |= dict.fromkeys(("num_attention_heads", "n_head", "num_hidden_layers", "n_layer"), 2)
    config = {"architectures": [architecture], "model_type": model_type, "vocab_size": vocab_size}
    write(folder, "config.json", {**config, **sizes, "n_ctx": 64, **more})


# How SentencePiece is asked to train what Llama 2 has, and what T5 has.
_LLAMA = {
    "byte_fallback": True,
    "model_type": "bpe",
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
}
_T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "normalization_rule_name": "nmt_nfkc"}


def pieces(**options: Any) -> bytes:
    """A tokenizer.model; the options replace those with which Llama 2's is made."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=out,
        vocab_size=SIZE,
        minloglevel=2,
        **{**_LLAMA, **options},
    )
    return out.getvalue()


def unigram_pieces(**options: Any) -> bytes:
    """A spiece.model of the kind that T5 has."""
    defaults = {"byte_fallback": False, "model_type": "unigram", "remove_extra_whitespaces": True}
    return pieces(**{**defaults, **_T5, **options})


def proto(data: bytes) -> Any:
    """What such a file holds."""
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(data)
    return model


def byte_level(rule: str, **options: Any) -> Tokenizer:
    """A byte-level BPE that splits texts by the rule of this name; `options` are those of the model."""
    tokenizer = Tokenizer(models.BPE(**options))
    splits = [pre_tokenizers.Split(Regex(split), "isolated") for split in PRE_TOKENIZERS[rule].splits]
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, plain])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(vocab_size=SIZE, initial_alphabet=plain.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    return tokenizer


def llama(folder: Path) -> None:
    """Llama 2's: tokenizer.model alone, and tokens added to it in tokenizer_config.json."""
    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(pieces())
    added = {
        **{str(i): {"content": text, "special": True} for i, text in enumerate(("<unk>", "<s>", "</s>"))},
        "400": {"content": "<|im_end|>", "special": True},
        "401": {"content": "<tool>", "special": False, "normalized": False},
    }
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "added_tokens_decoder": added,
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": True,
        "padding_side": "left",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "chat_template": TEMPLATE,
    }
    write(folder, "tokenizer_config.json", config)
    model_config(folder, "LlamaForCausalLM", "llama", 416, bos_token_id=1, eos_token_id=2)


def mistral(folder: Path) -> None:
    """Mistral's: tokenizer.model, with added_tokens.json that leaves ids out, and a template in a file."""
    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(pieces())
    write(folder, "added_tokens.json", {"[TOOL]": 403, "[INST]": 400})
    write(folder, "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer"})
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    model_config(folder, "MistralForCausalLM", "mistral", 404, bos_token_id=1, eos_token_id=2, pad_token_id=0)


def phi3(folder: Path) -> None:
    """Phi-3's: tokenizer.model beside a tokenizer.json with tokens that swallow the space after them."""
    llama(folder)
    tokenizer = transformers.LlamaTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken("<|user|>", special=True, normalized=False, rstrip=True)])
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    pipeline = json.loads(backend.to_str())
    write(folder, "tokenizer.json", pipeline | {"pre_tokenizer": None})
    model_config(
        folder,
        "Phi3ForCausalLM",
        "phi3",
        416,
        bos_token_id=1,
        eos_token_id=2,
        original_max_position_embeddings=64,
    )


def llama_json(folder: Path) -> None:
    """Llama 2's without tokenizer.model."""
    source = folder.with_name(folder.name + "-pieces")
    llama(source)
    tokenizer = transformers.LlamaTokenizer.from_pretrained(source, add_bos_token=True)
    tokenizer.save_pretrained(folder)
    model_config(folder, "LlamaForCausalLM", "llama", len(tokenizer), bos_token_id=1, eos_token_id=2)


def gpt2(folder: Path) -> None:
    """GPT-2's as transformers 5 writes it."""
    _transformers_gpt2().save_pretrained(folder)
    model_config(folder, "GPT2LMHeadModel", "gpt2", SIZE + 1, bos_token_id=SIZE, eos_token_id=SIZE)


def gpt2_old(folder: Path) -> None:
    """GPT-2's as it was published: vocab.json and merges.txt, and next to nothing else."""
    folder.mkdir(parents=True)
    tokenizer = byte_level("gpt-2")
    tokenizer.add_special_tokens(["<|endoftext|>"])
    vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"] | {"<|endoftext|>": SIZE}
    tokenizer.model.save(str(folder))
    write(folder, "vocab.json", vocabulary)
    write(folder, "tokenizer_config.json", {"model_max_length": 64})
    model_config(folder, "GPT2LMHeadModel", "gpt2", SIZE + 1, bos_token_id=SIZE, eos_token_id=SIZE)


def _transformers_gpt2() -> Any:
    model = json.loads(byte_level("gpt-2").to_str())["model"]
    return transformers.GPT2Tokenizer(
        vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]]
    )


def bloom(folder: Path) -> None:
    """Bloom's: special tokens at the end, a name for each."""
    tokenizer = byte_level("bloom")
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer.add_special_tokens(list(names.values()))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    ids = {"bos_token_id": SIZE + 1, "eos_token_id": SIZE + 2, "pad_token_id": SIZE + 3}
    model_config(folder, "BloomForCausalLM", "bloom", 408, layer_norm_epsilon=1e-5, **ids)


def qwen2(folder: Path) -> None:
    """Qwen2's: texts are composed first, there are several templates, and fewer tokens than embeddings."""
    model = json.loads(byte_level("qwen2").to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    templates = {"default": TEMPLATE, "tool_use": TEMPLATE + "!"}
    options = {"eos_token": "<|im_end|>", "add_bos_token": False, "chat_template": templates}
    tokenizer = transformers.Qwen2Tokenizer(
        vocab=model["vocab"], merges=merges, add_prefix_space=False, **options
    )
    tokenizer.add_tokens(ADDED)
    tokenizer.save_pretrained(folder)
    model_config(folder, "Qwen2ForCausalLM", "qwen2", 416, bos_token_id=SIZE, eos_token_id=SIZE + 1)


def qwen3_embedding(folder: Path) -> None:
    """Qwen3's for embeddings: texts end with another token than EOS."""
    tokenizer = byte_level("qwen2")
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    end = processors.TemplateProcessing(
        single="$A <|endoftext|>", pair="$A $B:1 <|endoftext|>:1", special_tokens=[("<|endoftext|>", SIZE)]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), end])
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    model_config(folder, "Qwen3ForCausalLM", "qwen3", SIZE + 3, bos_token_id=SIZE, eos_token_id=SIZE + 2)


def llama3(folder: Path) -> None:
    """Llama 3's: BOS by a template, whole words that are tokens, all special tokens at the end."""
    tokenizer = byte_level("llama-bpe", ignore_merges=True)
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    bos = processors.TemplateProcessing(
        single="<|begin_of_text|> $A",
        pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
        special_tokens=[("<|begin_of_text|>", SIZE)],
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), bos])
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **names, model_input_names=["input_ids", "attention_mask"]
    ).save_pretrained(folder)
    model_config(
        folder, "LlamaForCausalLM", "llama", SIZE + 3, bos_token_id=SIZE, eos_token_id=[SIZE + 1, SIZE + 2]
    )


def gemma(folder: Path) -> None:
    """Gemma's without tokenizer.model: no space before texts, and nothing is split."""
    model = proto(pieces(add_dummy_prefix=False))
    ids = {piece.piece: i for i, piece in enumerate(model.pieces)}
    merges = sorted(
        (-piece.score, ids[piece.piece[:cut]], ids[piece.piece[cut:]], piece.piece[:cut], piece.piece[cut:])
        for piece in model.pieces
        for cut in range(1, len(piece.piece))
        if piece.type == 1 and piece.piece[:cut] in ids and piece.piece[cut:] in ids
    )
    _gemma(folder, ids, [(merge[3], merge[4]) for merge in merges])


def gemma4(folder: Path) -> None:
    """The same with merges that no scores of tokens make: not all ways to join a token are merges."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = BpeTrainer(
        vocab_size=SIZE, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    _gemma(folder, model["vocab"], [tuple(merge) for merge in model["merges"]])


def _gemma(folder: Path, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True, dropout=None)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_tokens(ADDED)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    size = len(vocabulary) + len(ADDED)
    model_config(folder, "Gemma4ForCausalLM", "gemma4_text", size, bos_token_id=1, eos_token_id=2)


def bert(folder: Path, **options: Any) -> None:
    """BERT's; `options` are those of its tokenizer."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=options.get("do_lower_case", True))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = WordPieceTrainer(vocab_size=SIZE, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    theirs = transformers.BertTokenizer(vocab=tokenizer.get_vocab(), **options)
    theirs.save_pretrained(folder)
    model_config(folder, "BertModel", "bert", 416, type_vocab_size=2, pad_token_id=0, layer_norm_eps=1e-12)


def bert_cased(folder: Path) -> None:
    """BERT's that heeds case, and takes no letters for others."""
    bert(folder, do_lower_case=False, strip_accents=False)


def bert_old(folder: Path) -> None:
    """BERT's as it was published: tokenizer.json, and next to nothing beside it."""
    bert(folder)
    write(folder, "tokenizer_config.json", {"do_lower_case": True, "model_max_length": 64})


def xlm_roberta(folder: Path) -> None:
    """XLM-RoBERTa's as transformers writes it: a Unigram model in tokenizer.json, and a mask at its end."""
    model = proto(unigram_pieces())
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    vocabulary = [*special, *((piece.piece, piece.score) for piece in model.pieces[3:]), ("<mask>", 0.0)]
    charsmap = model.normalizer_spec.precompiled_charsmap
    transformers.XLMRobertaTokenizer(vocab=vocabulary, _spm_precompiled_charsmap=charsmap).save_pretrained(
        folder
    )
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    model_config(folder, "XLMRobertaModel", "xlm-roberta", 416, type_vocab_size=1, layer_norm_eps=1e-5, **ids)


def mt5(folder: Path) -> None:
    """mT5's: spiece.model alone, and no tokens for gaps."""
    folder.mkdir(parents=True)
    (folder / "spiece.model").write_bytes(unigram_pieces())
    write(folder, "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, **_T5_NAMES})
    model_config(folder, "MT5ForConditionalGeneration", "mt5", 416, pad_token_id=0, eos_token_id=1)


def mt5_json(folder: Path) -> None:
    """The same with a tokenizer.json."""
    mt5(folder)
    transformers.T5Tokenizer.from_pretrained(folder, extra_ids=0).save_pretrained(folder)


def t5(folder: Path) -> None:
    """T5's: spiece.model, and what is said of it implies a hundred tokens for gaps."""
    folder.mkdir(parents=True)
    (folder / "spiece.model").write_bytes(unigram_pieces())
    names = [f"<extra_id_{i}>" for i in range(100)]
    write(folder, "special_tokens_map.json", {**_T5_NAMES, "additional_special_tokens": names})
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    model_config(folder, "T5ForConditionalGeneration", "t5", 512, **ids)


_T5_NAMES = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}

# by name: what makes the folder, and how texts are split there
FOLDERS = {
    "llama": (llama, ""),
    "mistral": (mistral, ""),
    "phi3": (phi3, ""),
    "llama-json": (llama_json, ""),
    "gpt2": (gpt2, "gpt-2"),
    "gpt2-old": (gpt2_old, "gpt-2"),
    "bloom": (bloom, "bloom"),
    "qwen2": (qwen2, "qwen2"),
    "qwen3-embedding": (qwen3_embedding, "qwen2"),
    "llama3": (llama3, "llama-bpe"),
    "gemma": (gemma, ""),
    "gemma4": (gemma4, ""),
    "bert": (bert, "bert-bge"),
    "bert-cased": (bert_cased, "bert-bge"),
    "bert-old": (bert_old, "bert-bge"),
    "xlm-roberta": (xlm_roberta, ""),
    "mt5": (mt5, ""),
    "mt5-json": (mt5_json, ""),
    "t5": (t5, ""),
}
