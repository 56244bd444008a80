// Blocks of 256 weights, found eight (or four) at a time in a grid: grid_fitting.py and i_quants.py.

// One, three, five ... times Unit / 8: scales that codes of so many bits stand for.
template <int Bits, int UnitInEighths>
struct OddScales {
    static constexpr int count = 1 << Bits;
    static constexpr float unit = UnitInEighths / 8.0f;
    static constexpr auto reach = steps<11>((2 * count - 1) * (UnitInEighths / 8.0) * 0.8,
                                            (2 * count - 1) * (UnitInEighths / 8.0) * 1.05);
    // As in a table, of two that are as near it is the lower one: round x up to the middle above it.
    static F code_of_nearest(F x) {
        const F code = x * (0.5f / unit) - 0.5f, limited = clamp(code, 0, count - 1);
        const F nearest = round(limited);
        return choose(nearest - limited == 0.5f, nearest - 1.0f, nearest);
    }
    static F nearest(F x) { return (2.0f * code_of_nearest(x) + 1.0f) * unit; }
};
template <int Bits, int UnitInEighths>
constexpr float spacing<OddScales<Bits, UnitInEighths>> = 2 * OddScales<Bits, UnitInEighths>::unit;

// The numbers in the grids.
struct IQ2Levels {
    static constexpr bool positive_scales = true;
    static constexpr float levels[] = {8, 25, 43};
    static constexpr LevelTable table{levels};
    static constexpr auto reach = steps<9>(30, 54);
    static F nearest(F x) { return table.nearest(x); }
};
struct IQ3_XXSLevels {
    static constexpr bool positive_scales = true;
    static constexpr float levels[] = {4, 12, 20, 28, 36, 44, 52, 62};
    static constexpr LevelTable table{levels};
    static constexpr auto reach = steps<9>(44, 76);
    static F nearest(F x) { return table.nearest(x); }
};
struct IQ3_SLevels {
    static constexpr bool positive_scales = true;
    static constexpr auto reach = steps<9>(10, 18);
    static F nearest(F x) { return OddScales<3, 8>::nearest(x); }
};
struct IQ1Levels : Integers<-1, 1> {
    static constexpr bool positive_scales = true;
    static constexpr auto reach = steps<9>(0.75, 3.15);
};

// Finds the entry of a grid nearest to Dim numbers x * factor, for each lane.
template <int Id, int Dim>
struct NearestEntry {
    const GridTable& table = grid_table(Id);
    F losses[2][81];  // of each possible half of an entry: three levels four times, or eight twice

    // Moved by `shift`, all of them. Returns the least loss; `entry` becomes which it is.
    F find(const F* x, const F* w, F factor, float shift, I& entry) {
        for (int half = 0; half < 2; ++half) {
            F by_level[Dim / 2][8];
            for (int i = 0; i < Dim / 2; ++i) {
                const int at = half * (Dim / 2) + i;
                const F target = x[at] * factor;
                for (int l = 0; l < table.levels; ++l) {
                    const F error = target - (table.level[l] + shift);
                    by_level[i][l] = w[at] * error * error;
                }
            }
            if constexpr (Dim == 4) {
                F* loss = losses[half];
                for (int b = 0; b < table.levels; ++b) {
                    for (int a = 0; a < table.levels; ++a) *loss++ = by_level[0][a] + by_level[1][b];
                }
            } else {
                F first[9], second[9];
                for (int b = 0; b < 3; ++b) {
                    for (int a = 0; a < 3; ++a) {
                        first[3 * b + a] = by_level[0][a] + by_level[1][b];
                        second[3 * b + a] = by_level[2][a] + by_level[3][b];
                    }
                }
                for (int b = 0; b < 9; ++b) {
                    for (int a = 0; a < 9; ++a) losses[half][9 * b + a] = first[a] + second[b];
                }
            }
        }
        // First which run of entries holds the least loss, then for each lane which of the run.
        constexpr int kRun = 8;
        F least = all(kNoLoss);
        I run{};
        for (int e = 0; e < table.entries; e += kRun) {
            F least_of_run = loss_of(e);
            for (int i = 1; i < kRun; ++i) least_of_run = min(loss_of(e + i), least_of_run);
            run = least_of_run < least ? I{} + e : run;
            least = min(least_of_run, least);
        }
        const auto* lanes = reinterpret_cast<const float*>(losses);
        for (int b = 0; b < kLanes; ++b) {
            const auto loss = [&](int half, int digits) { return lanes[(81 * half + digits) * kLanes + b]; };
            int e = 0;
            for (int i = kRun; i-- > 0;) {
                const int at = run[b] + i;
                e = loss(0, table.low[at]) + loss(1, table.high[at]) == least[b] ? at : e;
            }
            entry[b] = e;
        }
        return least;
    }

