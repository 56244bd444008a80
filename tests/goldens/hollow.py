"""Models of many architectures and sizes as files whose tensors are holes: names, shapes and keys alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np


class Header(NamedTuple):
    """A file without data: keys of its architecture, and its tensors' shapes in torch's order."""

    architecture: str
    keys: Mapping[str, Any]
    tensors: Mapping[str, tuple[int, ...]]


def layers(count: int, tensors: Mapping[str, tuple[int, ...]], **others: tuple[int, ...]) -> dict[str, Any]:
    """The shapes of a model whose layers are alike."""
    shapes = {"token_embd.weight": (64, 256), "output_norm.weight": (256,)}
    shapes |= {f"{name.replace('__', '.')}.weight": shape for name, shape in others.items()}
    return shapes | {f"blk.{i}.{name}.weight": shape for i in range(count) for name, shape in tensors.items()}


DENSE = {
    "attn_norm": (256,),
    "attn_q": (256, 256),
    "attn_k": (64, 256),
    "attn_v": (64, 256),
    "attn_output": (256, 256),
    "ffn_gate": (512, 256),
    "ffn_up": (512, 256),
    "ffn_down": (256, 512),
}
HEAD = {"output": (64, 256)}
FUSED = {"attn_norm": (256,), "attn_qkv": (384, 256), "attn_output": (256, 256)}
FUSED |= {"ffn_up": (1024, 256), "ffn_down": (256, 1024)}


def experts(count: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a layer of experts, one shared by all tokens among them."""
    attention = {name: shape for name, shape in DENSE.items() if name.startswith("attn")}
    return attention | {
        "ffn_gate_inp": (count, 256),
        "ffn_gate_inp_shexp": (256,),
        "ffn_gate_exps": (count, 512, 256),
        "ffn_up_exps": (count, 512, 256),
        "ffn_down_exps": (count, 256, 512),
        "ffn_gate_shexp": (256, 256),
        "ffn_up_shexp": (256, 256),
        "ffn_down_shexp": (256, 256),
    }


def keys(count: int, heads: Any = 8, kv_heads: Any = 2, **more: Any) -> dict[str, Any]:
    """What every architecture states."""
    return {
        "context_length": 128,
        "embedding_length": 256,
        "block_count": count,
        "feed_forward_length": 512,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.layer_norm_epsilon": 1e-5,
        **{key.replace("__", "."): value for key, value in more.items()},
    }


def of_experts(count: int) -> dict[str, int]:
    """What models of experts state besides."""
    return {"expert_count": count, "expert_used_count": 2, "expert_feed_forward_length": 512}


