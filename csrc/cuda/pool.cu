// Means over boxes and sums of rows, forward and backward: each block of threads owns a row of the result, and adds
// in a fixed order.

#include "pool.h"

#include "call.h"
#include "device.cuh"
#include "scan.cuh"

namespace relvlm {
namespace {

constexpr int THREADS = 128;

struct Box {
  int x0, y0, x1, y1;

  __device__ __forceinline__ int patches() const { return (x1 - x0) * (y1 - y0); }
  __device__ __forceinline__ bool holds(int x, int y) const { return x >= x0 && x < x1 && y >= y0 && y < y1; }
};

__device__ __forceinline__ Box box_of(const BoxMean& call, int group) {
  const int32_t* const b = call.box + 4 * group;
  const Box box = {b[0], b[1], b[2], b[3]};
  const bool inside = box.x0 >= 0 && box.y0 >= 0 && box.x1 <= call.grid_columns && box.y1 <= call.grid_rows;
  if (!inside || box.x0 >= box.x1 || box.y0 >= box.y1) refuse();
  return box;
}

template <class T>
__global__ void __launch_bounds__(THREADS) means_of_boxes(BoxMean call) {
  const int group = blockIdx.x, prefix = call.tokens - call.grid_rows * call.grid_columns;
  const Box box = box_of(call, group);
  const bool there = call.image[group] >= 0 && call.image[group] < call.images;
  const T* const image = static_cast<const T*>(call.source) + (there ? call.image[group] * call.source_image : 0);
  T* const to = static_cast<T*>(call.to) + int64_t(group) * call.width;
  for (int d = threadIdx.x; d < call.width; d += THREADS) {
    float sum = 0;
    for (int y = box.y0; there && y < box.y1; ++y) {
      const T* const row = image + (prefix + y * call.grid_columns) * call.source_row + d;
#pragma unroll 4
      for (int x = box.x0; x < box.x1; ++x) sum += to_float(row[x * call.source_row]);
    }
    store_one(to + d, sum / float(box.patches()));
  }
}

// A block owns one token of one image; the groups whose box holds it are found THREADS at a time.
template <class T>
__global__ void __launch_bounds__(THREADS) spread_over_boxes(BoxMean call) {
  constexpr int columns = 8;  // at most, of a thread: `width` is up to columns * THREADS per blockIdx.z
  const int token = blockIdx.x, image = blockIdx.y, first = blockIdx.z * columns * THREADS + int(threadIdx.x);
  const int patch = token - (call.tokens - call.grid_rows * call.grid_columns);
  const int y = patch < 0 ? -1 : patch / call.grid_columns, x = patch - y * call.grid_columns;
  int* const found = reinterpret_cast<int*>(shared_memory() + SCAN_BYTES<THREADS>);
  const T* const from = static_cast<const T*>(call.source);
  float sums[columns] = {};
  for (int start = 0; start < call.count; start += THREADS) {
    const int group = start + int(threadIdx.x);
    const bool owns = group < call.count && call.image[group] == image && box_of(call, group).holds(x, y);
    int total;
    const int place = block_scan<THREADS>(owns, total);
    if (owns) found[place] = group;
    __syncthreads();
    for (int i = 0; i < total; ++i) {
      const float share = 1.f / float(box_of(call, found[i]).patches());
#pragma unroll
      for (int c = 0; c < columns; ++c)
        if (first + c * THREADS < call.width)
          sums[c] += share * to_float(from[found[i] * call.source_row + first + c * THREADS]);
    }
    __syncthreads();
  }
  T* const to = static_cast<T*>(call.to) + (int64_t(image) * call.tokens + token) * call.width;
#pragma unroll
  for (int c = 0; c < columns; ++c)
    if (first + c * THREADS < call.width) store_one(to + first + c * THREADS, sums[c]);
}

template <class T>
__global__ void __launch_bounds__(THREADS) sums_of_rows(RowSums call) {
  const int row = blockIdx.x;
  const T* const from = static_cast<const T*>(call.source);
  for (int d = threadIdx.x; d < call.width; d += THREADS) {
    float sum = 0;
#pragma unroll 4
    for (int64_t i = call.starts[row]; i < call.starts[row + 1]; ++i)
      sum += to_float(from[call.places[i] * call.width + d]);
    store_one(static_cast<T*>(call.to) + int64_t(row) * call.width + d, sum);
  }
}

template <class T>
int box_mean_of(const BoxMean& call) {
  if (!call.backward) return launch(means_of_boxes<T>, dim3(call.count), THREADS, 0, call.stream, call);
  const dim3 grid(call.tokens, call.images, (call.width + 8 * THREADS - 1) / (8 * THREADS));
  const size_t shared = SCAN_BYTES<THREADS> + THREADS * sizeof(int);
  return launch(spread_over_boxes<T>, grid, THREADS, shared, call.stream, call);
}

template <class T>
int row_sums_of(const RowSums& call) {
  return launch(sums_of_rows<T>, dim3(call.rows), THREADS, 0, call.stream, call);
}

}  // namespace

int box_mean(const BoxMean& call) {
  if (call.element == BFLOAT16) return box_mean_of<Bfloat16>(call);
  return call.element == FLOAT16 ? box_mean_of<Half>(call) : box_mean_of<float>(call);
}

int row_sums(const RowSums& call) {
  if (call.element == BFLOAT16) return row_sums_of<Bfloat16>(call);
  return call.element == FLOAT16 ? row_sums_of<Half>(call) : row_sums_of<float>(call);
}

}  // namespace relvlm
