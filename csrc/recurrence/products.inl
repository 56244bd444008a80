// Products of small matrices, a tile of the result in registers at a time.

// A matrix whose element (i, j) is at data[i * row + j * column]: read one at a time.
struct Elements {
    const float* data;
    int64_t row, column;

    Elements from(int64_t i, int64_t j) const { return {data + i * row + j * column, row, column}; }
};

// A matrix whose rows are vectors.
struct Rows {
    float* data;
    int64_t row;

    Rows from(int64_t i, int64_t j) const { return {data + i * row + j, row}; }
};

constexpr int kTileRows = 4;

template <int rows, int vectors>
inline void multiply_tile(Elements a, Rows b, Rows c, int64_t depth, bool add) {
    F sums[rows][vectors];
    for (int i = 0; i < rows; ++i) {
        for (int j = 0; j < vectors; ++j) sums[i][j] = add ? load(c.data + i * c.row + j * kLanes) : F{};
    }
    for (int64_t k = 0; k < depth; ++k) {
        F row[vectors];
        for (int j = 0; j < vectors; ++j) row[j] = load(b.data + k * b.row + j * kLanes);
        for (int i = 0; i < rows; ++i) {
            const float factor = a.data[i * a.row + k * a.column];
            for (int j = 0; j < vectors; ++j) sums[i][j] += factor * row[j];
        }
    }
    for (int i = 0; i < rows; ++i) {
        for (int j = 0; j < vectors; ++j) store(c.data + i * c.row + j * kLanes, sums[i][j]);
    }
}

template <int vectors>
inline void multiply_columns(int64_t rows, int64_t depth, Elements a, Rows b, Rows c, bool add) {
    int64_t i = 0;
    for (; i + kTileRows <= rows; i += kTileRows) {
        multiply_tile<kTileRows, vectors>(a.from(i, 0), b, c.from(i, 0), depth, add);
    }
    for (; i < rows; ++i) multiply_tile<1, vectors>(a.from(i, 0), b, c.from(i, 0), depth, add);
}

// c = a b, or c += a b if `add`: a is (rows, depth), b is (depth, columns). Columns are rounded up to whole vectors.
inline void multiply(int64_t rows, int64_t columns, int64_t depth, Elements a, Rows b, Rows c, bool add) {
    constexpr int64_t panel = kTileVectors * kLanes;
    int64_t j = 0;
    for (; j + panel <= round_up(columns); j += panel) {
        multiply_columns<kTileVectors>(rows, depth, a, b.from(0, j), c.from(0, j), add);
    }
    for (; j < columns; j += kLanes) multiply_columns<1>(rows, depth, a, b.from(0, j), c.from(0, j), add);
}

// The same where a is (rows, rows) and zero above the diagonal.
inline void multiply_lower(int64_t rows, int64_t columns, Elements a, Rows b, Rows c, bool add) {
    constexpr int64_t block = 2 * kTileRows;
    for (int64_t i = 0; i < rows; i += block) {
        const int64_t count = rows - i < block ? rows - i : block;
        multiply(count, columns, i + count, a.from(i, 0), b, c.from(i, 0), add);
    }
}

inline void copy_rows(const float* src, int64_t src_row, float* dst, int64_t dst_row, int64_t rows, int64_t columns) {
    for (int64_t i = 0; i < rows; ++i) __builtin_memcpy(dst + i * dst_row, src + i * src_row, columns * sizeof(float));
}

// dst(j, i) = src(i, j): four by four at a time.
inline void transpose(const float* src, int64_t src_row, float* dst, int64_t dst_row, int64_t rows, int64_t columns) {
    using Four = Floats<4>;
    for (int64_t j = 0; j < columns; j += 4) {
        const int64_t across = columns - j < 4 ? columns - j : 4;
        int64_t i = 0;
        for (; i + 4 <= rows && across == 4; i += 4) {
            Four from[4];
            for (int k = 0; k < 4; ++k) __builtin_memcpy(&from[k], src + (i + k) * src_row + j, sizeof(Four));
            for (int k = 0; k < 4; ++k) {
                const Four column = {from[0][k], from[1][k], from[2][k], from[3][k]};
                __builtin_memcpy(dst + (j + k) * dst_row + i, &column, sizeof(Four));
            }
        }
        for (; i < rows; ++i) {
            for (int64_t k = 0; k < across; ++k) dst[(j + k) * dst_row + i] = src[i * src_row + j + k];
        }
    }
}