    static constexpr float kNoLoss = 0x1.fffffep127f;
    F loss_of(int e) const { return losses[0][table.low[e]] + losses[1][table.high[e]]; }

    void numbers(I entry, float shift, F* to) const {
        auto* lanes = reinterpret_cast<float*>(to);
        for (int b = 0; b < kLanes; ++b) {
            for (int i = 0; i < Dim; ++i) lanes[i * kLanes + b] = table.numbers[entry[b]][i] + shift;
        }
    }
};

template <int Id, int Dim, class EachByItself>
struct Grid {
    using Rough = EachByItself;
    static constexpr bool positive_scales = true;

    template <int K>
    static void nearest_group(const F* x, const F* w, F factor, F* levels, I* entries = nullptr) {
        NearestEntry<Id, Dim> grid;
        for (int i = 0; i < K; i += Dim) {
            I entry;
            grid.find(x + i, w + i, factor, 0, entry);
            if (levels) grid.numbers(entry, 0, levels + i);
            if (entries) entries[i / Dim] = entry;
        }
    }
};

// Signs apart, so that what is looked for in a grid are magnitudes; bit i of `of[b][byte]` is a minus.
template <bool Even>
struct Signs {
    uint8_t of[kLanes][32] = {};

    explicit Signs(Tile<256>& tile) {
        for (int first = 0; first < 256; first += 8) {
            F* x = tile.x + first;
            F least{};
            I minus{}, odd{}, which{};
            for (int i = 0; i < 8; ++i) {
                const I negative = x[i] < 0.0f;
                minus |= negative & (1 << i);
                odd ^= negative;
                const F matters = tile.w[first + i] * x[i] * x[i];
                const I less = i == 0 ? I{} - 1 : matters < least;
                least = choose(less, matters, least);
                which = less ? I{} + (1 << i) : which;
            }
            if (Even) minus ^= which & odd;
            for (int i = 0; i < 8; ++i) x[i] = choose((minus & (1 << i)) != 0, -x[i], x[i]);
            for (int b = 0; b < kLanes; ++b) of[b][first / 8] = static_cast<uint8_t>(minus[b]);
        }
    }
};

// Factor, scales, grid entries and signs of blocks of `Groups` groups.
template <class Levels, class ScaleLevels, int Groups, int Dim, bool Even>
struct Magnitudes {
    static constexpr int K = 256 / Groups;
    Signs<Even> signs;
    BlockScales<Levels, ScaleLevels, Groups, K> fit;
    Codes<Groups> scales;
    I entries[256 / Dim];

    explicit Magnitudes(Tile<256>& tile) : signs((tile.make_searchable(), tile)), fit(tile) {
        scales = scale_codes<ScaleLevels, Groups>(fit.scales);
        for (int g = 0; g < Groups; ++g) {
            Levels::template nearest_group<K>(tile.x + g * K, tile.w + g * K, inverse(fit.d * fit.scales[g]),
                                              nullptr, entries + g * K / Dim);
        }
    }
    // A word of four times seven signs and a scale, for 32 weights.
    uint32_t word(int b, int group) const {
        uint32_t word = static_cast<uint32_t>(scales.of[b][group]) << 28;
        for (int i = 0; i < 4; ++i) word |= (signs.of[b][4 * group + i] & 127u) << 7 * i;
        return word;
    }
};

