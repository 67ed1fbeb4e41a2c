// Small matrix products whose inner dimension may run over segments of rows.
#pragma once

#include "attention.h"
#include "vector.h"

namespace relvlm {
namespace RELVLM_ISA {

constexpr int TILE_ROWS = 6;  // 6 x 2 vectors of sums, 2 of B and 1 of A: the 16 registers of AVX2

// Element (m, k) of A lies at data[m * row + k * inner].
template <class T>
struct Operand {
  const T* data;
  ptrdiff_t row, inner;
};

template <class T, int M, int N>
__attribute__((noinline)) void tile(Operand<T> a, const T* b, ptrdiff_t ldb, const Segment* segment,
                                    const Segment* end, T* c, ptrdiff_t ldc, bool add) {
  Vector<T> sums[M][N];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) sums[m][n] = add ? load(c + m * ldc + n * LANES<T>) : Vector<T>{};
  for (const T* column = a.data; segment != end; ++segment) {
    const T* row = b + segment->from * ldb;
    for (int32_t i = 0; i < segment->count; ++i, row += ldb, column += a.inner) {
      Vector<T> x[N];
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) x[n] = load(row + n * LANES<T>);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        const Vector<T> y = splat(column[m * a.row]);
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) sums[m][n] += y * x[n];
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) store(c + m * ldc + n * LANES<T>, sums[m][n]);
}

template <class T, int N>
RELVLM_INLINE void tile_of(int m, Operand<T> a, const T* b, ptrdiff_t ldb, const Segment* segment,
                           const Segment* end, T* c, ptrdiff_t ldc, bool add) {
  switch (m) {
    case 1: return tile<T, 1, N>(a, b, ldb, segment, end, c, ldc, add);
    case 2: return tile<T, 2, N>(a, b, ldb, segment, end, c, ldc, add);
    case 3: return tile<T, 3, N>(a, b, ldb, segment, end, c, ldc, add);
    case 4: return tile<T, 4, N>(a, b, ldb, segment, end, c, ldc, add);
    case 5: return tile<T, 5, N>(a, b, ldb, segment, end, c, ldc, add);
    default: return tile<T, 6, N>(a, b, ldb, segment, end, c, ldc, add);
  }
}

// C (m, n) = A B, or += it. Row k of A's columns meets the k-th row of B that the segments name. Columns are read
// and written up to the next whole vector. Columns are the outer loop: their panel of B stays in the first cache.
template <class T>
void gemm(int m, int n, Operand<T> a, const T* b, ptrdiff_t ldb, const Segment* segments, const Segment* end, T* c,
          ptrdiff_t ldc, bool add) {
  const int blocks = (m + TILE_ROWS - 1) / TILE_ROWS;
  for (int j = 0; j < n;) {
    const bool wide = j + LANES<T> < n;
    for (int block = 0, i = 0; block < blocks; ++block) {
      const int rows = (m - i + blocks - block - 1) / (blocks - block);
      const Operand<T> part{a.data + i * a.row, a.row, a.inner};
      if (wide)
        tile_of<T, 2>(rows, part, b + j, ldb, segments, end, c + i * ldc + j, ldc, add);
      else
        tile_of<T, 1>(rows, part, b + j, ldb, segments, end, c + i * ldc + j, ldc, add);
      i += rows;
    }
    j += wide ? 2 * LANES<T> : LANES<T>;
  }
}

}  // namespace RELVLM_ISA
}  // namespace relvlm
