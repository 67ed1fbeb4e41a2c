// Who sees what, as bits made from the corners of boxes: no mask is ever stored.
#pragma once

#include "call.h"
#include "device.cuh"

namespace relvlm {

// The keys of an image: prefix tokens, then patches row by row. Sequences are images of one row without prefix.
struct Grid {
  int prefix, columns;
  float inverse;  // of columns

  __device__ explicit Grid(const Index& index)
      : prefix(index.tokens - index.grid_rows * index.grid_columns),
        columns(index.grid_columns ? index.grid_columns : 1 << 30),
        inverse(1.f / float(columns)) {}

  // Exact: the next whole number is at least half a column away.
  __device__ __forceinline__ int row_of(int patch) const { return int((float(patch) + 0.5f) * inverse); }
};

// Ones from bit `first` on: all 32 where it lies before them, none where it lies after.
__device__ __forceinline__ uint32_t bits_from(int first) { return shift_left(~0u, max(first, 0)); }

// Bit i: whether key `key` + i is a patch of the view's box.
__device__ __forceinline__ uint32_t box_bits(const Grid& grid, const View& view, int key) {
  const int patch = key - grid.prefix, last = min(grid.row_of(patch + 31), view.y0 + view.height - 1);
  int y = max(grid.row_of(patch), view.y0), x = y * grid.columns + view.x0 - patch;
  uint32_t bits = 0;
#pragma unroll 1
  for (; y <= last; ++y, x += grid.columns) bits |= bits_from(x) & ~bits_from(x + view.width);
  return bits;
}

// Bit i: whether key `key` + i is a token of the prefix.
__device__ __forceinline__ uint32_t prefix_bits(const Grid& grid, int key) { return ~bits_from(grid.prefix - key); }

// Bit i: whether the view sees key `key` + i.
__device__ __forceinline__ uint32_t seen_bits(const Grid& grid, const View& view, int key) {
  return box_bits(grid, view, key) | (view.prefix ? prefix_bits(grid, key) : 0u);
}

// Keys [begin, end), outside of which no view of several sees any. Which of these they do see their bits say.
struct Reach {
  int begin, end;

  __device__ __forceinline__ bool meets(int from, int count) const { return from < end && from + count > begin; }
};

__device__ __forceinline__ Reach reach_of(const View& view, const Grid& grid) {
  const int none = 1 << 30;
  if (grid.columns == none) return {0, view.width};
  const int first = grid.prefix + view.y0 * grid.columns, end = first + view.height * grid.columns;
  const Reach box = {view.height ? first : none, view.height ? end : 0};
  return view.prefix ? Reach{0, max(grid.prefix, box.end)} : box;
}

__device__ __forceinline__ Reach join(const Reach& a, const Reach& b) {
  return {min(a.begin, b.begin), max(a.end, b.end)};
}

// Of all lanes.
__device__ __forceinline__ Reach join_lanes(Reach reach) {
#pragma unroll
  for (int step = 1; step < WARP; step *= 2)
    reach = join(reach, {__shfl_xor_sync(ALL, reach.begin, step), __shfl_xor_sync(ALL, reach.end, step)});
  return reach;
}

}  // namespace relvlm