template <class T>
inline uint8_t* put(uint8_t* dst, T number) {
    __builtin_memcpy(dst, &number, sizeof number);
    return dst + sizeof number;
}

// The low bytes of grid entries.
template <int N>
inline uint8_t* put_low(uint8_t* dst, const I (&entries)[N], int b) {
    for (int i = 0; i < N; ++i) *dst++ = static_cast<uint8_t>(entries[i][b]);
    return dst;
}

// What lies above these, in fields of so many bits.
template <int Bits, int N>
inline uint8_t* put_high(uint8_t* dst, const I (&entries)[N], int b) {
    uint8_t high[N];
    for (int i = 0; i < N; ++i) high[i] = static_cast<uint8_t>(entries[i][b] >> 8);
    return pack<Bits>(dst, high, N, 1);
}

inline uint8_t* put_signs(uint8_t* dst, const uint8_t (&signs)[32]) {
    for (const uint8_t byte : signs) *dst++ = byte;
    return dst;
}

struct IQ2_XXS : Encoder<16, 256, 66> {
    using Levels = Grid<16, 8, IQ2Levels>;
    static void encode(Tile<256>& tile, bool, uint8_t* dst, int count) {
        const Magnitudes<Levels, OddScales<4, 1>, 8, 8, true> m(tile);
        for (int b = 0; b < count; ++b) {
            dst = put_half(dst, m.fit.d[b]);
            for (int group = 0; group < 8; ++group) {
                for (int i = 0; i < 4; ++i) *dst++ = static_cast<uint8_t>(m.entries[4 * group + i][b]);
                dst = put(dst, m.word(b, group));
            }
        }
    }
};

struct IQ2_XS : Encoder<17, 256, 74> {
    using Levels = Grid<17, 8, IQ2Levels>;
    static void encode(Tile<256>& tile, bool, uint8_t* dst, int count) {
        const Magnitudes<Levels, OddScales<4, 1>, 16, 8, true> m(tile);
        for (int b = 0; b < count; ++b) {
            dst = put_half(dst, m.fit.d[b]);
            for (int i = 0; i < 32; ++i) {
                dst = put(dst, static_cast<uint16_t>(m.entries[i][b] | (m.signs.of[b][i] & 127) << 9));
            }
            dst = pack<4>(dst, m.scales.of[b], 16, 1);
        }
    }
};

struct IQ2_S : Encoder<22, 256, 82> {
    using Levels = Grid<22, 8, IQ2Levels>;
    static void encode(Tile<256>& tile, bool, uint8_t* dst, int count) {
        const Magnitudes<Levels, OddScales<4, 1>, 16, 8, false> m(tile);
        for (int b = 0; b < count; ++b) {
            dst = put_signs(put_low(put_half(dst, m.fit.d[b]), m.entries, b), m.signs.of[b]);
            dst = pack<4>(put_high<2>(dst, m.entries, b), m.scales.of[b], 16, 1);
        }
    }
};

struct IQ3_XXS : Encoder<18, 256, 98> {
    using Levels = Grid<18, 4, IQ3_XXSLevels>;
    static void encode(Tile<256>& tile, bool, uint8_t* dst, int count) {
        const Magnitudes<Levels, OddScales<4, 2>, 8, 4, true> m(tile);
        for (int b = 0; b < count; ++b) {
            dst = put_low(put_half(dst, m.fit.d[b]), m.entries, b);
            for (int group = 0; group < 8; ++group) dst = put(dst, m.word(b, group));
        }
    }
};

struct IQ3_S : Encoder<21, 256, 110> {
    using Levels = Grid<21, 4, IQ3_SLevels>;
    static void encode(Tile<256>& tile, bool, uint8_t* dst, int count) {
        const Magnitudes<Levels, OddScales<4, 8>, 8, 4, false> m(tile);
        for (int b = 0; b < count; ++b) {
            dst = put_high<1>(put_low(put_half(dst, m.fit.d[b]), m.entries, b), m.entries, b);
            dst = pack<4>(put_signs(dst, m.signs.of[b]), m.scales.of[b], 8, 1);
        }
    }
};

