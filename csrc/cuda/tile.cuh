// Rows of one head between global and shared memory.
#pragma once

#include "call.h"
#include "device.cuh"

namespace relvlm {

constexpr int THREADS = 128;  // four warps of 16 rows each
constexpr int WARP_ROWS = 16;

template <class T, int D>
struct Shape {
  // A row's padding keeps eight rows of one fragment in different banks.
  static constexpr int stride = D + 8;
  static constexpr int chunk = 16 / sizeof(T);  // elements of one copy
  static constexpr int chunks = D / chunk;
  static constexpr int keys = sizeof(T) == 4 ? 32 : 64;  // of a step through the keys
  static constexpr int queries = 32;                     // of a step through the queries
  static constexpr int inner = sizeof(T) == 4 || D > 96 ? 1 : 2; // products of scores ahead of each other
  static constexpr size_t row_bytes = stride * sizeof(T);
};

// Blocks of threads whose registers are to fit a multiprocessor at a time, as many as can be had without spilling:
// of the forward, and of the backward's two passes.
template <class T, int D, bool drops>
struct Blocks {
  static constexpr int narrow = sizeof(T) == 4 ? 2 : 4 - drops;  // heads of 32
  static constexpr int wide = sizeof(T) == 4 || D > 80 ? 2 : 3;
  static constexpr int forward = D <= 32 ? narrow : D == 80 ? 2 : wide;
  static constexpr int queries = D <= 32 ? narrow : D == 80 || drops ? 2 : wide;
  static constexpr int keys = D <= 32 ? narrow : D == 80 ? 2 : wide;
};

// One head of a (rows, heads, width) tensor.
template <class T>
struct Head {
  const T* data;
  int64_t row;
  __device__ __forceinline__ const T* operator[](int64_t i) const { return data + i * row; }
};

template <class T>
__device__ __forceinline__ Head<T> head_of(const void* data, int64_t row, int64_t head_stride, int head) {
  return {static_cast<const T*>(data) + head * head_stride, row};
}

// Rows `begin`.. of an item's keys; those from `end` on become zeros.
template <class T, int D, int rows>
__device__ __forceinline__ void copy_keys(T* to, const Head<T>& from, int64_t begin, int64_t end) {
  using S = Shape<T, D>;
#pragma unroll 4
  for (int i = threadIdx.x; i < rows * S::chunks; i += THREADS) {
    const int row = i / S::chunks, column = i % S::chunks * S::chunk;
    const bool valid = begin + row < end;
    copy_async(to + row * S::stride + column, valid ? from[begin + row] + column : from.data, valid);
  }
}

// Places `begin`.. of the plan; those from `end` on become zeros. `b` goes with `a`.
template <class T, int D, int rows>
__device__ __forceinline__ void copy_queries(T* to_a, const Head<T>& a, T* to_b, const Head<T>& b, const View* views,
                                             int begin, int end) {
  using S = Shape<T, D>;
#pragma unroll 4
  for (int i = threadIdx.x; i < rows * S::chunks; i += THREADS) {
    const int place = i / S::chunks, column = i % S::chunks * S::chunk;
    const bool valid = begin + place < end;
    const int row = valid ? views[begin + place].row : 0;
    copy_async(to_a + place * S::stride + column, a[row] + column, valid);
    if (to_b) copy_async(to_b + place * S::stride + column, b[row] + column, valid);
  }
}

struct alignas(16) Chunk {
  uint32_t words[4];
};

// A warp's 16 rows, from the lanes' blocks by way of shared memory (of this warp alone) to rows of `to` that are
// `row_stride` apart: whole cache lines. `row_of` maps 0..15 to a row, or to -1.
template <class T, int D, class RowOf>
__device__ __forceinline__ void store_rows(float (&blocks)[D / 16][2][4], float scale0, float scale1, T* scratch,
                                           T* to, int64_t row_stride, RowOf row_of) {
  using S = Shape<T, D>;
  __syncwarp();
  T* const pair = scratch + lane_id() / 4 * S::stride + lane_id() % 4 * 2;
#pragma unroll
  for (int d = 0; d < D / 8; ++d) {
    const float* const x = blocks[d / 2][d % 2];
    store_pair(pair + d * 8, x[0] * scale0, x[1] * scale0);
    store_pair(pair + 8 * S::stride + d * 8, x[2] * scale1, x[3] * scale1);
  }
  __syncwarp();
#pragma unroll 1
  for (int i = lane_id(); i < WARP_ROWS * S::chunks; i += WARP) {
    const int row = row_of(i / S::chunks), column = i % S::chunks * S::chunk;
    if (row < 0) continue;
    const Chunk chunk = *reinterpret_cast<const Chunk*>(scratch + i / S::chunks * S::stride + column);
    *reinterpret_cast<Chunk*>(to + row * row_stride + column) = chunk;
  }
}

}  // namespace relvlm
