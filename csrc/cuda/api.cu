// The C ABI of the CUDA op: no header of torch or Python, so that one library serves every version of both.

#include "attention.h"
#include "pool.h"

namespace relvlm {
namespace {

constexpr int NO_SUCH_KERNEL = -1;

// What `work` makes of the kernels of an element and width.
template <class T, class Work>
int with_width(int32_t width, Work work) {
  switch (width) {
#define RELVLM_CASE(D) \
  case D: return work(Attention<T, D>{});
    RELVLM_WIDTHS(RELVLM_CASE)
#undef RELVLM_CASE
    default: return NO_SUCH_KERNEL;
  }
}

template <class Work>
int with_kernels(int32_t element, int32_t width, Work work) {
  switch (element) {
#define RELVLM_CASE(element, T) \
  case element: return with_width<T>(width, work);
    RELVLM_ELEMENTS(RELVLM_CASE)
#undef RELVLM_CASE
    default: return NO_SUCH_KERNEL;
  }
}

__global__ void nothing(int) {}

}  // namespace
}  // namespace relvlm

using namespace relvlm;

extern "C" {

// 0, an error of CUDA, or -1 where there is no kernel for the element or width.
int32_t relvlm_cuda_attention(const Call* call) {
  int error = use_device(call->device);
  if (!error) error = make_plan(*call);
  if (error) return error;
  return with_kernels(call->element, call->width, [&](auto kernels) {
    return call->backward ? kernels.backward(*call) : kernels.forward(*call);
  });
}

// Starts a kernel and waits for it: an error says why none of this library starts on the device.
int32_t relvlm_cuda_trial(int32_t device) {
  int error = use_device(device);
  if (!error) error = launch(nothing, dim3(1), WARP, 0, nullptr, 0);
  return error ? error : wait_for_device();
}

// Shared memory that a block of the attention kernels needs at most, and that a block can have.
int32_t relvlm_cuda_shared_bytes(int32_t element, int32_t width) {
  return with_kernels(element, width, [](auto kernels) { return kernels.shared_bytes(); });
}
int32_t relvlm_cuda_shared_limit(int32_t device) { return shared_limit(device); }

#define RELVLM_POOL(name, Type)                               \
  int32_t relvlm_cuda_##name(const Type* call) {              \
    const int error = use_device(call->device);               \
    return error ? error : name(*call);                       \
  }
RELVLM_POOL(box_mean, BoxMean)
RELVLM_POOL(pair_linear, PairLinear)
RELVLM_POOL(row_sums, RowSums)
#undef RELVLM_POOL

const char* relvlm_cuda_error(int32_t error) {
  return error == NO_SUCH_KERNEL ? "no kernel for this dtype or head width"
                                 : cudaGetErrorString(static_cast<cudaError_t>(error));
}

}  // extern "C"