MLA = {
    "attn_q_a": (256, 256),
    "attn_q_b": (512, 256),
    "attn_kv_a_mqa": (96, 256),
    "attn_k_b": (8, 256, 64),
    "attn_v_b": (8, 64, 256),
    "attn_kv_b": (1024, 256),
}
UNUSUAL = (
    *(
        "attn_q_norm",
        "ffn_gate_inp",
        "ffn_gate_tid2eid",
        "altup_router",
        "altup_proj",
        "laurel_l",
        "laurel_r",
    ),
    *("ssm_conv1d", "ssm_conv1d_q", "ssm_in", "ssm_out", "ssm_f_a", "ssm_f_b", "ssm_g_a", "ssm_beta"),
    *(
        "shortconv.conv",
        "shortconv.in_proj",
        "indexer.k_proj",
        "indexer.q_proj",
        "indexer.proj",
        "attn_rel_b",
    ),
    *(
        "indexer.attn_q_b",
        "indexer.attn_k",
        "indexer_compressor_gate",
        "indexer_compressor_ape",
        "hc_attn_fn",
    ),
    *(f"time_mix_{name}" for name in ("first", "w0", "w1", "w2", "v0", "v1", "v2", "a0", "a1", "a2", "g1")),
    *(f"time_mix_{name}" for name in ("g2", "decay_w1", "decay_w2", "lerp_fused", "lerp_w", "key", "decay")),
    *("cross_attn_v", "cross_attn_k", "attn_qkv_extra", "nextn.eh_proj", "ffn_up_exps", "ffn_down_shexp"),
    *("channel_mix_key", "inp_gate", "proj", "attn_sinks", "exp_probs_b"),
)
OUTSIDE = {
    "position_embd": (64, 256),
    "token_types": (2, 256),
    "v__position_embd": (64, 256),
    "v__patch_embd": (64, 256),
    "v__blk__0__attn_rel_pos": (64, 256),
    "v__blk__0__ffn_down": (256, 256),
    "v__sam__neck__0": (256, 256),
    "v__sam__net_2": (256, 256),
    "mm__patch_merger": (256, 256),
    "mm__a__code_embd": (64, 256),
    "a__rvq__codebook": (64, 256),
    "output_extra": (64, 256),
    "cls": (64, 256),
}
# Layers with a recurrence; the convolutions and what makes decays are small.
KDA = {
    **{f"ssm_conv1d_{part}": (256, 1, 4) for part in "qkv"},
    **dict.fromkeys(("ssm_f_a", "ssm_g_a"), (64, 256)),
    **dict.fromkeys(("ssm_f_b", "ssm_g_b"), (256, 64)),
    "ssm_beta": (8, 256),
    "ssm_norm": (32,),
}
RWKV7 = {
    **{f"time_mix_{name}0": (256,) for name in "wav"},
    **dict.fromkeys(("time_mix_w1", "time_mix_a1", "time_mix_v1", "time_mix_g1"), (64, 256)),
    **dict.fromkeys(("time_mix_w2", "time_mix_a2", "time_mix_v2", "time_mix_g2"), (256, 64)),
    "time_mix_lerp_fused": (6, 1, 1, 256),
    **dict.fromkeys(("time_mix_k_k", "time_mix_k_a", "time_mix_r_k", "time_mix_ln"), (256,)),
    **{f"time_mix_{name}": (256, 256) for name in ("key", "value", "receptance", "output")},
    "channel_mix_lerp_k": (1, 1, 256),
    "channel_mix_key": (512, 256),
    "channel_mix_value": (256, 512),
}
RANKS = dict.fromkeys(("decay", "iclr", "value_residual_mix", "gate"), 64)
FEW = {name: DENSE[name] for name in ("attn_v", "attn_k", "attn_output", "ffn_down")}
HEADERS = {
    "llama-gqa": Header("llama", keys(32), layers(32, DENSE, **HEAD)),
    "llama-mha": Header("llama", keys(17, 8, 8), layers(17, DENSE, **HEAD)),
    "llama-tied": Header("llama", keys(16), layers(16, DENSE)),
    "llama-kv-by-layer": Header("llama", keys(9, [8] * 9, [2, *[8] * 8]), layers(9, DENSE, **HEAD)),
    "llama-80-gqa": Header("llama", keys(80), layers(80, FEW, **HEAD)),
    "llama-80-pairs": Header("llama", keys(80, 8, 4), layers(80, FEW, **HEAD)),
    "llama-80-mha": Header("llama", keys(80, 8, 8), layers(80, FEW, **HEAD)),
    "qwen2-80": Header("qwen2", keys(80, 8, 8), layers(80, FEW, **HEAD)),
    "olmo-80": Header("olmo", keys(80, 8, 4), layers(80, FEW)),
    "deci-80": Header("deci", keys(80, [8] * 80, [4] * 80), layers(80, FEW, **HEAD)),
    "jais2-68": Header("jais2", keys(68, 8, 4), layers(68, FEW, **HEAD)),
    "falcon-7b": Header("falcon", keys(32, 8, 1), layers(32, FUSED, **HEAD)),
    "falcon-tied": Header("falcon", keys(19, 8, 8), layers(19, FUSED)),
    "bert": Header(
        "bert",
        keys(12, 8, 8, attention__causal=False),
        layers(12, DENSE, position_embd=(128, 256), token_types=(2, 256)),
    ),
    **{
        f"qwen2moe-{count}": Header(
            "qwen2moe", keys(16, 8, 4) | of_experts(count), layers(16, experts(count), **HEAD)
        )
        for count in (2, 4, 8, 60)
    },
    "llama-8-experts": Header("llama", keys(16) | of_experts(8), layers(16, experts(8), **HEAD)),
    "llama-8-experts-80": Header("llama", keys(80) | of_experts(8), layers(80, FEW, **HEAD)),
    "deepseek2": Header(
        "deepseek2",
        keys(
            12,
            8,
            1,
            attention__kv_lora_rank=256,
            attention__q_lora_rank=0,
            attention__key_length=288,
            attention__value_length=256,
            attention__key_length_mla=96,
            attention__value_length_mla=64,
            rope__dimension_count=32,
            leading_dense_block_count=1,
            expert_shared_count=1,
            expert_weights_scale=1.0,
        )
        | of_experts(64),
        layers(
            12,
            {
                "attn_norm": (256,),
                "attn_q": (768, 256),
                "attn_kv_a_mqa": (288, 256),
                "attn_k_b": (8, 256, 64),
                "attn_v_b": (8, 64, 256),
                "attn_kv_b": (1024, 256),
                "attn_output": (256, 512),
                "ffn_gate_inp": (64, 256),
                "ffn_down_exps": (64, 256, 512),
                "ffn_up_exps": (64, 512, 256),
            },
            **HEAD,
        ),
    ),
    "odd-rows": Header(  # what no block of 256, of 128, of 64, of 32 divides; and matrices of a single row
        "llama",
        keys(9),
        layers(
            9,
            {
                "attn_q": (64, 384),
                "attn_k": (64, 192),
                "attn_v": (64, 320),
                "attn_output": (64, 96),
                "ffn_gate": (64, 40),
                "ffn_up": (1, 256),
                "ffn_down": (64, 288),
            },
            output=(64, 192),
        ),
    ),
    "odd-head": Header("llama", keys(2), {"token_embd.weight": (64, 96), "output.weight": (64, 40)}),
    "odd-tied-head": Header("llama", keys(2), {"token_embd.weight": (64, 384)}),
    "gemma3n": Header(
        "gemma3n",
        keys(9, attention__sliding_window=64, attention__sliding_window_pattern=5),
        layers(9, DENSE, per_layer_token_embd=(64, 2304), per_layer_model_proj=(2304, 256)),
    ),
    "nanbeige": Header("nanbeige", keys(8, num_loops=2), layers(8, FEW, **HEAD)),  # each layer runs twice
    "bailingmoe3": Header(
        "bailingmoe3",
        keys(
            4,
            attention__key_length_mla=64,
            attention__value_length_mla=64,
            attention__kv_lora_rank=64,
            ssm__conv_kernel=4,
            kda__head_dim=32,
            kda__gate_lower_bound=-5.0,
            expert_shared_count=1,
            leading_dense_block_count=1,
            expert_gating_func=2,
        )
        | of_experts(16),
        layers(4, experts(16) | MLA, **HEAD),
    ),
    "glm5-next": Header(
        "glm5-next",
        keys(
            4,
            attention__key_length_mla=64,
            attention__value_length_mla=64,
            attention__kv_lora_rank=64,
            attention__q_lora_rank=64,
            ssm__conv_kernel=4,
            kda__head_dim=32,
            expert_shared_count=1,
            attention__indexer__head_count=4,
            attention__indexer__key_length=64,
            attention__indexer__top_k=64,
            attention__indexer__kpool=4,
            hyper_connection__count=4,
            hyper_connection__sinkhorn_iterations=4,
            hyper_connection__epsilon=1e-6,
        )
        | of_experts(16),
        layers(4, experts(16) | MLA | dict.fromkeys(UNUSUAL, (256, 256)), **HEAD),
    ),
    "kimi-linear": Header(
        "kimi-linear",
        keys(
            16,
            8,
            [0, 0, 0, 1] * 4,
            attention__key_length_mla=64,
            attention__value_length_mla=64,
            attention__kv_lora_rank=64,
            ssm__conv_kernel=4,
            kda__head_dim=32,
            expert_shared_count=1,
            leading_dense_block_count=1,
            expert_gating_func=2,
        )
        | of_experts(16),
        layers(16, experts(16) | MLA | KDA, **HEAD),
    ),
    "rwkv7": Header(
        "rwkv7",
        keys(
            12,
            0,
            0,
            wkv__head_size=64,
            **{f"attention__{name}_lora_rank": rank for name, rank in RANKS.items()},
        ),
        layers(12, RWKV7, token_embd_norm=(256,), **HEAD),
    ),
    # llama-quantize does not ask whether an architecture has tensors of such names.
    "unusual-names": Header(
        "llama", keys(2), layers(2, dict.fromkeys(UNUSUAL, (256, 256)), **HEAD, **OUTSIDE)
    ),
}


def hollow_file(header: Header, path: Path) -> Path:
    """A file with nothing but zeros that take no room on the disk."""
    writer = gguf.GGUFWriter(path, header.architecture)
    for key, value in header.keys.items():
        add = {
            bool: writer.add_bool,
            int: writer.add_uint32,
            float: writer.add_float32,
            list: writer.add_array,
        }
        add[type(value)](f"{header.architecture}.{key}", value)
    total = 0
    for name, shape in header.tensors.items():
        size = int(np.prod(shape)) * 4
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size)
        total += -(-size // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(-(-path.stat().st_size // 32) * 32 + total)
    return path
