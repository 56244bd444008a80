"""What can be wrong with a tokenizer's file or with what is asked of it."""


class TokenizerError(ValueError):
    """The tokenizer's metadata is incomplete, contradicts itself, or is of a kind that is not supported."""


class ChatTemplateError(ValueError):
    """A chat template is missing, does not compile, refuses the conversation, or asks for too much."""
