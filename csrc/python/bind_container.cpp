// The strings of a GGUF header in bulk: each is a 64-bit length and that many bytes. A vocabulary has hundreds
// of thousands of them, which a Python loop takes a tenth of a second to walk.
#include <bit>
#include <cstdint>
#include <cstring>
#include <utility>

#include "python/module.h"

namespace nb = nanobind;

namespace torchgguf {
namespace {

constexpr size_t kLengthBytes = sizeof(uint64_t);

// A read-only view of any object with the buffer protocol, released at the end of the scope.
class Bytes {
public:
    explicit Bytes(nb::handle object) {
        if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_SIMPLE) != 0) throw nb::python_error();
    }
    ~Bytes() { PyBuffer_Release(&view_); }
    Bytes(const Bytes&) = delete;
    Bytes& operator=(const Bytes&) = delete;

    const char* data() const { return static_cast<const char*>(view_.buf); }
    size_t size() const { return static_cast<size_t>(view_.len); }

private:
    Py_buffer view_;
};

uint64_t load_length(const char* from, bool big_endian) {
    uint64_t length;
    std::memcpy(&length, from, kLengthBytes);
    return big_endian == (std::endian::native == std::endian::big) ? length : __builtin_bswap64(length);
}

// Calls visit(bytes, length) for up to `count` strings from `offset` on, as long as they lie inside the buffer.
// Returns how many did, and where the first that did not (or that was not asked for) begins.
template <class Visit>
std::pair<size_t, size_t> walk(const Bytes& bytes, size_t offset, size_t count, bool big_endian, Visit&& visit) {
    for (size_t i = 0; i < count; ++i) {
        if (offset > bytes.size() || bytes.size() - offset < kLengthBytes) return {i, offset};
        const uint64_t length = load_length(bytes.data() + offset, big_endian);
        if (length > bytes.size() - offset - kLengthBytes) return {i, offset};
        offset += kLengthBytes;
        visit(bytes.data() + offset, static_cast<size_t>(length));
        offset += static_cast<size_t>(length);
    }
    return {count, offset};
}

nb::tuple skip_strings(nb::handle buffer, size_t offset, size_t count, bool big_endian) {
    const Bytes bytes(buffer);
    const auto [walked, end] = walk(bytes, offset, count, big_endian, [](const char*, size_t) {});
    return nb::make_tuple(walked, end);
}

nb::tuple decode_strings(nb::handle buffer, size_t offset, size_t count, bool big_endian) {
    const Bytes bytes(buffer);
    // First without allocating: a count that the buffer cannot hold must not size the list.
    if (walk(bytes, offset, count, big_endian, [](const char*, size_t) {}).first != count)
        throw nb::value_error("the strings run past the end of the buffer");
    nb::list strings = nb::steal<nb::list>(PyList_New(static_cast<Py_ssize_t>(count)));
    if (!strings.is_valid()) throw nb::python_error();
    Py_ssize_t next = 0;
    const auto decode = [&](const char* from, size_t length) {
        PyObject* text = PyUnicode_DecodeUTF8(from, static_cast<Py_ssize_t>(length), "surrogateescape");
        if (text == nullptr) throw nb::python_error();
        PyList_SetItem(strings.ptr(), next++, text);
    };
    const size_t end = walk(bytes, offset, count, big_endian, decode).second;
    return nb::make_tuple(strings, end);
}

}  // namespace

void bind_container(nb::module_& m) {
    m.def("skip_strings", &skip_strings, nb::arg("buffer"), nb::arg("offset"), nb::arg("count"), nb::arg("big_endian"),
          nb::sig("def skip_strings(buffer: typing_extensions.Buffer, offset: int, count: int, big_endian: bool)"
                  " -> tuple[int, int]"),
          "Return how many of `count` strings from `offset` on lie inside the buffer, and where they end.");
    m.def("decode_strings", &decode_strings, nb::arg("buffer"), nb::arg("offset"), nb::arg("count"),
          nb::arg("big_endian"),
          nb::sig("def decode_strings(buffer: typing_extensions.Buffer, offset: int, count: int, big_endian: bool)"
                  " -> tuple[list[str], int]"),
          "Decode `count` strings from `offset` on; return them, and where the next one begins.");
}

}  // namespace torchgguf
