// The search for scales: fitting.py of torchgguf.quants, operation by operation. What is said there is not
// said again here; `k` weights of a group stand at x[0 .. k) and their importances at w[0 .. k).

// A list of numbers known at compile time: `count` equal steps from `first` to `last`.
template <int Count>
struct Reach {
    float at[Count];
};
template <int A, int B>
constexpr Reach<A + B> operator+(const Reach<A>& a, const Reach<B>& b) {
    Reach<A + B> both{};
    for (int i = 0; i < A; ++i) both.at[i] = a.at[i];
    for (int i = 0; i < B; ++i) both.at[A + i] = b.at[i];
    return both;
}
template <int Count>
constexpr Reach<Count> steps(double first, double last) {
    Reach<Count> reach{};
    for (int i = 0; i < Count; ++i) reach.at[i] = static_cast<float>(first + (last - first) * i / (Count - 1));
    return reach;
}

template <int Low, int High>
struct Integers {
    static constexpr int low = Low, high = High;
    static F nearest(F x) { return round(clamp(x, Low, High)); }
    static F code_of_nearest(F x) { return nearest(x) - static_cast<float>(Low); }
};

// Levels of a table: up to sixteen numbers in ascending order, filled up with the last one.
struct LevelTable {
    float values[16], middles[4][8];  // those in the middle of 16 levels, of 8, of 4 and of 2
    template <int N>
    constexpr explicit LevelTable(const float (&levels)[N]) : values{}, middles{} {
        for (int i = 0; i < 16; ++i) values[i] = levels[i < N ? i : N - 1];
        for (int step = 0; step < 4; ++step) {
            for (int i = 0; i < 1 << step; ++i) {
                const int above = (2 * i + 1) * (8 >> step);
                middles[step][i] = above < N ? (levels[above - 1] + levels[above]) / 2 : 0x1p127f;
            }
        }
    }
    // How many of the middles between two levels lie below x.
    I index_of_nearest(F x) const {
        I index = (x > middles[0][0]) & 1;
        index = 2 * index - (x > choose(index != 0, all(middles[1][1]), all(middles[1][0])));
        index = 2 * index - (x > look_up_8(middles[2], index));
        return 2 * index - (x > look_up_8(middles[3], index));
    }
    F nearest(F x) const { return look_up(values, index_of_nearest(x)); }
};

// How many numbers say which entries of a grid K levels are; none if each is found by itself.
template <class Levels, int K>
constexpr int parts = 0;
template <class Levels, int K>
    requires requires { Levels::template parts<K>; }
constexpr int parts<Levels, K> = Levels::template parts<K>;

// Calls use(i, level) for the level nearest to each x[i] * factor; `found` becomes which entries of a grid
// these are.
template <class Levels, int K, class Use>
inline void for_each_level(const F* x, const F* w, F factor, I* found, Use use) {
    if constexpr (parts<Levels, K> > 0) {
        F levels[K];
        Levels::template nearest_group<K>(x, w, factor, levels, found);
        for (int i = 0; i < K; ++i) use(i, levels[i]);
    } else {
        for (int i = 0; i < K; ++i) use(i, Levels::nearest(x[i] * factor));
    }
}

constexpr float kSelfAndNeighbours[] = {0, -1, 1}, kNeighbours[] = {-1, 1};

template <class Levels>
constexpr bool positive_scales = requires { Levels::positive_scales; };
template <class Levels>
constexpr float spacing = 1;
template <class Levels>
constexpr bool ternary = requires { requires Levels::low == -1 && Levels::high == 1; };

struct Fit {
    F scale{}, curvature{};
};

