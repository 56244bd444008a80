// Blocks of 256 weights, found eight (or four) at a time in a grid: grid_fitting.py and i_quants.py.

// One, three, five ... times Unit / 8: scales that codes of so many bits stand for.
template <int Bits, int UnitInEighths>
struct OddScales {
    static constexpr int count = 1 << Bits;
    static constexpr float unit = UnitInEighths / 8.0f;
    static constexpr auto reach =
        steps<11>((2 * count - 1) * (UnitInEighths / 8.0) * 0.8, (2 * count - 1) * (UnitInEighths / 8.0) * 1.05);
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

// Entries of the grid of `Type`; EachByItself are its numbers as if each were free.
template <class Type, class EachByItself>
struct Grid {
    static constexpr int Dim = Type::grid.dim;
    using Rough = EachByItself;
    static constexpr bool positive_scales = true;

    template <int K>
    static constexpr int parts = K / Dim;  // the entries
    template <int K>
    static void nearest_group(const F* x, const F* w, F factor, F* levels, I* found) {
        NearestEntries<Type, 0> grid;
        for (int i = 0; i < K; i += Dim) {
            found[i / Dim] = grid.find(x + i, w + i, factor).entry[0];
            grid.numbers(found[i / Dim], levels + i);
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
        scales = nearest_codes<ScaleLevels, Groups>(fit.scales);
        for (int i = 0; i < 256 / Dim; ++i) entries[i] = fit.best[i * Dim / K].found[i % (K / Dim)];
    }
    // A word of four times seven signs and a scale, for 32 weights.
    uint32_t word(int b, int group) const {
        uint32_t word = static_cast<uint32_t>(scales.of[b][group]) << 28;
        for (int i = 0; i < 4; ++i) word |= (signs.of[b][4 * group + i] & 127u) << 7 * i;
        return word;
    }
};

// The low bytes of grid entries.
template <Field f, int N>
inline void put_low(uint8_t* block, const I (&entries)[N], int b) {
    static_assert(f.count == N);
    for (int i = 0; i < N; ++i) put_number<f>(block, i, static_cast<uint8_t>(entries[i][b]));
}

// What lies above these.
template <Field f, int N>
inline void put_high(uint8_t* block, const I (&entries)[N], int b) {
    static_assert(f.count == N && f.shift == 8);
    uint8_t* dst = block + f.at;
    constexpr int per_byte = 8 / f.bits;
    for (int i = 0; i < N; i += per_byte) {
        int byte = 0;
        for (int j = 0; j < per_byte; ++j) byte |= entries[i + j][b] >> f.shift << f.bits * j;
        *dst++ = static_cast<uint8_t>(byte);
    }
}

// Signs are made a byte at a time, in the order in which a block stores them.
template <Field f>
inline void put_signs(uint8_t* block, const uint8_t (&signs)[32]) {
    static_assert(f.count * f.bits == 8 * sizeof signs && f.run == 1);
    for (int i = 0; i < 32; ++i) block[f.at + i] = signs[i];
}

template <>
struct Encode<IQ2_XXS> : IQ2_XXS {
    using Levels = Grid<IQ2_XXS, IQ2Levels>;
    static void blocks(Tile<256>& tile, bool, uint8_t* dst, int count) {
        const Magnitudes<Levels, OddScales<4, 1>, 8, 8, true> m(tile);
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_half<d>(dst, m.fit.d[b]);
            for (int group = 0; group < 8; ++group) {
                uint32_t four = 0;
                for (int i = 0; i < 4; ++i) four |= static_cast<uint32_t>(m.entries[4 * group + i][b]) << 8 * i;
                put_number<entries>(dst, group, four);
                put_number<signs_scales>(dst, group, m.word(b, group));
            }
        }
    }
};

template <>
struct Encode<IQ2_XS> : IQ2_XS {
    using Levels = Grid<IQ2_XS, IQ2Levels>;
    static void blocks(Tile<256>& tile, bool, uint8_t* dst, int count) {
        const Magnitudes<Levels, OddScales<4, 1>, 16, 8, true> m(tile);
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_half<d>(dst, m.fit.d[b]);
            for (int i = 0; i < 32; ++i) {
                put_number<entries>(dst, i, static_cast<uint16_t>(m.entries[i][b] | (m.signs.of[b][i] & 127) << 9));
            }
            put_codes<scales>(dst, m.scales.of[b]);
        }
    }
};

template <>
struct Encode<IQ2_S> : IQ2_S {
    using Levels = Grid<IQ2_S, IQ2Levels>;
    static void blocks(Tile<256>& tile, bool, uint8_t* dst, int count) {
        const Magnitudes<Levels, OddScales<4, 1>, 16, 8, false> m(tile);
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_half<d>(dst, m.fit.d[b]);
            put_low<entries>(dst, m.entries, b);
            put_signs<signs>(dst, m.signs.of[b]);
            put_high<high>(dst, m.entries, b);
            put_codes<scales>(dst, m.scales.of[b]);
        }
    }
};

