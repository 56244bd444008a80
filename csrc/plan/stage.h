// What a program runs, one after the other.
#pragma once

#include <atomic>
#include <cstdint>

namespace torchgguf::plan {

// What a run of a program shares.
struct Run {
    int threads = 1;
    uint8_t* scratch = nullptr;  // of the instruction that runs; aligned to 64 bytes
    std::atomic<const char*> failure{nullptr};

    // Reports what went wrong: the first report stays.
    void fail(const char* problem) {
        const char* none = nullptr;
        failure.compare_exchange_strong(none, problem, std::memory_order_relaxed);
    }
};

// A step of a program, in chunks that do not depend on each other.
class Stage {
public:
    virtual ~Stage() = default;

    // Called when all stages before are done, and before compute: the number of chunks. One is computed by the thread
    // that calls this; more are split over all threads, which costs about a microsecond.
    virtual int64_t begin(Run&) { return 1; }

    virtual void compute(int64_t chunk, Run& run) = 0;
};

}  // namespace torchgguf::plan
