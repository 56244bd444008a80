// The parts of the module torchgguf._native, each in its own file. Only csrc/python knows Python.
#pragma once

#include <nanobind/nanobind.h>

namespace torchgguf {

void bind_container(nanobind::module_& m);
void bind_isa(nanobind::module_& m);
void bind_kernels(nanobind::module_& m);
void bind_layouts(nanobind::module_& m);
void bind_plan(nanobind::module_& m);
void bind_recurrences(nanobind::module_& m);

}  // namespace torchgguf
