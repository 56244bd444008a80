// Sixteen bytes at a time, for every instruction set: the compiler's own vectors, which are registers on x86
// and ARM alike. Included inside an unnamed namespace; formats/decode/types.inl explains why.

using u8x16 = uint8_t __attribute__((vector_size(16)));
using u32x4 = uint32_t __attribute__((vector_size(16)));
using u64x2 = uint64_t __attribute__((vector_size(16)));

template <class T>
inline T load(const void* src) {  // at any alignment
    T value;
    __builtin_memcpy(&value, src, sizeof value);
    return value;
}

template <class To, class From>
inline To bits_as(From value) {
    static_assert(sizeof(To) == sizeof(From));
    return load<To>(&value);
}

inline u8x16 all_bytes(uint8_t value) { return u8x16{} + value; }

inline u8x16 load16(const uint8_t* src) { return load<u8x16>(src); }
