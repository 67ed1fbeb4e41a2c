// Small matrix products between the rows of a part and the keys that they see. Rows are `padded` long, a whole number
// of vectors; those of queries lie side by side.
#pragma once

#include "rows.h"
#include "tiles.h"
#include "vector.h"

namespace relvlm {
namespace RELVLM_ISA {

constexpr bool MANY_REGISTERS = RELVLM_VECTOR == 64;  // 32 of them, else 16
constexpr int TILE_ROWS = 6;                          // with 2 (4) vectors each: 12 (24) registers of sums
constexpr int TILE_VECTORS = MANY_REGISTERS ? 4 : 2;
constexpr int SCATTER_KEYS = 4;  // few: their rows come from the cache beyond the first while others are summed
constexpr int DOT_KEYS = 4, DOT_QUERIES = MANY_REGISTERS ? 7 : 3;  // 28 (12) registers of sums
static_assert(KEYS_PADDING % DOT_KEYS == 0, "keys are listed up to whole blocks");

// scores[m][n] of M queries with each key n listed, four keys at a time. Both lie as they came, so that neither is ever
// transposed; the vectors of partial sums are added up in registers.
template <class T, int M, class Between>
__attribute__((noinline)) void dot_rows(const T* queries, Rows<const T> keys, const int32_t* list, int key_count,
                                        int padded, T* scores, ptrdiff_t stride, Between& between) {
  for (int j = 0; j < key_count; j += DOT_KEYS) {
    between();
    Vector<T> sums[M][DOT_KEYS] = {};
    const T* rows[DOT_KEYS];
#pragma GCC unroll 4
    for (int n = 0; n < DOT_KEYS; ++n) rows[n] = keys[list[j + n]];
    for (int d = 0; d < padded; d += LANES<T>) {
      Vector<T> q[M];
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) q[m] = load(queries + m * padded + d);
#pragma GCC unroll 4
      for (int n = 0; n < DOT_KEYS; ++n) {
        const Vector<T> x = load(rows[n] + d);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) sums[m][n] += q[m] * x;
      }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) reduce_four<T, Sum>(sums[m], scores + m * stride + j);
  }
}

// Calls `work` with a constant that equals `n`, from 1 to MOST.
template <int MOST, class Work>
RELVLM_INLINE void choose(int n, Work work) {
  if constexpr (MOST > 1)
    if (n < MOST) return choose<MOST - 1>(n, work);
  if (n == MOST) work(std::integral_constant<int, MOST>());
}

// `count` rows (at least one) in nearly equal blocks of at most `most`; without a division for each block.
struct Blocks {
  int number, small, larger;  // the first `larger` blocks have one row more than `small`
  Blocks(int count, int most) {
    number = (count + most - 1) / most;
    small = count / number;
    larger = count - small * number;
  }
  int rows(int block) const { return small + (block < larger); }
};

// scores of a part: dot products of its packed rows with its keys, up to whole fours. `between` runs before every four.
template <class T, class Between>
void dots(const Part& part, const T* queries, Rows<const T> keys, int padded, T* scores, Between& between) {
  const Blocks blocks(part.count(), DOT_QUERIES);
  for (int block = 0, i = part.begin; block < blocks.number; i += blocks.rows(block++))
    choose<DOT_QUERIES>(blocks.rows(block), [&](auto rows) {
      dot_rows<T, rows()>(queries + ptrdiff_t(i) * padded, keys, part.list, part.keys, padded, part.row(scores, i),
                          part.stride, between);
    });
}

// C (M, N vectors) = weights (M, keys at `stride`) times the rows of B listed.
template <class T, int M, int N>
__attribute__((noinline)) void gather_tile(const T* weights, ptrdiff_t stride, Rows<const T> b, const int32_t* list,
                                           int keys, T* c, int padded) {
  Vector<T> sums[M][N] = {};
  for (int j = 0; j < keys; ++j) {
    const T* const row = b[list[j]];
    Vector<T> x[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) x[n] = load(row + n * LANES<T>);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vector<T> y = splat(weights[m * stride + j]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sums[m][n] += y * x[n];
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store(c + m * padded + n * LANES<T>, sums[m][n]);
}

// Calls `work` with the place and the number of vectors of each piece of a row.
template <class T, class Work>
RELVLM_INLINE void for_pieces(int padded, Work work) {
  int d = 0;
  for (; d + TILE_VECTORS * LANES<T> <= padded; d += TILE_VECTORS * LANES<T>)
    work(d, std::integral_constant<int, TILE_VECTORS>());
  if (TILE_VECTORS > 2)
    for (; d + 2 * LANES<T> <= padded; d += 2 * LANES<T>) work(d, std::integral_constant<int, 2>());
  if (d < padded) work(d, std::integral_constant<int, 1>());
}

// C (rows of the part, padded) = weights times the rows of B listed.
template <class T>
void gather(const Part& part, const T* weights, Rows<const T> b, T* c, int padded) {
  const Blocks blocks(part.count(), TILE_ROWS);
  for_pieces<T>(padded, [&](int d, auto vectors) {
    for (int block = 0, i = part.begin; block < blocks.number; i += blocks.rows(block++))
      choose<TILE_ROWS>(blocks.rows(block), [&](auto rows) {
        gather_tile<T, rows(), vectors()>(part.row(weights, i), part.stride, {b.data + d, b.stride}, part.list,
                                          part.keys, c + ptrdiff_t(i) * padded + d, padded);
      });
  });
}

// The rows of C listed (N vectors) += weights, transposed, times B (`count` rows, at least one). What the last block of
// keys has too many of goes to `spare`.
template <class T, int N>
__attribute__((noinline)) void scatter_rows(int count, int keys, const T* weights, ptrdiff_t stride, const T* b,
                                            int padded, const int32_t* list, T* c, ptrdiff_t c_row, T* spare) {
  for (int j = 0; j < keys; j += SCATTER_KEYS) {
    Vector<T> sums[SCATTER_KEYS][N];
    T* to[SCATTER_KEYS];
#pragma GCC unroll 8
    for (int m = 0; m < SCATTER_KEYS; ++m) {
      to[m] = j + m < keys ? c + list[j + m] * c_row : spare;
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sums[m][n] = load(to[m] + n * LANES<T>);
    }
    int i = 0;
    do {  // a loop that may run no times would keep the sums twice
      Vector<T> x[N];
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) x[n] = load(b + i * padded + n * LANES<T>);
#pragma GCC unroll 8
      for (int m = 0; m < SCATTER_KEYS; ++m) {
        const Vector<T> y = splat(weights[i * stride + j + m]);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) sums[m][n] += y * x[n];
      }
    } while (++i < count);
#pragma GCC unroll 8
    for (int m = 0; m < SCATTER_KEYS; ++m)
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) store(to[m] + n * LANES<T>, sums[m][n]);
  }
}

template <class T>
void scatter(const Part& part, const T* weights, const T* b, Rows<T> c, int padded, T* spare) {
  for_pieces<T>(padded, [&](int d, auto vectors) {
    scatter_rows<T, vectors()>(part.count(), part.keys, part.row(weights, part.begin), part.stride,
                               b + ptrdiff_t(part.begin) * padded + d, padded, part.list, c.data + d, c.stride, spare);
  });
}

}  // namespace RELVLM_ISA
}  // namespace relvlm
