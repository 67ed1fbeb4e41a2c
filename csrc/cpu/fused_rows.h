// Passes over rows that follow a matrix product: dropout, residual and LayerNorm in one, bias and GELU in another.
// Both are mirrored by relvlm_kernels/cpu/library.py; a table of kernels per instruction set, as in attention.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace relvlm {

constexpr int64_t ROWS_OF_A_BLOCK = 64;  // gradients of columns are summed by block, and then block by block

// total = residual + dropout(x), out = LayerNorm(total); all of one type, mean and rstd of that of the sums.
struct AddNorm {
  const void *x, *residual, *weight, *shift;
  void *out, *total, *mean, *rstd;
  const void* grad;
  void *dresidual, *dx;  // without dropout dx is null: it is dresidual
  void *dweight, *dshift;
  int64_t rows, width;
  double eps, keep_scale;
  uint64_t seed;
  uint32_t drop_below;
  int32_t type, backward, threads;
};

// out = gelu(x + bias), by erf; backward also dx, in place of the gradient if that is where it points.
struct BiasGelu {
  const void *x, *bias, *grad;
  void *out, *dx, *dbias;
  int64_t rows, width;
  int32_t type, backward, threads;
};

// Rows [begin, end). `sums`: of the block, two (of AddNorm: weight, shift) or one row in the arithmetic's type.
struct RowKernels {
  const char* name;
  size_t (*bytes)(int64_t width, int32_t type);  // of scratch
  void (*add_norm)(const AddNorm&, int64_t begin, int64_t end, void* scratch);
  void (*add_norm_backward)(const AddNorm&, int64_t begin, int64_t end, void* sums, void* scratch);
  void (*bias_gelu)(const BiasGelu&, int64_t begin, int64_t end, void* scratch);
  void (*bias_gelu_backward)(const BiasGelu&, int64_t begin, int64_t end, void* sums, void* scratch);
  // Rows of columns, one a block, added up into a tensor.
  void (*add_blocks)(const void* sums, int64_t blocks, int64_t stride, int64_t width, int32_t type, void* to);
};

extern const RowKernels rows_baseline;
extern const RowKernels rows_avx2;
extern const RowKernels rows_avx512;

}  // namespace relvlm
