#include "python/tensor.h"

#include <algorithm>
#include <string>

namespace nb = nanobind;

namespace torchgguf {
namespace {

// The class torch.Tensor and its DLPack functions, which torch has from 2.10 on. They live as long as the process.
struct TorchTensor {
    PyTypeObject* type = nullptr;
    const dlpack::ExchangeApi* api = nullptr;
};

nb::object attribute(nb::handle object, const char* name) {
    nb::object found = nb::steal(PyObject_GetAttrString(object.ptr(), name));
    if (!found.is_valid()) PyErr_Clear();
    return found;
}

// Empty while torch is not imported: reading a file's header does without it.
TorchTensor find_torch_tensor() {
    const nb::object torch = nb::steal(PyImport_GetModule(nb::str("torch").ptr()));
    if (!torch.is_valid()) return {};
    nb::object type = attribute(torch, "Tensor");
    if (!type.is_valid()) return {};
    TorchTensor found;
    const nb::object capsule = attribute(type, "__dlpack_c_exchange_api__");
    if (capsule.is_valid()) {
        void* pointer = PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api");
        if (!pointer) PyErr_Clear();
        const auto* api = static_cast<const dlpack::ExchangeApi*>(pointer);
        if (api && api->version.major == dlpack::kMajorVersion && api->borrow) found.api = api;
    }
    found.type = reinterpret_cast<PyTypeObject*>(type.release().ptr());
    return found;
}

TorchTensor torch_tensor;  // the interpreter's lock guards it

}  // namespace

bool Tensor::load(nb::handle object) noexcept {
    if (!torch_tensor.type) torch_tensor = find_torch_tensor();
    if (torch_tensor.api && PyObject_TypeCheck(object.ptr(), torch_tensor.type)) {
        if (torch_tensor.api->borrow(object.ptr(), &view_) == 0) return true;
        PyErr_Clear();
        return false;
    }
    try {
        const bool requires_grad = nb::cast<bool>(nb::getattr(object, "requires_grad", nb::bool_(false)));
        if (!nb::try_cast(requires_grad ? object.attr("detach")() : nb::borrow(object), array_)) return false;
    } catch (...) {
        return false;
    }
    static_assert(sizeof(nb::dlpack::dtype) == sizeof(dlpack::DType));
    const nb::dlpack::dtype dtype = array_.dtype();
    view_ = {.data = array_.data(),
             .device = {array_.device_type(), array_.device_id()},
             .ndim = static_cast<int32_t>(array_.ndim()),
             .dtype = {static_cast<dlpack::DTypeCode>(dtype.code), dtype.bits, dtype.lanes},
             .shape = const_cast<int64_t*>(array_.shape_ptr()),
             .strides = const_cast<int64_t*>(array_.stride_ptr()),
             .byte_offset = 0};
    return true;
}

bool Tensor::is(const DType& dtype) const {
    const dlpack::DType own = view_.dtype, other = dtype.value;
    return own.code == other.code && own.bits == other.bits && own.lanes == other.lanes;
}

bool Tensor::is_empty() const {
    return std::find(view_.shape, view_.shape + view_.ndim, 0) != view_.shape + view_.ndim;
}

bool Tensor::is_contiguous() const {
    if (!view_.strides || is_empty()) return true;
    int64_t expected = 1;
    for (int i = view_.ndim - 1; i >= 0; --i) {
        if (view_.shape[i] != 1 && view_.strides[i] != expected) return false;
        expected *= view_.shape[i];
    }
    return true;
}

int64_t Tensor::columns(const char* name) const {
    if (view_.ndim == 0) throw nb::value_error((std::string(name) + " must have a dimension").c_str());
    return view_.shape[view_.ndim - 1];
}

int64_t Tensor::rows() const {
    int64_t rows = 1;
    for (int i = 0; i + 1 < view_.ndim; ++i) rows *= view_.shape[i];
    return rows;
}

void Tensor::require(const char* name, const DType& dtype) const {
    const char* missing = nullptr;
    if (!is(dtype)) {
        missing = dtype.name;
    } else if (view_.device.type != dlpack::kCpu) {
        missing = "on the CPU";
    } else if (!is_contiguous()) {
        missing = "contiguous";
    } else if (!view_.data && !is_empty()) {
        missing = "in memory";  // its storage was freed
    }
    if (missing) throw nb::value_error((std::string(name) + " must be " + missing).c_str());
}

}  // namespace torchgguf
