"""Which tokens have which role: by metadata key, and by text where files do not state it.

Files rarely state more than BOS, EOS and padding, so llama.cpp recognizes the others by their text, which
overrides the type that the file states. The tables are those of its `llama-vocab.cpp`.
"""

from gguf.constants import TokenType

# role: the keys (below `tokenizer.ggml.`) that name its id, the current one first. "seperator": sic.
ROLE_KEYS: dict[str, tuple[str, ...]] = {
    "bos": ("bos_token_id",),
    "eos": ("eos_token_id",),
    "unk": ("unknown_token_id",),
    "sep": ("seperator_token_id",),
    "pad": ("padding_token_id",),
    "cls": ("cls_token_id",),
    "mask": ("mask_token_id",),
    "eot": ("eot_token_id",),
    "eom": ("eom_token_id",),
    "fim_pre": ("fim_pre_token_id", "prefix_token_id"),
    "fim_suf": ("fim_suf_token_id", "suffix_token_id"),
    "fim_mid": ("fim_mid_token_id", "middle_token_id"),
    "fim_pad": ("fim_pad_token_id",),
    "fim_rep": ("fim_rep_token_id",),
    "fim_sep": ("fim_sep_token_id",),
}

# role: the texts of its token where no key states it. The first in the vocabulary becomes a control token.
ROLE_TEXTS: dict[str, tuple[str, ...]] = {
    "eot": (
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "<｜end▁of▁sentence｜>",
        "<end_of_utterance>",
    ),
    "eom": ("<|eom_id|>",),
    "fim_pre": (
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
    ),
    "fim_suf": (
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<｜fim▁hole｜>",
        "<SUF>",
        "▁<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
    ),
    "fim_mid": (
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<｜fim▁end｜>",
        "<MID>",
        "▁<MID>",
        "<|code_middle|>",
        "<|middle|>",
    ),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}

# Tokens that end a generation. Being in the vocabulary makes them control tokens.
END_TEXTS = (
    *ROLE_TEXTS["eot"],
    *ROLE_TEXTS["eom"],
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "</s>",
    "[EOS]",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "[e~[",
)
# ... except those that are ordinary text unless the file marks them: Qwen's "</s>" is the tag of HTML.
TEXT_UNLESS_MARKED = frozenset({"</s>"})
END_ROLES = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")

# Channel markers of gpt-oss, which belong to the text: found and shown like user-defined tokens.
SHOWN_TEXTS = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")

# (ends that are all in the vocabulary, the token that then is not an end, its type)
NOT_AN_END = (
    ({"<|return|>", "<|call|>"}, "<|end|>", TokenType.USER_DEFINED),
    ({"<|return|>", "<|calls|>"}, "<|end|>", TokenType.USER_DEFINED),
    ({"<|flush|>", "<|call|>"}, "<|end|>", TokenType.USER_DEFINED),
    ({"<|flush|>", "<|calls|>"}, "<|end|>", TokenType.USER_DEFINED),
    ({"<|tool_response>"}, "</s>", TokenType.NORMAL),
    ({"<|plamo:eos|>"}, "</s>", TokenType.NORMAL),
)

# Tokens that include the white space beside them, which no key states:
# (key, part of its value, tokens (empty: all special ones), exceptions)
STRIPPED_LEFT = (
    ("tokenizer.ggml.pre", "jina-v2", ("<mask>",), ()),
    ("general.architecture", "nomic-bert-moe", ("<mask>",), ()),
    ("general.architecture", "jina-bert-v3", ("<mask>",), ()),
    ("general.name", "modern-bert", ("[MASK]",), ()),
)
STRIPPED_RIGHT = (
    ("general.name", "phi-3", (), ("<unk>", "<s>", "<|endoftext|>")),
    ("general.name", "phi3", (), ("<unk>", "<s>", "<|endoftext|>")),
)

# The tokens for padding if a file does not state one; EOS only if there are no others, because losses ignore
# padding, and a model that never sees EOS does not learn to stop.
PAD_TEXTS = (
    "<pad>",
    "<|pad|>",
    "[PAD]",
    "<PAD>",
    "<|padding|>",
    "<|finetune_right_pad_id|>",
    "<|pad_token|>",
    "<|endoftext|>",
)
