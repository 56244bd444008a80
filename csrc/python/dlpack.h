// What of DLPack (https://dmlc.github.io/dlpack, version 1) reads a tensor without a copy, and without a call of
// Python: the tensor itself, and the table of C functions that a class offers as `__dlpack_c_exchange_api__`.
#pragma once

#include <cstdint>

namespace torchgguf::dlpack {

enum class DTypeCode : uint8_t { integer = 0, unsigned_integer = 1, floating = 2, bfloat = 4 };

struct DType {
    DTypeCode code;
    uint8_t bits;
    uint16_t lanes;
};

constexpr int32_t kCpu = 1;

struct Device {
    int32_t type;
    int32_t id;
};

struct Tensor {
    void* data;
    Device device;
    int32_t ndim;
    DType dtype;
    int64_t* shape;
    int64_t* strides;  // in elements; nullptr: contiguous
    uint64_t byte_offset;
};

constexpr uint32_t kMajorVersion = 1;

struct ExchangeApi {
    struct {
        uint32_t major, minor;
    } version;
    void* previous;
    void* unused[3];  // what makes owning tensors, and tensors of the class
    // Fills `out` with what is the tensor's as long as it lives and is not changed; 0, or -1 and a Python exception.
    int (*borrow)(void* object, Tensor* out);
    void* current_work_stream;
};

}  // namespace torchgguf::dlpack
