// The parts of an attention call, each in a source file of its own. All return 0 or an error of CUDA.
#pragma once

#include "call.h"
#include "device.cuh"

namespace relvlm {

// What there are kernels for; tests compile fewer. Mirrored by relvlm_kernels/cuda/attention.py.
#if !defined(RELVLM_WIDTHS)
#define RELVLM_WIDTHS(one) one(32) one(64) one(80) one(96) one(128)
#endif
#if !defined(RELVLM_ELEMENTS)
#define RELVLM_ELEMENTS(one) one(FLOAT32, float) one(BFLOAT16, Bfloat16) one(FLOAT16, Half)
#endif

__host__ __device__ inline int query_tiles_of(const Call& call) { return call.queries / TILE_ROWS + call.items; }
__host__ __device__ inline int key_tiles_of(const Call& call) { return call.keys / TILE_ROWS + call.items; }

int make_plan(const Call& call);

// Compiled once per element and width: attention.cu.
template <class T, int D>
struct Attention {
  static int forward(const Call& call);
  static int backward(const Call& call);
  static int shared_bytes();  // of a block, at most
};

}  // namespace relvlm
