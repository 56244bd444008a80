// The entries of a grid that are nearest to some numbers: quants/grids.py.

// For Dim numbers x * factor of each lane the nearest entry, once for each shift that moves all entries.
template <class Type, int... ShiftInEighths>
class NearestEntries {
    static constexpr int Dim = Type::grid.dim;

public:
    static constexpr int shifts = sizeof...(ShiftInEighths);
    static constexpr float shift[] = {(ShiftInEighths / 8.0f)...};

    struct Found {
        I entry[shifts];
        F loss[shifts];
    };
    Found find(const F* x, const F* w, F factor) {
        for (int half = 0; half < 2; ++half) {
            const int from = half * (Dim / 2);
            for (int s = 0; s < shifts; ++s) lose(half, s, x + from, w + from, factor);
        }
        // First which run of entries holds the least loss, then for each lane which of the run.
        Found found;
        I run[shifts] = {};
        for (F& loss : found.loss) loss = all(0x1.fffffep127f);
        const uint16_t* second = table.second_half;
        for (int r = 0; r < table.runs; ++r, second += run_length) {
            F least[shifts];
            for (int s = 0; s < shifts; ++s) least[s] = losses[1][second[0]][s];
            for (int i = 1; i < run_length; ++i) {
                const F* loss = losses[1][second[i]];
                for (int s = 0; s < shifts; ++s) least[s] = min(least[s], loss[s]);
            }
            for (int s = 0; s < shifts; ++s) {
                const F loss = losses[0][table.first_half[r]][s] + least[s];
                run[s] = loss < found.loss[s] ? I{} + r : run[s];
                found.loss[s] = min(loss, found.loss[s]);
            }
        }
        for (int s = 0; s < shifts; ++s) {
            for (int b = 0; b < kLanes; ++b) found.entry[s][b] = entry_of(s, b, run[s][b], found.loss[s][b]);
        }
        return found;
    }

    // The numbers of an entry of each lane.
    void numbers(I entry, F* to) const {
        constexpr int size = Dim < kLanes ? Dim : kLanes;
        for (int i = 0; i < Dim; i += size, to += size) {
            for (int b = 0; b < kLanes; ++b) {
                auto* row = reinterpret_cast<float*>(to + b % size) + b / size * size;
                __builtin_memcpy(row, table.numbers[entry[b]] + i, 4 * size);
            }
            transpose<size>(to);
        }
    }

private:
    static constexpr int run_length = grid_run_length(Type::grid.entries);
    const GridTable& table = grid_table(Type::id);
    F losses[2][81][shifts];  // of each possible half of an entry: three levels four times, or eight twice

    void lose(int half, int s, const F* x, const F* w, F factor) {
        F by_level[Dim / 2][8];
        for (int i = 0; i < Dim / 2; ++i) {
            const F target = x[i] * factor;
            for (int l = 0; l < table.levels; ++l) {
                const F error = target - (table.level[l] + shift[s]);
                by_level[i][l] = w[i] * error * error;
            }
        }
        F(*loss)[shifts] = losses[half];
        if constexpr (Dim == 4) {
            for (int a = 0; a < 8; ++a) {
                for (int b = 0; b < 8; ++b) (*loss++)[s] = by_level[0][a] + by_level[1][b];
            }
        } else {
            F first[9], second[9];
            for (int a = 0; a < 3; ++a) {
                for (int b = 0; b < 3; ++b) {
                    first[3 * a + b] = by_level[0][a] + by_level[1][b];
                    second[3 * a + b] = by_level[2][a] + by_level[3][b];
                }
            }
            for (const F& a : first) {
                for (const F& b : second) (*loss++)[s] = a + b;
            }
        }
    }

    // The first entry of a run that has this loss in lane b.
    int entry_of(int s, int b, int run, float least) const {
        const auto loss = [&](int half, int digits) {
            return reinterpret_cast<const float*>(losses[half][digits] + s)[b];
        };
        const float of_first = loss(0, table.first_half[run]);
        int at = run * run_length;
        for (int i = at + run_length; i-- > run * run_length;) {
            const float sum = of_first + loss(1, table.second_half[i]);
            at = bits_as<int>(sum) == bits_as<int>(least) ? i : at;  // compared as integers: without a branch
        }
        return table.entry[at];
    }
};
