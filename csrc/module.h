// What every bind_*.cpp needs. Only these files and module.cpp know Python.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

namespace torchgguf {}
