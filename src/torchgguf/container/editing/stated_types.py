"""The types that the format states for metadata keys: a version is a string, even if it is 1.0."""

import re

from torchgguf.container.value_types import ArrayType, MetadataType, ValueType

# Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, and gguf-py for newer keys.
# A key is not listed if the type follows from the value, as for counts.
_STATED: dict[MetadataType, tuple[str, ...]] = {
    ValueType.STRING: (
        r"general\.(type|architecture|name|author|version|organization|finetune|basename|description)",
        r"general\.(quantized_by|size_label|license(\.(name|link))?|url|doi|uuid|repo_url)",
        r"general\.(source|(base_model|dataset)\.\d+)\.[\w.]+",
        r"general\.sampling\.sequence",
        r"tokenizer\.(ggml\.(model|pre)|huggingface\.json|chat_template(\.\w+)?)",
        r"[^.]+\.(tensor_data_layout|rope\.scaling\.type)",
    ),
    ArrayType(ValueType.STRING): (r"general\.(tags|languages)",),
    ValueType.UINT32: (
        r"general\.(alignment|file_type|quantization_version|(base_model|dataset)\.count)",
        r"tokenizer\.ggml\.\w+_token_id",
    ),
    ValueType.INT32: (r"general\.sampling\.(top_k|penalty_last_n|mirostat)",),
    ValueType.FLOAT32: (
        r"general\.sampling\.(temp|top_p|min_p|xtc_\w+|penalty_repeat|mirostat_(tau|eta))",
        r"[^.]+\.rope\.(freq_base\w*|scale_linear|scaling\.(alpha|(attn_)?factor|yarn_\w+))",
        r"[^.]+\.attention\.(\w+_epsilon|clamp_kqv|max_alibi_bias|scale|(output|temperature)_scale)",
        r"[^.]+\.((logit|residual|embedding|expert_weights|expert_group)_scale|\w+_logit_softcapping)",
    ),
    ValueType.BOOL: (
        r"tokenizer\.ggml\.(add_((bos|eos|sep)_token|space_prefix)|remove_extra_whitespaces)",
        r"[^.]+\.(attention\.causal|expert_weights_norm|use_parallel_residual|rope\.scaling\.finetuned)",
        r"[^.]+\.(ssm\.dt_b_c_rms|swin_norm)|diffusion\.shift_logits",
    ),
}


def stated_type(key: str) -> MetadataType | None:
    """Return the type that the format states for a key, or None if the value decides."""
    return next(
        (kind for kind, patterns in _STATED.items() if re.fullmatch("|".join(patterns), key)),
        None,
    )
