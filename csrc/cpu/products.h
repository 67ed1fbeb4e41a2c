// Small matrix products over listed rows of keys. Rows are a whole number of vectors long; those of keys lie `apart`
// elements apart, all others side by side.
#pragma once

#include "attention.h"
#include "vector.h"

namespace relvlm {
namespace RELVLM_ISA {

constexpr bool MANY_REGISTERS = RELVLM_VECTOR == 64;  // 32 of them, else 16
constexpr int TILE_ROWS = 6;                          // with 2 (4) vectors each: 12 (24) registers of sums
constexpr int TILE_VECTORS = MANY_REGISTERS ? 4 : 2;
constexpr int DOT_QUERIES = 3;
template <class T>
constexpr int DOT_KEYS = LANES<T> < (MANY_REGISTERS ? 8 : 4) ? LANES<T> : (MANY_REGISTERS ? 8 : 4);

// scores[m][n] of M queries with the N keys listed. Both lie as they came, so that neither is ever transposed; the
// vectors of partial sums are added up in registers.
template <class T, int M, int N>
__attribute__((noinline)) void dot_tile(const T* queries, const T* keys, ptrdiff_t apart, const int32_t* list,
                                        int padded, T* scores, ptrdiff_t stride) {
  Vector<T> sums[M][N] = {};
  const T* rows[N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) rows[n] = keys + list[n] * apart;
  for (int d = 0; d < padded; d += LANES<T>) {
    Vector<T> q[M];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) q[m] = load(queries + m * padded + d);
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      const Vector<T> x = load(rows[n] + d);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) sums[m][n] += q[m] * x;
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) store_sums<T, N>(sums[m], scores + m * stride);
}

// `count` rows in nearly equal blocks of at most `most`; without a division for each block.
struct Blocks {
  int number, small, larger;  // the first `larger` blocks have one row more than `small`
  Blocks(int count, int most) {
    number = count ? (count + most - 1) / most : 1;
    small = count / number;
    larger = count - small * number;
  }
  int rows(int block) const { return small + (block < larger); }
};

// scores (count, keys at `stride`): dot products of `count` packed rows with the keys listed. Writes less than a
// vector beyond the last. `between` runs before each block of keys.
template <class T, class Between>
void dots(int count, const T* queries, const T* keys, ptrdiff_t apart, const int32_t* list, int key_count, int padded,
          T* scores, ptrdiff_t stride, Between between) {
  constexpr int N = DOT_KEYS<T>;
  const Blocks blocks(count, DOT_QUERIES);
  for (int j = 0; j < key_count; j += N) {
    between();
    for (int block = 0, i = 0; block < blocks.number; ++block) {
      const int rows = blocks.rows(block);
      const T* const from = queries + ptrdiff_t(i) * padded;
      T* const to = scores + i * stride + j;
      if (rows == 3)
        dot_tile<T, 3, N>(from, keys, apart, list + j, padded, to, stride);
      else if (rows == 2)
        dot_tile<T, 2, N>(from, keys, apart, list + j, padded, to, stride);
      else
        dot_tile<T, 1, N>(from, keys, apart, list + j, padded, to, stride);
      i += rows;
    }
  }
}

// Element (m, k) of A lies at data[m * row + k * inner].
template <class T>
struct Operand {
  const T* data;
  ptrdiff_t row, inner;
};

// Which rows `list` names: GATHER, those of B that are summed; SCATTER, those of C, which are added to.
enum Listed { GATHER, SCATTER };

template <class T, int M, int N, Listed LISTED>
__attribute__((noinline)) void tile(int inner, Operand<T> a, const T* b, ptrdiff_t b_row, const int32_t* list, T* c,
                                    ptrdiff_t c_row) {
  Vector<T> sums[M][N];
  T* to[M];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    to[m] = c + (LISTED == SCATTER ? list[m] : m) * c_row;
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) sums[m][n] = LISTED == SCATTER ? load(to[m] + n * LANES<T>) : Vector<T>{};
  }
  const T* column = a.data;
  for (int i = 0; i < inner; ++i, column += a.inner) {
    const T* const row = b + (LISTED == GATHER ? list[i] : i) * b_row;
    Vector<T> x[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) x[n] = load(row + n * LANES<T>);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vector<T> y = splat(column[m * a.row]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sums[m][n] += y * x[n];
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store(to[m] + n * LANES<T>, sums[m][n]);
}

template <class T, int N, Listed LISTED>
RELVLM_INLINE void tile_of(int m, int inner, Operand<T> a, const T* b, ptrdiff_t b_row, const int32_t* list, T* c,
                           ptrdiff_t c_row) {
  switch (m) {
    case 0: return;
    case 1: return tile<T, 1, N, LISTED>(inner, a, b, b_row, list, c, c_row);
    case 2: return tile<T, 2, N, LISTED>(inner, a, b, b_row, list, c, c_row);
    case 3: return tile<T, 3, N, LISTED>(inner, a, b, b_row, list, c, c_row);
    case 4: return tile<T, 4, N, LISTED>(inner, a, b, b_row, list, c, c_row);
    case 5: return tile<T, 5, N, LISTED>(inner, a, b, b_row, list, c, c_row);
    default: return tile<T, 6, N, LISTED>(inner, a, b, b_row, list, c, c_row);
  }
}

// GATHER: C (m, padded) = A times the rows of B listed. SCATTER: the rows of C listed += A B.
template <class T, Listed LISTED>
void product(int m, int inner, Operand<T> a, const T* b, ptrdiff_t b_row, const int32_t* list, T* c, ptrdiff_t c_row,
             int padded) {
  const Blocks blocks(m, TILE_ROWS);
  for (int d = 0; d < padded;) {
    const int left = (padded - d) / LANES<T>;
    const int vectors = left >= TILE_VECTORS ? TILE_VECTORS : left >= 2 ? 2 : 1;
    for (int block = 0, i = 0; block < blocks.number; ++block) {
      const int rows = blocks.rows(block);
      const Operand<T> part{a.data + i * a.row, a.row, a.inner};
      const int32_t* const names = LISTED == SCATTER ? list + i : list;
      T* const to = c + d + (LISTED == SCATTER ? 0 : i * c_row);
      if (vectors == TILE_VECTORS)
        tile_of<T, TILE_VECTORS, LISTED>(rows, inner, part, b + d, b_row, names, to, c_row);
      else if (vectors == 2)
        tile_of<T, 2, LISTED>(rows, inner, part, b + d, b_row, names, to, c_row);
      else
        tile_of<T, 1, LISTED>(rows, inner, part, b + d, b_row, names, to, c_row);
      i += rows;
    }
    d += vectors * LANES<T>;
  }
}

}  // namespace RELVLM_ISA
}  // namespace relvlm
