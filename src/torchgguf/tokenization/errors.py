"""The errors of tokenizers and of chat templates."""


class TokenizerError(ValueError):
    """A tokenizer is incomplete, contradicts itself, or is unsupported."""


class ChatTemplateError(ValueError):
    """A chat template is missing, is invalid, refuses the conversation, or exceeds its budget."""
