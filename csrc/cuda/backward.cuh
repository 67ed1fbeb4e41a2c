// Backward, in two passes without atomics. First blocks of threads that own queries, as in the forward: dq, and for
// each query what the second pass must know of its softmax. Then blocks that own 64 keys of one image and head, each
// warp 16 of them, and go through the image's queries: the products are those of the first pass with the roles
// of queries and keys exchanged, so weights come out transposed without any exchange.
//
// With weights p, scores s, o = sum_j f_j v_j, f = p with dropout and the mean token's p_m / n folded in:
//   delta = sum_j f_j (g.v_j) = g.o,   ds_j = p_j (keep_j g.v_j - delta) + [j in box] ds_m / n,
//   ds_m = p_m (keep_m mean over the box of g.v_j - delta),   dv_j = sum f_j g,   dk_j = scale sum ds_j q.
#pragma once

#include "fragment.cuh"
#include "tile.cuh"

namespace relvlm {

// Two products of the same 16 rows of the left and 16 of the right tiles: a b^T and c d^T.
template <class T, int D>
__device__ __forceinline__ void two_products(const T* a, const T* b, Block& ab, const T* c, const T* d, Block& cd) {
  constexpr int stride = Shape<T, D>::stride;
#pragma unroll Shape<T, D>::inner
  for (int i = 0; i < D / 16; ++i) {
    Left<T> left;
    Right<T> right;
    load(left, a + i * 16, stride);
    load_columns(right, b + i * 16, stride);
    multiply(ab, left, right);
    load(left, c + i * 16, stride);
    load_columns(right, d + i * 16, stride);
    multiply(cd, left, right);
  }
}

}  // namespace relvlm
