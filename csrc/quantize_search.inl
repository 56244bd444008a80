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
    float values[16], middles[16];
    template <int N>
    constexpr explicit LevelTable(const float (&levels)[N]) : values{}, middles{} {
        for (int i = 0; i < 16; ++i) values[i] = levels[i < N ? i : N - 1];
        for (int i = 0; i < 16; ++i) middles[i] = i < N - 1 ? (levels[i] + levels[i + 1]) / 2 : 0x1p127f;
    }
    // How many of the middles between two levels lie below x.
    I index_of_nearest(F x) const {
        I index{};
        for (const int step : kHalves) index += (x > look_up(middles, index + (step - 1))) & step;
        return index;
    }
    F nearest(F x) const { return look_up(values, index_of_nearest(x)); }

private:
    static constexpr int kHalves[] = {8, 4, 2, 1};
};

// Calls use(i, level) for the level nearest to each x[i] * factor, be it found by itself or in a grid.
template <class Levels, int K, class Use>
inline void for_each_level(const F* x, const F* w, F factor, Use use) {
    if constexpr (requires { Levels::template nearest_group<K>(x, w, factor, nullptr); }) {
        F levels[K];
        Levels::template nearest_group<K>(x, w, factor, levels);
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

struct Fit {
    F scale{}, curvature{};
};

template <class Levels, int K>
inline Fit fit_scale(const F* x, const F* w) {
    F wx[K], extreme = x[0];
    for (int i = 0; i < K; ++i) {
        wx[i] = w[i] * x[i];
        extreme = choose(magnitude(x[i]) > magnitude(extreme), x[i], extreme);
    }
    const F per_unit = inverse(positive_scales<Levels> ? magnitude(extreme) : extreme);
    Fit best;
    F best_gain{};
    const auto attempt = [&](F factor) {
        F wxq{}, wqq{};
        for_each_level<Levels, K>(x, w, factor, [&](int i, F q) {
            wxq += wx[i] * q;
            wqq += w[i] * q * q;
        });
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
        attempt(inverse(best.scale));
    }
    attempt(inverse(best.scale));
    return best;
}

// Factor and scales of a block of `Groups` groups of K weights each.
template <class Levels, class ScaleLevels, int Groups, int K>
struct BlockScales {
    F d, scales[Groups];

    explicit BlockScales(const Tile<Groups * K>& tile) {
        F scale[Groups], curvature[Groups], least[Groups];
        for (int g = 0; g < Groups; ++g) {
            const Fit fit = fit_scale<Levels, K>(tile.x + g * K, tile.w + g * K);
            scale[g] = fit.scale;
            curvature[g] = fit.curvature;
        }
        d = stored_half(fit_scale<ScaleLevels, Groups>(scale, curvature).scale);
        for (int g = 0; g < Groups; ++g) {
            scales[g] = ScaleLevels::nearest(scale[g] * inverse(d));
            least[g] = loss(tile, g, d, scales[g]);
        }
        for (int round = 0; round < kRounds; ++round) {
            F scaled_wxq{}, scaled_wqq{};
            for (int g = 0; g < Groups; ++g) {
                const F middle = scales[g];
                for (const float move : kNeighbours) {
                    const F tried = ScaleLevels::nearest(middle + move * spacing<ScaleLevels>);
                    const F tried_loss = loss(tile, g, d, tried);
                    const I better = tried_loss < least[g];
                    scales[g] = choose(better, tried, scales[g]);
                    least[g] = choose(better, tried_loss, least[g]);
                }
                const F factor = inverse(d * scales[g]), *x = tile.x + g * K, *w = tile.w + g * K;
                F wxq{}, wqq{};
                for_each_level<Levels, K>(x, w, factor, [&](int i, F q) {
                    wxq += w[i] * x[i] * q;
                    wqq += w[i] * q * q;
                });
                scaled_wxq += wxq * scales[g];
                scaled_wqq += wqq * scales[g] * scales[g];
            }
            const F tried_d = stored_half(quotient(scaled_wxq, scaled_wqq));
            F tried_loss[Groups], tried_total{}, total{};
            for (int g = 0; g < Groups; ++g) {
                tried_loss[g] = loss(tile, g, tried_d, scales[g]);
                tried_total += tried_loss[g];
                total += least[g];
            }
            const I better = tried_total < total;
            d = choose(better, tried_d, d);
            for (int g = 0; g < Groups; ++g) least[g] = choose(better, tried_loss[g], least[g]);
        }
    }

    static F loss(const Tile<Groups * K>& tile, int g, F d, F scale) {
        const F step = d * scale, factor = inverse(step), *x = tile.x + g * K, *w = tile.w + g * K;
        F sum{};
        for_each_level<Levels, K>(x, w, factor, [&](int i, F q) {
            const F error = x[i] - step * q;
            sum += w[i] * error * error;
        });
        return sum;
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

template <class Levels, int K, bool OffsetBelowZero>
inline Line fit_line(const F* x, const F* w) {
    F low = x[0], high = x[0];
    for (int i = 1; i < K; ++i) {
        low = min(low, x[i]);
        high = max(high, x[i]);
    }
    if (OffsetBelowZero) low = min(low, F{});
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
        if (OffsetBelowZero) offset = min(offset, -low);
        const F scale = quotient(wqy - offset * sum_wq, wqq);
        const F gain = scale * (2 * wqy - scale * wqq - 2 * offset * sum_wq) +
                       offset * (2 * sum_wy - offset * sum_w);
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

// Factors, scales and minima of a block of `Groups` groups of K weights each.
template <class Levels, class ScaleLevels, int Groups, int K>
struct BlockLines {
    F d, dmin, scales[Groups], minima[Groups];

    explicit BlockLines(const Tile<Groups * K>& tile) {
        F scale[Groups], minimum[Groups], curvature[Groups], sum_w[Groups], sum_wx[Groups], least[Groups];
        for (int g = 0; g < Groups; ++g) {
            const F *x = tile.x + g * K, *w = tile.w + g * K;
            const Line line = fit_line<Levels, K, true>(x, w);
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
