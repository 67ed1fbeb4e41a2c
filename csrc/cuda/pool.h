// Calls of the two pooling ops. Mirrored by relvlm_kernels/cuda/library.py; strides count elements.
#pragma once

#include <cstdint>

namespace relvlm {

// Forward: to (count, width) = mean over each box of source (images, tokens, width). Backward: to (images, tokens,
// width) = source (count, width) spread over the boxes. `to` is contiguous, rows of `source` are `source_row` apart.
struct BoxMean {
  const void* source;
  void* to;
  const int32_t *box, *image;
  void* stream;
  int64_t source_image, source_row;
  int32_t count, images, tokens, width, grid_rows, grid_columns;
  int32_t element, backward, device;
};

// out (pairs, features) = relu([h[subject]; h[object]] weight^T + bias). All contiguous; `width` is a multiple of 32.
struct PairLinear {
  const void *h, *weight, *bias;
  void* out;
  const int64_t *subject, *object;
  void* stream;
  int64_t rows;
  int32_t pairs, width, features;
  int32_t element, device;
};

// to (rows, width): row i is the sum of the rows places[starts[i]..starts[i + 1]) of source, in that order.
struct RowSums {
  const void* source;
  void* to;
  const int64_t *places, *starts;
  void* stream;
  int32_t rows, width;
  int32_t element, device;
};

int box_mean(const BoxMean& call);
int pair_linear(const PairLinear& call);
int row_sums(const RowSums& call);

}  // namespace relvlm
