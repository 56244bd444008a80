// Tensors as arguments: every size and pointer that reaches a kernel comes from here, none as an integer from Python.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>

#include "python/dlpack.h"

namespace torchgguf {

// A torch.Tensor, or anything else that speaks DLPack. It borrows the memory: an argument outlives its call.
//
// DLPack does not pass on torch's negative bit, which marks a tensor that stands for its numbers times -1. The
// operators never pass such a tensor: torch's dispatcher resolves the bit before it calls an implementation. A caller
// of the module itself must resolve it (Tensor.resolve_neg). The conjugate bit marks complex tensors, which no kernel
// accepts.
class Tensor {
public:
    // False if the object is none of these.
    bool load(nanobind::handle object) noexcept;

    // The numbers, if they are contiguous T's in main memory. Throws ValueError, which names the argument, if not.
    template <class T>
    T* data(const char* name) const {
        require(name, dtype_of(static_cast<T*>(nullptr)));
        return static_cast<T*>(static_cast<void*>(start()));
    }

    int ndim() const { return view_.ndim; }
    int64_t size(int dimension) const { return view_.shape[dimension]; }
    bool is_bf16() const { return is(dtype_of(static_cast<struct Bf16*>(nullptr))); }
    // The last dimension. Throws ValueError if there are no dimensions.
    int64_t columns(const char* name) const;
    // The product of all other dimensions.
    int64_t rows() const;

private:
    struct DType {
        dlpack::DType value;
        const char* name;
    };
    static DType dtype_of(const uint8_t*) { return {{dlpack::DTypeCode::unsigned_integer, 8, 1}, "uint8"}; }
    static DType dtype_of(const int64_t*) { return {{dlpack::DTypeCode::integer, 64, 1}, "int64"}; }
    static DType dtype_of(const float*) { return {{dlpack::DTypeCode::floating, 32, 1}, "float32"}; }
    static DType dtype_of(const struct Bf16*) { return {{dlpack::DTypeCode::bfloat, 16, 1}, "bfloat16"}; }

    bool is(const DType& dtype) const;
    bool is_empty() const;
    bool is_contiguous() const;  // as in torch: an empty tensor is, with any strides
    void require(const char* name, const DType& dtype) const;
    uint8_t* start() const { return static_cast<uint8_t*>(view_.data) + view_.byte_offset; }

    dlpack::Tensor view_{};
    nanobind::ndarray<> array_;  // holds what view_ borrows, if it is not the object itself
};

struct Bf16 {
    uint16_t bits;
};

}  // namespace torchgguf

template <>
struct nanobind::detail::type_caster<torchgguf::Tensor> {
    NB_TYPE_CASTER(torchgguf::Tensor, const_name("torch.Tensor"))

    bool from_python(handle object, uint8_t, cleanup_list*) noexcept { return value.load(object); }
};