template <class Levels, int K>
inline Fit fit_scale(const F* x, const F* w) {
    F wx[K], extreme = x[0];
    for (int i = 0; i < K; ++i) {
        wx[i] = w[i] * x[i];
        if (ternary<Levels>) wx[i] = magnitude(wx[i]);
        extreme = choose(magnitude(x[i]) > magnitude(extreme), x[i], extreme);
    }
    const F per_unit = inverse(positive_scales<Levels> ? magnitude(extreme) : extreme);
    Fit best;
    F best_gain{};
    const auto attempt = [&](F factor) {
        F wxq{}, wqq{};
        if constexpr (ternary<Levels>) {  // the same, in fewer operations
            const F size = magnitude(factor);
            for (int i = 0; i < K; ++i) {
                const I counts = magnitude(x[i]) * size > 0.5f;
                wxq += choose(counts, wx[i], F{});
                wqq += choose(counts, w[i], F{});
            }
            wxq = choose(factor < 0.0f, -wxq, wxq);
        } else {
            I found[parts<Levels, K> + 1];
            for_each_level<Levels, K>(x, w, factor, found, [&](int i, F q) {
                wxq += wx[i] * q;
                wqq += w[i] * q * q;
            });
        }
        const F scale = quotient(wxq, wqq), gain = wxq * scale;
        I better = gain > best_gain;
        if (positive_scales<Levels>) better &= scale > 0.0f;
        best_gain = choose(better, gain, best_gain);
        best.scale = choose(better, scale, best.scale);
        best.curvature = choose(better, wqq, best.curvature);
    };
    if constexpr (requires { Levels::reach; }) {
        for (const float level : Levels::reach.at) attempt(level * per_unit);
    } else {
        best.scale = fit_scale<typename Levels::Rough, K>(x, w).scale;
    }
    attempt(inverse(best.scale));
    return best;
}

template <class Levels>
constexpr int rounds = kRounds;

// Factor and scales of a block of `Groups` groups of K weights each.
template <class Levels, class ScaleLevels, int Groups, int K>
struct BlockScales {
    // What a group of weights comes to if its levels are multiplied by `step`.
    struct Trial {
        F loss{}, wxq{}, wqq{};
        I found[parts<Levels, K> + 1];

        Trial() = default;
        Trial(const Tile<Groups * K>& tile, int g, F step) {
            const F *x = tile.x + g * K, *w = tile.w + g * K;
            for_each_level<Levels, K>(x, w, inverse(step), found, [&](int i, F q) {
                const F error = x[i] - step * q;
                loss += w[i] * error * error;
                wxq += w[i] * x[i] * q;
                wqq += w[i] * q * q;
            });
        }
        void replace(I where, const Trial& other) {
            loss = choose(where, other.loss, loss);
            wxq = choose(where, other.wxq, wxq);
            wqq = choose(where, other.wqq, wqq);
            for (int i = 0; i < parts<Levels, K>; ++i) found[i] = where ? other.found[i] : found[i];
        }
    };

    F d, scales[Groups];
    Trial best[Groups];

    explicit BlockScales(const Tile<Groups * K>& tile) {
        F scale[Groups], curvature[Groups];
        for (int g = 0; g < Groups; ++g) {
            const Fit fit = fit_scale<Levels, K>(tile.x + g * K, tile.w + g * K);
            scale[g] = fit.scale;
            curvature[g] = fit.curvature;
        }
        d = stored_half(fit_scale<ScaleLevels, Groups>(scale, curvature).scale);
        for (int g = 0; g < Groups; ++g) {
            scales[g] = ScaleLevels::nearest(scale[g] * inverse(d));
            best[g] = Trial(tile, g, d * scales[g]);
        }
        for (int round = 0; round < rounds<Levels>; ++round) {
            F scaled_wxq{}, scaled_wqq{};
            for (int g = 0; g < Groups; ++g) {
                const F middle = scales[g];
                for (const float move : kNeighbours) {
                    const F tried = ScaleLevels::nearest(middle + move * spacing<ScaleLevels>);
                    const Trial trial(tile, g, d * tried);
                    const I better = trial.loss < best[g].loss;
                    scales[g] = choose(better, tried, scales[g]);
                    best[g].replace(better, trial);
                }
                scaled_wxq += best[g].wxq * scales[g];
                scaled_wqq += best[g].wqq * scales[g] * scales[g];
            }
            const F tried_d = stored_half(quotient(scaled_wxq, scaled_wqq));
            Trial trial[Groups];
            F tried_total{}, total{};
            for (int g = 0; g < Groups; ++g) {
                trial[g] = Trial(tile, g, tried_d * scales[g]);
                tried_total += trial[g].loss;
                total += best[g].loss;
            }
            const I better = tried_total < total;
            d = choose(better, tried_d, d);
            for (int g = 0; g < Groups; ++g) best[g].replace(better, trial[g]);
        }
    }

    Codes<Groups * K> codes(const Tile<Groups * K>& tile) const {
        Codes<Groups * K> codes;
        for (int i = 0; i < Groups * K; ++i) {
            codes.set(i, Levels::code_of_nearest(tile.x[i] * inverse(d * scales[i / K])));
        }
        return codes;
    }
};

