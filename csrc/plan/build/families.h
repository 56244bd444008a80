// The families of instructions, each built in the file of its kind.
#pragma once

#include "plan/builder.h"

namespace torchgguf::plan {

// pointwise.cpp
void build_copy(const Arguments& arguments, Builder& builder);
void build_fill(const Arguments& arguments, Builder& builder);
void build_unary(const Arguments& arguments, Builder& builder);
void build_binary(const Arguments& arguments, Builder& builder);
void build_where(const Arguments& arguments, Builder& builder);
void build_addcmul(const Arguments& arguments, Builder& builder);
void build_clamp(const Arguments& arguments, Builder& builder);
void build_arange(const Arguments& arguments, Builder& builder);
void build_cat(const Arguments& arguments, Builder& builder);
void build_roll(const Arguments& arguments, Builder& builder);

// rows.cpp
void build_reduce(const Arguments& arguments, Builder& builder);
void build_softmax(const Arguments& arguments, Builder& builder);
void build_log_softmax(const Arguments& arguments, Builder& builder);
void build_rms_norm(const Arguments& arguments, Builder& builder);
void build_layer_norm(const Arguments& arguments, Builder& builder);
void build_rope(const Arguments& arguments, Builder& builder);

// order.cpp
void build_cumsum(const Arguments& arguments, Builder& builder);
void build_argmax(const Arguments& arguments, Builder& builder);
void build_topk(const Arguments& arguments, Builder& builder);
void build_sort(const Arguments& arguments, Builder& builder);

// products.cpp
void build_linear(const Arguments& arguments, Builder& builder);
void build_linear_indexed(const Arguments& arguments, Builder& builder);
void build_matmul(const Arguments& arguments, Builder& builder);

// attention.cpp
void build_attention(const Arguments& arguments, Builder& builder);

// recurrences.cpp
void build_causal_convolution(const Arguments& arguments, Builder& builder);
void build_gated_delta_rule(const Arguments& arguments, Builder& builder);
void build_selective_scan(const Arguments& arguments, Builder& builder);
void build_state_space_scan(const Arguments& arguments, Builder& builder);

// indexing.cpp
void build_embedding(const Arguments& arguments, Builder& builder);
void build_index_select(const Arguments& arguments, Builder& builder);
void build_index_copy(const Arguments& arguments, Builder& builder);
void build_gather(const Arguments& arguments, Builder& builder);
void build_scatter(const Arguments& arguments, Builder& builder);

}  // namespace torchgguf::plan
