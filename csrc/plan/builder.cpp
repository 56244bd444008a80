#include "plan/builder.h"

#include <algorithm>
#include <stdexcept>

namespace torchgguf::plan {

const Operand& Arguments::tensor(std::size_t i) const {
    if (i >= tensors.size() || !tensors[i]) refuse("tensor " + std::to_string(i) + " is missing");
    return tensors[i];
}

int64_t Arguments::integer(std::size_t i) const {
    if (i >= ints.size()) refuse("integer " + std::to_string(i) + " is missing");
    return ints[i];
}

double Arguments::number(std::size_t i) const {
    if (i >= floats.size()) refuse("number " + std::to_string(i) + " is missing");
    return floats[i];
}

int Arguments::dimension(std::size_t i, int ndim) const {
    const int64_t dim = integer(i) < 0 ? integer(i) + ndim : integer(i);
    if (dim < 0 || dim >= ndim) refuse("there is no dimension " + std::to_string(integer(i)));
    return static_cast<int>(dim);
}

void Arguments::refuse(const std::string& problem) const {
    throw std::invalid_argument(std::string(name) + ": " + problem);
}

LoopNest::LoopNest(const Arguments& arguments, std::span<const int64_t> shape, std::span<const Operand* const> tensors,
                   int kept) {
    const int ndim = static_cast<int>(shape.size());
    streams.resize(tensors.size());
    for (std::size_t t = 0; t < tensors.size(); ++t) {
        const Operand& tensor = *tensors[t];
        streams[t] = {tensor.data, tensor.dtype, {}};
        if (!tensor) continue;
        arguments.require(tensor.ndim <= ndim, "a tensor has more dimensions than the result");
        for (int i = 0; i < tensor.ndim; ++i) {
            const int64_t size = tensor.sizes[i], expected = shape[ndim - tensor.ndim + i];
            if (size != expected && size != 1) {
                arguments.refuse("a size of " + std::to_string(size) + " does not broadcast to " +
                                 std::to_string(expected));
            }
        }
    }
    const auto stride_of = [&](std::size_t t, int dim) -> int64_t {
        const Operand& tensor = *tensors[t];
        const int at = dim - (ndim - tensor.ndim);
        return !tensor || at < 0 || tensor.sizes[at] == 1 ? 0 : tensor.strides[at];
    };
    loops.count = 0;
    for (int dim = 0; dim < ndim; ++dim) {
        const bool stays = dim >= ndim - kept;
        if (shape[dim] == 1 && !stays) continue;
        const int last = loops.count - 1;
        const auto continues = [&] {  // the loop before, which this one then is a part of
            for (std::size_t t = 0; t < tensors.size(); ++t) {
                if (streams[t].strides[last] != stride_of(t, dim) * shape[dim]) return false;
            }
            return true;
        };
        const bool merged = !stays && last >= 0 && continues();
        const int at = merged ? last : loops.count++;
        loops.sizes[at] = merged ? loops.sizes[at] * shape[dim] : shape[dim];
        for (std::size_t t = 0; t < tensors.size(); ++t) streams[t].strides[at] = stride_of(t, dim);
    }
    if (loops.count == 0) loops.count = 1, loops.sizes[0] = 1;
}

}  // namespace torchgguf::plan
