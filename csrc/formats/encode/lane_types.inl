// Numbers of kLanes blocks side by side, in the compiler's own vectors: lane b is what belongs to block b.
// Nothing ever crosses lanes, so how many there are changes no result.

using F = float __attribute__((vector_size(4 * kLanes)));
using I = int32_t __attribute__((vector_size(4 * kLanes)));

// The numbers of the lanes, for what wants them at compile time.
template <int...>
struct Sequence {};
template <int Count, int... Rest>
struct CountUp : CountUp<Count - 1, Count - 1, Rest...> {};
template <int... Numbers>
struct CountUp<0, Numbers...> {
    using type = Sequence<Numbers...>;
};
using EachLane = CountUp<kLanes>::type;

inline F all(float x) { return F{} + x; }
inline F choose(I where, F a, F b) { return where ? a : b; }
