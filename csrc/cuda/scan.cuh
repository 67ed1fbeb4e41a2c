// Sums over a block of threads.
#pragma once

#include "device.cuh"

namespace relvlm {

template <int threads>
constexpr size_t SCAN_BYTES = threads / WARP * sizeof(int);

// Sum of the threads before this one; `total` gets that of all. Uses the first `SCAN_BYTES` of shared memory.
template <int threads>
__device__ __forceinline__ int block_scan(int value, int& total) {
  int* const of_warps = reinterpret_cast<int*>(shared_memory());
  int sum = value;
#pragma unroll
  for (int step = 1; step < WARP; step *= 2) {
    const int left = __shfl_up_sync(ALL, sum, step);
    if (lane_id() >= step) sum += left;
  }
  __syncthreads();  // the sums of the call before have been read
  if (lane_id() == WARP - 1) of_warps[warp_id()] = sum;
  __syncthreads();
  int before = 0;
  total = 0;
#pragma unroll
  for (int warp = 0; warp < threads / WARP; ++warp) {
    if (warp < warp_id()) before += of_warps[warp];
    total += of_warps[warp];
  }
  return before + sum - value;
}

}  // namespace relvlm
