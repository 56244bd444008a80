#include "plan/team.h"

#include <sched.h>

#include <chrono>

#include "parallel.h"

namespace torchgguf::plan {
namespace {

// About the time that a stage of one chunk takes, and a few of them. A thread that has waited longer lets others run
// on its core: one of them may be what it waits for.
constexpr int kSpins = 2000;

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

template <class Condition>
inline void wait_until(Condition&& holds) {
    for (int spins = 0; !holds(); ++spins) spins < kSpins ? pause() : static_cast<void>(sched_yield());
}

// One thread drives: it goes through the stages, computes those of one chunk, and publishes the others. All threads
// draw tickets for chunks of the published stage. The driver waits for the chunks that others have drawn, not for the
// others: a thread that the system does not run holds nobody up.
class Team {
public:
    Team(const std::vector<std::unique_ptr<Stage>>& stages, Run& run, std::vector<int64_t>* nanoseconds)
        : stages_(stages), run_(run), nanoseconds_(nanoseconds), chunks_(stages.size() + 1, 0) {}

    void drive() {
        using Clock = std::chrono::steady_clock;
        auto before = nanoseconds_ ? Clock::now() : Clock::time_point{};
        for (std::size_t i = 0; i < stages_.size(); ++i) {
            const int64_t chunks = stages_[i]->begin(run_);
            if (chunks > 1 && run_.threads > 1) {
                split(i, chunks);
            } else {
                for (int64_t chunk = 0; chunk < chunks; ++chunk) stages_[i]->compute(chunk, run_);
            }
            if (nanoseconds_) {
                const auto now = Clock::now();
                (*nanoseconds_)[i] += std::chrono::duration_cast<std::chrono::nanoseconds>(now - before).count();
                before = now;
            }
        }
        publish(stages_.size());  // a stage of no chunks: the end
    }

    void serve() {
        uint64_t seen = kBefore;
        for (;;) {
            wait_until([&] { return stage_of(ticket_.load(std::memory_order_acquire)) != seen; });
            seen = draw();
            if (seen == stages_.size()) return;
        }
    }

private:
    static constexpr int kChunkBits = 32;
    static constexpr uint64_t kBefore = UINT64_MAX >> kChunkBits;  // no stage is published
    static uint64_t stage_of(uint64_t ticket) { return ticket >> kChunkBits; }
    static int64_t chunk_of(uint64_t ticket) { return static_cast<int64_t>(ticket << kChunkBits >> kChunkBits); }

    void publish(uint64_t stage) {
        done_.store(0, std::memory_order_relaxed);
        ticket_.store(stage << kChunkBits, std::memory_order_release);
    }

    // Computes chunks of the published stage until none is left; returns that stage. A ticket is valid for the stage
    // that it names: that one is published until all of its chunks are done.
    uint64_t draw() {
        for (;;) {
            const uint64_t ticket = ticket_.fetch_add(1, std::memory_order_acquire), stage = stage_of(ticket);
            const int64_t chunk = chunk_of(ticket);
            if (stage == kBefore || chunk >= chunks_[stage]) return stage;
            stages_[stage]->compute(chunk, run_);
            done_.fetch_add(1, std::memory_order_release);
        }
    }

    void split(std::size_t stage, int64_t chunks) {
        chunks_[stage] = chunks;
        publish(stage);
        draw();
        wait_until([&] { return done_.load(std::memory_order_acquire) == chunks; });
    }

    const std::vector<std::unique_ptr<Stage>>& stages_;
    Run& run_;
    std::vector<int64_t>* nanoseconds_;
    std::vector<int64_t> chunks_;  // of each stage
    alignas(64) std::atomic<uint64_t> ticket_{kBefore << kChunkBits};
    alignas(64) std::atomic<int64_t> done_{0};
};

}  // namespace

void run_stages(const std::vector<std::unique_ptr<Stage>>& stages, Run& run, std::vector<int64_t>* nanoseconds) {
    Team team(stages, run, nanoseconds);
    // Whoever comes first drives. Where there are fewer threads than asked for, the last turns find the end published.
    parallel_for(run.threads, 1, run.threads,
                 [&](int64_t begin, int64_t) { begin == 0 ? team.drive() : team.serve(); });
}

}  // namespace torchgguf::plan