// IQ1's grid, of which the entries for each Run weights are moved up by an eighth, or all of them down.
template <int Run>
struct ShiftedGrid {
    static constexpr bool positive_scales = true;
    using Rough = IQ1Levels;
    static constexpr float kShift = 0.125f;

    template <int K>
    static void nearest_group(const F* x, const F* w, F factor, F* levels, I* entries = nullptr,
                              I* down = nullptr) {
        NearestEntry<19, 8> grid;
        constexpr int kEntries = Run / 8;
        for (int first = 0; first < K; first += Run) {
            I found[2][kEntries];
            F loss[2] = {};
            for (int i = 0; i < kEntries; ++i) {
                const F *points = x + first + 8 * i, *weights = w + first + 8 * i;
                loss[0] += grid.find(points, weights, factor, kShift, found[0][i]);
                loss[1] += grid.find(points, weights, factor, -kShift, found[1][i]);
            }
            const I is_down = loss[1] < loss[0];
            const F shift = choose(is_down, all(-kShift), all(kShift));
            for (int i = 0; i < kEntries; ++i) {
                const I entry = is_down ? found[1][i] : found[0][i];
                const int at = first / 8 + i;
                if (entries) entries[at] = entry;
                if (!levels) continue;
                grid.numbers(entry, 0, levels + 8 * at);
                for (int j = 0; j < 8; ++j) levels[8 * at + j] += shift;
            }
            if (down) down[first / Run] = is_down & 1;
        }
    }
};

// Factor, scales, entries and shifts of blocks of `Groups` groups.
template <int Groups, int Run>
struct Shifted {
    using Levels = ShiftedGrid<Run>;
    using ScaleLevels = OddScales<3, 8>;
    static constexpr int K = 256 / Groups;
    BlockScales<Levels, ScaleLevels, Groups, K> fit;
    Codes<Groups> scales;
    I entries[32], down[256 / Run];

    explicit Shifted(Tile<256>& tile) : fit((tile.make_searchable(), tile)) {
        scales = scale_codes<ScaleLevels, Groups>(fit.scales);
        for (int g = 0; g < Groups; ++g) {
            Levels::template nearest_group<K>(tile.x + g * K, tile.w + g * K, inverse(fit.d * fit.scales[g]),
                                              nullptr, entries + g * K / 8, down + g * K / Run);
        }
    }
};

struct IQ1_S : Encoder<19, 256, 50> {
    static void encode(Tile<256>& tile, bool, uint8_t* dst, int count) {
        const Shifted<8, 32> m(tile);
        for (int b = 0; b < count; ++b) {
            dst = put_low(put_half(dst, m.fit.d[b]), m.entries, b);
            for (int group = 0; group < 8; ++group) {
                int word = m.scales.of[b][group] << 12 | m.down[group][b] << 15;
                for (int i = 0; i < 4; ++i) word |= m.entries[4 * group + i][b] >> 8 << 3 * i;
                dst = put(dst, static_cast<uint16_t>(word));
            }
        }
    }
};

struct IQ1_M : Encoder<29, 256, 56> {
    static void encode(Tile<256>& tile, bool, uint8_t* dst, int count) {
        const Shifted<16, 8> m(tile);
        for (int b = 0; b < count; ++b) {
            dst = put_low(dst, m.entries, b);
            uint8_t high[32];
            for (int i = 0; i < 32; ++i) high[i] = m.entries[i][b] >> 8 | m.down[i][b] << 3;
            dst = pack<4>(dst, high, 32, 1);
            const int half = half_bits(m.fit.d[b]);
            for (int quarter = 0; quarter < 4; ++quarter) {
                int word = (half >> 4 * quarter & 15) << 12;
                for (int i = 0; i < 4; ++i) word |= m.scales.of[b][4 * quarter + i] << 3 * i;
                dst = put(dst, static_cast<uint16_t>(word));
            }
        }
    }
};
