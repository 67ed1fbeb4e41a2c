// Who sees what, from the coordinates of patches: no mask is ever stored.
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

// Where a key lies; a patch has y >= 0.
struct Place {
  int x, y;
  bool prefix;
};

__device__ __forceinline__ Place place_of(const Grid& grid, int key, int keys) {
  const int patch = key - grid.prefix;
  if (patch < 0) return {0, -1, true};
  if (key >= keys) return {0, -1, false};
  const int y = grid.row_of(patch);
  return {patch - y * grid.columns, y, false};
}

__device__ __forceinline__ bool in_box(const View& view, const Place& place) {
  return unsigned(place.x - view.x0) < unsigned(view.width) && unsigned(place.y - view.y0) < unsigned(view.height);
}

__device__ __forceinline__ bool sees(const View& view, const Place& place) {
  return place.prefix ? view.prefix != 0 : in_box(view, place);
}

// The keys that some view of several may see: patches [begin, end), and those of the prefix.
struct Reach {
  int begin, end, prefix;

  __device__ __forceinline__ bool meets(int from, int count, const Grid& grid) const {
    return (from < end && from + count > begin) || (prefix && from < grid.prefix);
  }
};

__device__ __forceinline__ Reach reach_of(const View& view, const Grid& grid) {
  const int none = 1 << 30;
  if (!view.height) return {none, 0, view.prefix};
  if (grid.columns == none) return {0, view.width, 0};
  return {grid.prefix + view.y0 * grid.columns, grid.prefix + (view.y0 + view.height) * grid.columns, view.prefix};
}

__device__ __forceinline__ Reach join(const Reach& a, const Reach& b) {
  return {min(a.begin, b.begin), max(a.end, b.end), a.prefix | b.prefix};
}

// Of all lanes.
__device__ __forceinline__ Reach join_lanes(Reach reach) {
#pragma unroll
  for (int step = 1; step < WARP; step *= 2)
    reach = join(reach, {__shfl_xor_sync(ALL, reach.begin, step), __shfl_xor_sync(ALL, reach.end, step),
                         __shfl_xor_sync(ALL, reach.prefix, step)});
  return reach;
}

}  // namespace relvlm
