// Products of 16x16 blocks on tensor cores, one block of each operand held by a warp.
//
// The result of a product lies as the tensor cores leave it: lane l holds rows l / 4 and l / 4 + 8, and in each
// half of eight columns the two from 2 (l % 4) on: Block[half][0..1] of the first row, Block[half][2..3] of the
// second. `left_of` makes it the left operand of the next product without any exchange.
//
// float32: each number is split into two of 11 bits, and three products of the parts, added in fp32 outside of the
// tensor cores (which truncate their sums), give the whole one to fp32's rounding ("3xTF32").
#pragma once

#include "device.cuh"

namespace relvlm {

using Block = float[2][4];

template <class T>
struct Left {
  uint32_t at[4];
};

template <class T>
struct Right {
  uint32_t at[2][2];  // [half of columns][half of rows]
};

template <>
struct Left<float> {
  Block at;
};

// The inner dimension goes through both operands in the order of `Block`'s columns.
template <>
struct Right<float> {
  float at[2][2][2];
};

// Row and first column of this lane's first pair in a `Block`.
__device__ __forceinline__ int block_row() { return lane_id() / 4; }
__device__ __forceinline__ int block_column() { return lane_id() % 4 * 2; }

// Left operand from rows in shared memory.
template <class T>
__device__ __forceinline__ void load(Left<T>& to, const T* rows, int stride) {
  load_matrices(to.at, rows + lane_id() % 16 * stride + lane_id() / 16 * 8);
}

__device__ __forceinline__ void load(Left<float>& to, const float* rows, int stride) {
  const float* const from = rows + block_row() * stride + block_column();
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int e = 0; e < 4; ++e) to.at[half][e] = from[e / 2 * 8 * stride + half * 8 + e % 2];
}

// Right operand whose columns are rows of shared memory: K in Q K^T.
template <class T>
__device__ __forceinline__ void load_columns(Right<T>& to, const T* rows, int stride) {
  uint32_t at[4];
  load_matrices(at, rows + (lane_id() % 8 + lane_id() / 16 * 8) * stride + lane_id() / 8 % 2 * 8);
#pragma unroll
  for (int i = 0; i < 4; ++i) to.at[i / 2][i % 2] = at[i];
}

__device__ __forceinline__ void load_columns(Right<float>& to, const float* rows, int stride) {
  const float* const from = rows + block_row() * stride + block_column();
#pragma unroll
  for (int i = 0; i < 8; ++i) to.at[i / 4][i / 2 % 2][i % 2] = from[i / 4 * 8 * stride + i / 2 % 2 * 8 + i % 2];
}

// Right operand whose rows are rows of shared memory: V in P V.
template <class T>
__device__ __forceinline__ void load_rows(Right<T>& to, const T* rows, int stride) {
  uint32_t at[4];
  load_matrices_transposed(at, rows + lane_id() % 16 * stride + lane_id() / 16 * 8);
#pragma unroll
  for (int i = 0; i < 4; ++i) to.at[i / 2][i % 2] = at[i];
}

__device__ __forceinline__ void load_rows(Right<float>& to, const float* rows, int stride) {
  const float* const from = rows + block_column() * stride + block_row();
#pragma unroll
  for (int i = 0; i < 8; ++i) to.at[i / 4][i / 2 % 2][i % 2] = from[(i / 2 % 2 * 8 + i % 2) * stride + i / 4 * 8];
}

template <class T>
__device__ __forceinline__ Left<T> left_of(const Block& x) {
  return {pack(x[0][0], x[0][1], T{}), pack(x[0][2], x[0][3], T{}), pack(x[1][0], x[1][1], T{}),
          pack(x[1][2], x[1][3], T{})};
}

template <>
__device__ __forceinline__ Left<float> left_of<float>(const Block& x) {
  Left<float> to;
#pragma unroll
  for (int i = 0; i < 8; ++i) to.at[i / 4][i % 4] = x[i / 4][i % 4];
  return to;
}

// c += a b.
template <class T>
__device__ __forceinline__ void multiply(Block& c, const Left<T>& a, const Right<T>& b) {
  mma(c[0], a.at, b.at[0], T{});
  mma(c[1], a.at, b.at[1], T{});
}

struct Split {
  float high, low;
};

__device__ __forceinline__ Split split(float x) {
  const float high = to_tf32(x);
  return {high, to_tf32(x - high)};
}

__device__ __forceinline__ void multiply(Block& c, const Left<float>& a, const Right<float>& b) {
#pragma unroll
  for (int inner = 0; inner < 2; ++inner) {
    float high[4], low[4];
    constexpr int order[4] = {0, 2, 1, 3};  // of the tensor cores' own left operand: columns last
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const Split s = split(a.at[inner][order[e]]);
      high[e] = s.high, low[e] = s.low;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Split x = split(b.at[half][inner][0]), y = split(b.at[half][inner][1]);
      const float b_high[2] = {x.high, y.high}, b_low[2] = {x.low, y.low};
      float sum[4] = {0, 0, 0, 0};
      mma_tf32(sum, low, b_high);
      mma_tf32(sum, high, b_low);
      mma_tf32(sum, high, b_high);
#pragma unroll
      for (int e = 0; e < 4; ++e) c[half][e] += sum[e];
    }
  }
}

// Sum or largest over the four lanes that share a row of a `Block`.
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(ALL, x, 1);
  return x + __shfl_xor_sync(ALL, x, 2);
}

__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(ALL, x, 1));
  return fmaxf(x, __shfl_xor_sync(ALL, x, 2));
}

// A pair of neighbours in shared memory.
template <class T>
__device__ __forceinline__ void store_pair(T* to, float first, float second) {
  *reinterpret_cast<uint32_t*>(to) = pack(first, second, T{});
}

__device__ __forceinline__ void store_pair(float* to, float first, float second) {
  to[0] = first;
  to[1] = second;
}

}  // namespace relvlm