template <>
struct Encode<IQ3_XXS> : IQ3_XXS {
    using Levels = Grid<IQ3_XXS, IQ3_XXSLevels>;
    static void blocks(Tile<256>& tile, bool, uint8_t* dst, int count) {
        const Magnitudes<Levels, OddScales<4, 2>, 8, 4, true> m(tile);
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_half<d>(dst, m.fit.d[b]);
            put_low<entries>(dst, m.entries, b);
            for (int group = 0; group < 8; ++group) put_number<signs_scales>(dst, group, m.word(b, group));
        }
    }
};

template <>
struct Encode<IQ3_S> : IQ3_S {
    using Levels = Grid<IQ3_S, IQ3_SLevels>;
    static void blocks(Tile<256>& tile, bool, uint8_t* dst, int count) {
        const Magnitudes<Levels, OddScales<4, 8>, 8, 4, false> m(tile);
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_half<d>(dst, m.fit.d[b]);
            put_low<entries>(dst, m.entries, b);
            put_high<high>(dst, m.entries, b);
            put_signs<signs>(dst, m.signs.of[b]);
            put_codes<scales>(dst, m.scales.of[b]);
        }
    }
};

// IQ1's grid, of which the entries for each Run weights are moved up by an eighth, or all of them down.
template <int Run>
struct ShiftedGrid {
    static constexpr bool positive_scales = true;
    using Rough = IQ1Levels;

    template <int K>
    static constexpr int parts = K / 8 + K / Run;  // the entries, and which are moved down
    template <int K>
    static void nearest_group(const F* x, const F* w, F factor, F* levels, I* found) {
        NearestEntries<IQ1_S, 1, -1> grid;
        for (int first = 0; first < K; first += Run) {
            decltype(grid)::Found entries[Run / 8];
            F loss[2] = {};
            for (int i = 0; i < Run / 8; ++i) {
                entries[i] = grid.find(x + first + 8 * i, w + first + 8 * i, factor);
                for (int s = 0; s < 2; ++s) loss[s] += entries[i].loss[s];
            }
            const I is_down = loss[1] < loss[0];
            const F shift = choose(is_down, all(grid.shift[1]), all(grid.shift[0]));
            for (int i = 0; i < Run / 8; ++i) {
                const int at = first / 8 + i;
                found[at] = is_down ? entries[i].entry[1] : entries[i].entry[0];
                grid.numbers(found[at], levels + 8 * at);
                for (int j = 0; j < 8; ++j) levels[8 * at + j] += shift;
            }
            found[K / 8 + first / Run] = is_down & 1;
        }
    }
};
template <int Run>
constexpr int rounds<ShiftedGrid<Run>> = 1;

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
        scales = nearest_codes<ScaleLevels, Groups>(fit.scales);
        for (int i = 0; i < 32; ++i) entries[i] = fit.best[i * 8 / K].found[i % (K / 8)];
        for (int i = 0; i < 256 / Run; ++i) down[i] = fit.best[i * Run / K].found[K / 8 + i % (K / Run)];
    }
};

template <>
struct Encode<IQ1_S> : IQ1_S {
    static void blocks(Tile<256>& tile, bool, uint8_t* dst, int count) {
        const Shifted<8, 32> m(tile);
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_half<d>(dst, m.fit.d[b]);
            put_low<entries>(dst, m.entries, b);
            for (int group = 0; group < 8; ++group) {
                int word = m.scales.of[b][group] << 12 | m.down[group][b] << 15;
                for (int i = 0; i < 4; ++i) word |= m.entries[4 * group + i][b] >> 8 << 3 * i;
                put_number<high>(dst, group, static_cast<uint16_t>(word));
            }
        }
    }
};

template <>
struct Encode<IQ1_M> : IQ1_M {
    static void blocks(Tile<256>& tile, bool, uint8_t* dst, int count) {
        const Shifted<16, 8> m(tile);
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_low<entries>(dst, m.entries, b);
            I above[32];
            for (int i = 0; i < 32; ++i) above[i] = m.entries[i] | m.down[i] << 11;
            put_high<high>(dst, above, b);
            const int half = half_bits(m.fit.d[b]);
            for (int quarter = 0; quarter < 4; ++quarter) {
                int word = (half >> 4 * quarter & 15) << 12;
                for (int i = 0; i < 4; ++i) word |= m.scales.of[b][4 * quarter + i] << 3 * i;
                put_number<scales>(dst, quarter, static_cast<uint16_t>(word));
            }
        }
    }
};
