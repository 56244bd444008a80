// The table of block layouts (formats/layouts.h), for kernels that are not written in C++.
#include "formats/layouts.h"
#include "python/module.h"

namespace nb = nanobind;

namespace torchgguf {
namespace {

nb::dict describe(const Field& field) {
    nb::dict entry;
    entry["kind"] = kKindNames[static_cast<int>(field.kind)];
    entry["offset"] = field.at;
    entry["count"] = field.count;
    if (field.kind == Kind::codes) {
        entry["bits"] = field.bits;
        entry["run"] = field.run;
        entry["shift"] = field.shift;
        entry["zero"] = int{field.zero};
    } else {
        entry["step"] = field.step;
    }
    return entry;
}

template <class Type>
nb::dict describe() {
    nb::dict fields;
    for (const Field& field : Type::fields) fields[static_cast<const char*>(field.name)] = describe(field);
    nb::dict entry;
    entry["id"] = Type::id;
    entry["block_size"] = Type::block_size;
    entry["type_size"] = Type::type_size;
    if constexpr (requires { Type::grid; }) entry["grid"] = nb::make_tuple(Type::grid.entries, Type::grid.dim);
    entry["fields"] = fields;
    return entry;
}

template <class... Types>
nb::dict describe_all(TypeList<Types...>) {
    nb::dict layouts;
    ((layouts[static_cast<const char*>(Types::name)] = describe<Types>()), ...);
    return layouts;
}

}  // namespace

void bind_layouts(nb::module_& m) {
    m.def(
        "layouts", [] { return describe_all(AllTypes{}); },
        nb::sig("def layouts() -> dict[str, dict[str, typing.Any]]"),
        "Return the table of block layouts; torchgguf.quants.layouts explains it.");
}

}  // namespace torchgguf
