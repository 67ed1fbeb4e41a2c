// The C ABI of the CUDA op: no header of torch or Python, so that one library serves every version of both.

#include "attention.h"
#include "pool.h"

namespace relvlm {
namespace {

constexpr int NO_SUCH_KERNEL = -1;

template <class T, int D>
int run(const Call& call) {
  return call.backward ? Attention<T, D>::backward(call) : Attention<T, D>::forward(call);
}

template <class T>
int run_width(const Call& call) {
  switch (call.width) {
#define RELVLM_CASE(width) \
  case width: return run<T, width>(call);
    RELVLM_WIDTHS(RELVLM_CASE)
#undef RELVLM_CASE
    default: return NO_SUCH_KERNEL;
  }
}

int run_element(const Call& call) {
  switch (call.element) {
#define RELVLM_CASE(element, T) \
  case element: return run_width<T>(call);
    RELVLM_ELEMENTS(RELVLM_CASE)
#undef RELVLM_CASE
    default: return NO_SUCH_KERNEL;
  }
}

}  // namespace
}  // namespace relvlm

using namespace relvlm;

extern "C" {

// 0, an error of CUDA, or -1 where there is no kernel for the element or width.
int32_t relvlm_cuda_attention(const Call* call) {
  int error = cudaSetDevice(call->device);
  if (!error) error = make_plan(*call);
  return error ? error : run_element(*call);
}

#define RELVLM_POOL(name, Type)                               \
  int32_t relvlm_cuda_##name(const Type* call) {              \
    const int error = cudaSetDevice(call->device);            \
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