struct Line {
    F scale{}, offset{}, curvature{}, sum_w{};
};

template <class Levels, int K>
inline Line fit_line(const F* x, const F* w) {
    F low{}, high = x[0];
    for (int i = 0; i < K; ++i) {
        low = min(low, x[i]);
        high = max(high, x[i]);
    }
    F y[K], wy[K], sum_wy{};
    Line best;
    for (int i = 0; i < K; ++i) {
        y[i] = x[i] - low;
        wy[i] = w[i] * y[i];
        best.sum_w += w[i];
        sum_wy += wy[i];
    }
    const F sum_w = best.sum_w, per_unit = inverse(high - low);
    F best_gain{};
    const auto attempt = [&](F factor, F from) {
        F wqy{}, wqq{}, sum_wq{};
        for (int i = 0; i < K; ++i) {
            const F q = Levels::nearest((y[i] - from) * factor), wq = w[i] * q;
            wqy += wy[i] * q;
            wqq += wq * q;
            sum_wq += wq;
        }
        F offset = quotient(wqq * sum_wy - sum_wq * wqy, sum_w * wqq - sum_wq * sum_wq);
        offset = min(offset, -low);
        const F scale = quotient(wqy - offset * sum_wq, wqq);
        const F gain = scale * (2 * wqy - scale * wqq - 2 * offset * sum_wq) + offset * (2 * sum_wy - offset * sum_w);
        const I better = (gain > best_gain) & (scale > 0.0f);
        best_gain = choose(better, gain, best_gain);
        best.scale = choose(better, scale, best.scale);
        best.offset = choose(better, offset, best.offset);
        best.curvature = choose(better, wqq, best.curvature);
    };
    for (const float level : Levels::reach.at) attempt(level * per_unit, F{});
    for (int i = 0; i < 2; ++i) attempt(inverse(best.scale), best.offset);
    best.offset = low + best.offset;
    return best;
}

struct StoredLine {
    F scale, offset;
};

template <class Levels, int K>
inline StoredLine fit_stored_line(const F* x, const F* w) {
    F low = x[0], high = x[0];
    for (int i = 1; i < K; ++i) {
        low = min(low, x[i]);
        high = max(high, x[i]);
    }
    F y[K], wy[K], sum_wy{}, sum_w{};
    for (int i = 0; i < K; ++i) {
        y[i] = x[i] - low;
        wy[i] = w[i] * y[i];
        sum_w += w[i];
        sum_wy += wy[i];
    }
    const F per_unit = inverse(high - low);
    StoredLine best{F{}, stored_half(low)};
    F least = all(__builtin_inff());
    const auto attempt = [&](F factor, F from) {
        F q[K], wqy{}, wqq{}, sum_wq{}, lost{};
        for (int i = 0; i < K; ++i) {
            q[i] = Levels::nearest((y[i] - from) * factor);
            const F wq = w[i] * q[i];
            wqy += wy[i] * q[i];
            wqq += wq * q[i];
            sum_wq += wq;
        }
        F offset = quotient(wqq * sum_wy - sum_wq * wqy, sum_w * wqq - sum_wq * sum_wq);
        const F scale = stored_half(quotient(wqy - offset * sum_wq, wqq));
        offset = stored_half(low + offset);
        for (int i = 0; i < K; ++i) {
            const F error = x[i] - (scale * q[i] + offset);
            lost += w[i] * error * error;
        }
        const I better = (lost < least) & (scale > 0.0f);
        least = choose(better, lost, least);
        best.scale = choose(better, scale, best.scale);
        best.offset = choose(better, offset, best.offset);
    };
    for (const float level : Levels::reach.at) attempt(level * per_unit, F{});
    for (int i = 0; i < 2; ++i) attempt(inverse(best.scale), best.offset - low);
    return best;
}

// Factors, scales and minima of a block of `Groups` groups of K weights each.
template <class Levels, class ScaleLevels, int Groups, int K>
struct BlockLines {
    F d, dmin, scales[Groups], minima[Groups];

