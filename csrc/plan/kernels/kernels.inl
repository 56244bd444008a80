// All kernels of plans, for the instruction set that the including file is compiled for. It defines, in an unnamed
// namespace: kLanes, floats in a vector.

// In the order in which they use each other.
#include "recurrence/lanes.inl"

#include "plan/kernels/convert.inl"

#include "plan/kernels/pointwise.inl"

#include "plan/kernels/reductions.inl"

#include "plan/kernels/products.inl"

#include "plan/kernels/attention.inl"

inline void load_floats(const Stream& from, int64_t offset, int64_t stride, int64_t count, float* to) {
    load_run(from, offset, stride, count, to);
}

inline void store_floats(const float* from, const Stream& to, int64_t offset, int64_t stride, int64_t count) {
    store_run(from, to, offset, stride, count);
}

constexpr Kernels kKernels = {
    .has = &has,
    .pointwise = &pointwise,
    .reduce = &reduce,
    .softmax = &softmax,
    .normalize = &normalize,
    .rope = &rope,
    .matmul = &matmul,
    .attend = &attend,
    .merge = &merge,
    .load_floats = &load_floats,
    .store_floats = &store_floats,
};
