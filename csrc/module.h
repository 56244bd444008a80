// What every bind_*.cpp needs. Only these files and module.cpp know Python.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

namespace torchgguf {

void bind_linear(nanobind::module_& m);
void bind_quants(nanobind::module_& m);
void bind_container(nanobind::module_& m);

}  // namespace torchgguf
