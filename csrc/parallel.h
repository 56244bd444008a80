// Running a loop on several threads.
#pragma once

#include <cstdint>

namespace torchgguf {

// Calls body(context, begin, end) so that [0, count) is covered once, in chunks of `chunk` (the last may be
// shorter) handed out to `threads` threads as they become free; returns when all are done. Chunk boundaries
// do not depend on the number of threads. The body must not throw.
void parallel_chunks(int64_t count, int64_t chunk, int threads, void (*body)(void* context, int64_t begin, int64_t end),
                     void* context);

template <class Body>
void parallel_for(int64_t count, int64_t chunk, int threads, Body&& body) {
    parallel_chunks(
        count, chunk, threads,
        [](void* context, int64_t begin, int64_t end) { (*static_cast<Body*>(context))(begin, end); },
        const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace torchgguf
