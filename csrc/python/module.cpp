#include "python/module.h"

NB_MODULE(_native, m) {
    m.doc() = "The native part, built from csrc/. Every function checks the tensors that it reads and writes.";
    torchgguf::bind_isa(m);
    torchgguf::bind_container(m);
    torchgguf::bind_layouts(m);
    torchgguf::bind_kernels(m);
    torchgguf::bind_recurrences(m);
    torchgguf::bind_plan(m);
}