    explicit BlockLines(const Tile<Groups * K>& tile) {
        F scale[Groups], minimum[Groups], curvature[Groups], sum_w[Groups], sum_wx[Groups], least[Groups];
        for (int g = 0; g < Groups; ++g) {
            const F *x = tile.x + g * K, *w = tile.w + g * K;
            const Line line = fit_line<Levels, K>(x, w);
            scale[g] = line.scale;
            minimum[g] = -line.offset;
            curvature[g] = line.curvature;
            sum_w[g] = line.sum_w;
            sum_wx[g] = F{};
            for (int i = 0; i < K; ++i) sum_wx[g] += w[i] * x[i];
        }
        d = stored_half(fit_scale<ScaleLevels, Groups>(scale, curvature).scale);
        dmin = stored_half(fit_scale<ScaleLevels, Groups>(minimum, sum_w).scale);
        for (int g = 0; g < Groups; ++g) {
            scales[g] = ScaleLevels::nearest(scale[g] * inverse(d));
            minima[g] = ScaleLevels::nearest(minimum[g] * inverse(dmin));
            least[g] = loss(tile, g, d, dmin, scales[g], minima[g]);
        }
        for (int round = 0; round < kRounds; ++round) {
            F aa{}, ab{}, bb{}, ax{}, bx{};
            for (int g = 0; g < Groups; ++g) {
                const F *x = tile.x + g * K, *w = tile.w + g * K;
                const F middle = scales[g], minimum_before = minima[g];
                for (const float move : kSelfAndNeighbours) {
                    const F tried = ScaleLevels::nearest(middle + move);
                    const F factor = inverse(d * tried), from = dmin * minimum_before;
                    F sum_wq{};
                    for (int i = 0; i < K; ++i) sum_wq += w[i] * Levels::nearest((x[i] + from) * factor);
                    const F fitted = quotient(d * tried * sum_wq - sum_wx[g], sum_w[g]);
                    const F tried_minimum = ScaleLevels::nearest(fitted * inverse(dmin));
                    const F tried_loss = loss(tile, g, d, dmin, tried, tried_minimum);
                    const I better = tried_loss < least[g];
                    scales[g] = choose(better, tried, scales[g]);
                    minima[g] = choose(better, tried_minimum, minima[g]);
                    least[g] = choose(better, tried_loss, least[g]);
                }
                const F factor = inverse(d * scales[g]), from = dmin * minima[g];
                F wqq{}, sum_wq{}, wxq{};
                for (int i = 0; i < K; ++i) {
                    const F q = Levels::nearest((x[i] + from) * factor), wq = w[i] * q;
                    wqq += wq * q;
                    sum_wq += wq;
                    wxq += w[i] * x[i] * q;
                }
                aa += wqq * scales[g] * scales[g];
                ab += sum_wq * scales[g] * minima[g];
                bb += sum_w[g] * minima[g] * minima[g];
                ax += wxq * scales[g];
                bx += sum_wx[g] * minima[g];
            }
            const F fitted_min = quotient(ab * ax - aa * bx, aa * bb - ab * ab);
            const F fitted = quotient(ax + fitted_min * ab, aa);
            const F tried_d = stored_half(max(fitted, F{})), tried_dmin = stored_half(max(fitted_min, F{}));
            F tried_loss[Groups], tried_total{}, total{};
            for (int g = 0; g < Groups; ++g) {
                tried_loss[g] = loss(tile, g, tried_d, tried_dmin, scales[g], minima[g]);
                tried_total += tried_loss[g];
                total += least[g];
            }
            const I better = tried_total < total;
            d = choose(better, tried_d, d);
            dmin = choose(better, tried_dmin, dmin);
            for (int g = 0; g < Groups; ++g) least[g] = choose(better, tried_loss[g], least[g]);
        }
    }

    static F loss(const Tile<Groups * K>& tile, int g, F d, F dmin, F scale, F minimum) {
        const F step = d * scale, factor = inverse(step), from = dmin * minimum;
        const F *x = tile.x + g * K, *w = tile.w + g * K;
        F sum{};
        for (int i = 0; i < K; ++i) {
            const F error = x[i] - (step * Levels::nearest((x[i] + from) * factor) - from);
            sum += w[i] * error * error;
        }
        return sum;
    }

    Codes<Groups * K> codes(const Tile<Groups * K>& tile) const {
        Codes<Groups * K> codes;
        for (int i = 0; i < Groups * K; ++i) {
            const int g = i / K;
            codes.set(i, Levels::nearest((tile.x[i] + dmin * minima[g]) * inverse(d * scales[g])));
        }
        return codes;
    }
};
