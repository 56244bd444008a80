"""Name the numbers of tensor types that ggml has removed, or that only other programs use."""

_PACKED_FOR_ARM = "removed from ggml in 2024: quantize the model anew, to {plain}"
_REMOVED = {
    4: ("Q4_2", "removed from ggml in 2023: convert the model anew"),
    5: ("Q4_3", "removed from ggml in 2023: convert the model anew"),
    31: ("Q4_0_4_4", _PACKED_FOR_ARM.format(plain="Q4_0")),
    32: ("Q4_0_4_8", _PACKED_FOR_ARM.format(plain="Q4_0")),
    33: ("Q4_0_8_8", _PACKED_FOR_ARM.format(plain="Q4_0")),
    36: ("IQ4_NL_4_4", _PACKED_FOR_ARM.format(plain="IQ4_NL")),
    37: ("IQ4_NL_4_8", _PACKED_FOR_ARM.format(plain="IQ4_NL")),
    38: ("IQ4_NL_8_8", _PACKED_FOR_ARM.format(plain="IQ4_NL")),
}

# Source: the enum ggml_type in the ggml.h of each program. Some share a number with ggml or with each other.
_IK_LLAMA = """
    97:Q8_0_X4 98:Q8_1_X4 99:Q8_2_X4 133:Q6_0 134:IQ1_BN 135:IQ2_BN 136:Q8_K64 137:IQ2_K 138:IQ3_K
    139:IQ4_K 140:IQ5_K 141:IQ6_K 142:IQ2_TN 143:IQ1_TN 144:IQ4_KS 145:IQ2_KS 146:IQ4_KSS 147:Q8_K16
    148:Q8_K32 149:Q8_KR8 150:Q8_K128 151:Q8_KV 152:IQ5_KS 153:IQ2_KT 154:IQ3_KT 155:IQ4_KT 156:IQ3_KS
    157:IQ2_KL 158:IQ1_KT 202:Q4_0_R8 206:Q5_0_R4 208:Q8_0_R8 210:Q2_K_R4 211:Q3_K_R4 212:Q4_K_R4
    213:Q5_K_R4 214:Q6_K_R4 216:IQ2_XXS_R4 217:IQ2_XS_R4 218:IQ3_XXS_R4 219:IQ1_S_R4 220:IQ4_NL_R4
    221:IQ3_S_R4 222:IQ2_S_R4 223:IQ4_XS_R8 229:IQ1_M_R4 230:BF16_R16 233:Q6_0_R4 335:IQ2_BN_R4
    337:IQ2_K_R4 338:IQ3_K_R4 339:IQ4_K_R4 340:IQ5_K_R4 344:IQ4_KS_R4 352:IQ5_KS_R4 353:MXFP4_R8
    397:Q8_K_R16 398:Q8_KV_R8 399:Q8_K_R8
"""
_FOREIGN = {
    "ik_llama.cpp": {int(number): name for number, name in (pair.split(":") for pair in _IK_LLAMA.split())},
    "bitnet.cpp": {36: "I2_S", 37: "I8_S", 38: "TL1", 39: "TL2"},
    "PrismML's llama.cpp": {142: "PQ2_0", 143: "PTQ1_0"},
}


def explain_type(number: int) -> str:
    """Say in one clause what a type number means that is not one of `TENSOR_TYPES`."""
    programs = _programs(number)
    if number in _REMOVED:
        name, fate = _REMOVED[number]
        return f"type {number}: {name}, {fate}" + (f"; or written by {programs}" if programs else "")
    if programs:
        advice = "no other program reads it, so quantize the model anew with llama.cpp or torchgguf"
        return f"type {number}, written by {programs}: {advice}"
    return f"unknown type {number}, of another program or a newer version of ggml"


def other_blocks(number: int) -> str:
    """Say in one clause whose blocks may have the number of a known type."""
    programs = _programs(number) or "another program"
    return f"{programs} may have written other blocks under the number {number}"


def _programs(number: int) -> str:
    return " or ".join(
        f"{program} ({types[number]})" for program, types in _FOREIGN.items() if number in types
    )
