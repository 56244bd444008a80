#include "isa/registry.h"

#include <atomic>
#include <stdexcept>
#include <vector>

#include "grids.h"

namespace torchgguf {

#if defined(__x86_64__)
extern const Backend avx2, avx512, avx512_bf16;
#endif

namespace {

// From the plainest to the best. A new instruction set is its file and its entry here.
constexpr const Backend* kBackends[] = {
    &scalar,
#if defined(__x86_64__)
    &avx2,
    &avx512,
    &avx512_bf16,
#endif
};

const std::vector<const Backend*>& supported() {
    static const std::vector<const Backend*> found = [] {
        std::vector<const Backend*> rows;
        for (const Backend* row : kBackends) {
            if ((row->needs & ~cpu_features()) == 0) rows.push_back(row);
        }
        return rows;
    }();
    return found;
}

std::atomic<const Backend*>& active() {
    static std::atomic<const Backend*> row{supported().back()};
    return row;
}

// The first of what `entry` finds in the row in use and in its bases.
template <class Entry>
auto find(int type, Entry entry) -> decltype(entry(scalar)) {
    if (type < 0 || type >= kTableSize || lacks_grid(type)) return nullptr;
    for (const Backend* row = &active_backend(); row; row = row->base) {
        if (const auto found = entry(*row)) return found;
    }
    return nullptr;
}

}  // namespace

std::span<const Backend* const> backends() { return supported(); }

const Backend& active_backend() { return *active().load(std::memory_order_relaxed); }

void use_backend(const std::string& name, const char* source) {
    std::string names;
    for (const Backend* row : backends()) {
        if (name == row->name) return active().store(row, std::memory_order_relaxed);
        names += (names.empty() ? "" : ", ") + std::string(row->name);
    }
    throw std::invalid_argument(std::string(source) + " must be one of " + names + " on this CPU, got '" + name + "'");
}

const LinearKernel* find_linear(int type) {
    return find(type, [type](const Backend& row) -> const LinearKernel* {
        return row.linear && row.linear[type].compute ? &row.linear[type] : nullptr;
    });
}

decltype(Decoder::to_f32) find_decoder_to_f32(int type) {
    return find(type, [type](const Backend& row) { return row.decoders ? row.decoders[type].to_f32 : nullptr; });
}

decltype(Decoder::to_bf16) find_decoder_to_bf16(int type) {
    return find(type, [type](const Backend& row) { return row.decoders ? row.decoders[type].to_bf16 : nullptr; });
}

EncodeBlocks find_encoder(int type) {
    return find(type, [type](const Backend& row) { return row.encoders ? row.encoders[type] : nullptr; });
}

const RecurrenceKernels& find_recurrences() {
    const Backend* row = &active_backend();
    while (!row->recurrences) row = row->base;  // the last base has them
    return *row->recurrences;
}

const plan::Kernels& find_plan_kernels() {
    const Backend* row = &active_backend();
    while (!row->plans) row = row->base;  // the last base has them
    return *row->plans;
}

}  // namespace torchgguf
