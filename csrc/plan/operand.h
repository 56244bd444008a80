// A tensor of a plan: memory that others own, seen with a shape and strides.
#pragma once

#include <cstdint>

// Files of several instruction sets include this header: none of its functions may be compiled on its own.
#define TORCHGGUF_INLINED [[gnu::always_inline]] inline

namespace torchgguf::plan {

enum class DType : uint8_t { f32, bf16, f16, i64, i32, u8, boolean };

constexpr int kDTypes = 7;
constexpr int kItemSizes[kDTypes] = {4, 2, 2, 8, 4, 1, 1};
constexpr const char* kDTypeNames[kDTypes] = {"float32", "bfloat16", "float16", "int64", "int32", "uint8", "bool"};

TORCHGGUF_INLINED constexpr int64_t item_size(DType dtype) { return kItemSizes[static_cast<int>(dtype)]; }
TORCHGGUF_INLINED constexpr bool is_float(DType dtype) { return dtype <= DType::f16; }

constexpr int kMaxDims = 6;

struct Operand {
    uint8_t* data = nullptr;  // nullptr: absent
    DType dtype = DType::f32;
    int ndim = 0;
    int64_t sizes[kMaxDims] = {};
    int64_t strides[kMaxDims] = {};  // in elements

    TORCHGGUF_INLINED explicit operator bool() const { return data != nullptr; }
    TORCHGGUF_INLINED int64_t size(int dim) const { return sizes[dim < 0 ? dim + ndim : dim]; }
    TORCHGGUF_INLINED int64_t stride(int dim) const { return strides[dim < 0 ? dim + ndim : dim]; }

    TORCHGGUF_INLINED int64_t numel() const {
        int64_t count = 1;
        for (int i = 0; i < ndim; ++i) count *= sizes[i];
        return count;
    }

    // True if the last `dims` dimensions lie one element behind the other.
    TORCHGGUF_INLINED bool is_contiguous(int dims) const {
        int64_t expected = 1;
        for (int i = ndim - 1; i >= ndim - dims; --i) {
            if (sizes[i] != 1 && strides[i] != expected) return false;
            expected *= sizes[i];
        }
        return true;
    }
    TORCHGGUF_INLINED bool is_contiguous() const { return is_contiguous(ndim); }

    // The same memory without a dimension, at one place of it.
    TORCHGGUF_INLINED Operand select(int dim, int64_t at) const {
        Operand out = *this;
        out.data += at * strides[dim] * item_size(dtype);
        --out.ndim;
        for (int i = dim; i < out.ndim; ++i) out.sizes[i] = sizes[i + 1], out.strides[i] = strides[i + 1];
        return out;
    }
};

}  // namespace torchgguf::plan
