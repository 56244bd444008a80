// The table of instructions. A new one is a row here and its builder.
#include "plan/build/families.h"
#include "plan/builder.h"

namespace torchgguf::plan {
namespace {

struct Row {
    std::string_view family;
    Build build;
};

constexpr Row kRows[] = {
    {"copy", &build_copy},
    {"fill", &build_fill},
    {"arange", &build_arange},
    {"cat", &build_cat},
    {"roll", &build_roll},
    {"unary", &build_unary},
    {"binary", &build_binary},
    {"where", &build_where},
    {"addcmul", &build_addcmul},
    {"clamp", &build_clamp},
    {"reduce", &build_reduce},
    {"softmax", &build_softmax},
    {"log_softmax", &build_log_softmax},
    {"rms_norm", &build_rms_norm},
    {"layer_norm", &build_layer_norm},
    {"cumsum", &build_cumsum},
    {"argmax", &build_argmax},
    {"topk", &build_topk},
    {"sort", &build_sort},
    {"linear", &build_linear},
    {"linear_indexed", &build_linear_indexed},
    {"matmul", &build_matmul},
    {"attention", &build_attention},
    {"rope", &build_rope},
    {"causal_convolution", &build_causal_convolution},
    {"gated_delta_rule", &build_gated_delta_rule},
    {"selective_scan", &build_selective_scan},
    {"state_space_scan", &build_state_space_scan},
    {"embedding", &build_embedding},
    {"index_select", &build_index_select},
    {"index_copy", &build_index_copy},
    {"gather", &build_gather},
    {"scatter", &build_scatter},
};

}  // namespace

Build find_build(std::string_view family) {
    for (const Row& row : kRows) {
        if (row.family == family) return row.build;
    }
    return nullptr;
}

}  // namespace torchgguf::plan
