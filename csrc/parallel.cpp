#include "parallel.h"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

namespace torchgguf {
namespace {

struct Work {
    std::atomic<int64_t> next{0};
    int64_t count;
    int64_t chunk;
    void (*body)(void*, int64_t, int64_t);
    void* context;
};

void take_chunks(void* data) {
    auto& work = *static_cast<Work*>(data);
    for (;;) {
        const int64_t begin = work.next.fetch_add(work.chunk, std::memory_order_relaxed);
        if (begin >= work.count) return;
        work.body(work.context, begin, std::min(begin + work.chunk, work.count));
    }
}

// torch has loaded an OpenMP runtime whose threads wait, spinning, for its next operator. A second pool
// beside it would fight with them for the same cores, so we run on that pool: GOMP_parallel is the stable
// entry point that both libgomp and LLVM's libomp export.
using GompParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

GompParallel find_openmp() {
    static const auto entry = reinterpret_cast<GompParallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return entry;
}

}  // namespace

void parallel_chunks(int64_t count, int64_t chunk, int threads, void (*body)(void*, int64_t, int64_t), void* context) {
    if (count <= 0) return;
    chunk = std::max<int64_t>(chunk, 1);
    const int64_t chunks = (count + chunk - 1) / chunk;
    threads = static_cast<int>(std::min<int64_t>(std::max(threads, 1), chunks));
    Work work{.count = count, .chunk = chunk, .body = body, .context = context};
    if (threads == 1) {
        take_chunks(&work);
    } else if (const auto openmp = find_openmp()) {
        openmp(take_chunks, &work, static_cast<unsigned>(threads), 0);
    } else {
        std::vector<std::thread> helpers;
        helpers.reserve(threads - 1);
        try {
            for (int i = 1; i < threads; ++i) helpers.emplace_back(take_chunks, &work);
        } catch (const std::system_error&) {  // the system has no more of them: fewer will do
        }
        take_chunks(&work);
        for (auto& helper : helpers) helper.join();
    }
}

}  // namespace torchgguf
