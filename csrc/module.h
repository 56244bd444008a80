// What every bind_*.cpp needs. Only these files and module.cpp know Python.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <cstdint>

namespace torchgguf {

template <class T>
T* pointer(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

// Throws what says why, if a type was not `decoded`.
void check(bool decoded, int type);

void bind_linear(nanobind::module_& m);
void bind_quants(nanobind::module_& m);
void bind_container(nanobind::module_& m);

}  // namespace torchgguf
