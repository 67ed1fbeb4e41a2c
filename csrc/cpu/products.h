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
constexpr int SCATTER_PIECES = MANY_REGISTERS ? 1 : 4;  // of a row, one after another, once its place is known
constexpr int DOT_KEYS = 4, DOT_QUERIES = MANY_REGISTERS ? 7 : 3;  // 28 (12) registers of sums
constexpr int DOT_ROWS = 2 * DOT_QUERIES;  // of a call
static_assert(KEYS_PADDING % DOT_KEYS == 0, "keys are listed up to whole blocks");

// Dot products of M packed queries with DOT_KEYS rows, to `scores`. The vectors of partial sums are added up in
// registers; what does not fit into them is done in several blocks, for which the rows lie in the nearest cache.
template <class T, int M>
RELVLM_INLINE void dot_block(const T* queries, const T* const* rows, int padded, T* scores, ptrdiff_t stride) {
  constexpr int first = (M + (M - 1) / DOT_QUERIES) / ((M - 1) / DOT_QUERIES + 1);
  if constexpr (first < M)
    dot_block<T, M - first>(queries + first * padded, rows, padded, scores + first * stride, stride);
  Vector<T> sums[first][DOT_KEYS];
  const auto step = [&](int d, auto begins) __attribute__((always_inline)) {
    Vector<T> q[first];
#pragma GCC unroll 8
    for (int m = 0; m < first; ++m) q[m] = load(queries + m * padded + d);
#pragma GCC unroll 4
    for (int n = 0; n < DOT_KEYS; ++n) {
      const Vector<T> x = load(rows[n] + d);
#pragma GCC unroll 8
      for (int m = 0; m < first; ++m) sums[m][n] = begins() ? q[m] * x : sums[m][n] + q[m] * x;
    }
  };
  step(0, std::true_type());
  for (int d = LANES<T>; d < padded; d += LANES<T>) step(d, std::false_type());
#pragma GCC unroll 8
  for (int m = 0; m < first; ++m) reduce_four<T, Sum>(sums[m], scores + m * stride);
}

// scores[m][n] of M queries with each key n listed, four keys at a time. Both lie as they came: nothing is transposed.
template <class T, int M, class Between>
__attribute__((noinline)) void dot_rows(const T* queries, Rows<const T> keys, const int32_t* list, int key_count,
                                        int padded, T* scores, ptrdiff_t stride, Between& between) {
  for (int j = 0; j < key_count; j += DOT_KEYS) {
    between(DOT_KEYS);
    const T* rows[DOT_KEYS];
#pragma GCC unroll 4
    for (int n = 0; n < DOT_KEYS; ++n) rows[n] = keys[list[j + n]];
    dot_block<T, M>(queries, rows, padded, scores + j, stride);
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
  const Blocks blocks(part.count(), DOT_ROWS);
  for (int block = 0, i = part.begin; block < blocks.number; i += blocks.rows(block++))
    choose<DOT_ROWS>(blocks.rows(block), [&](auto rows) {
      dot_rows<T, rows()>(queries + ptrdiff_t(i) * padded, keys, part.list, part.keys, padded, part.row(scores, i),
                          part.stride, between);
    });
}

// Rows in the order of a list.
template <class T>
struct Listed {
  Rows<const T> rows;
  const int32_t* list;
  RELVLM_INLINE const T* operator[](int i) const { return rows[list[i]]; }
};

// C (M, N vectors) = weights (M, depth at `stride`) times the first `depth` rows of B.
template <class T, int M, int N, class B>
__attribute__((noinline)) void product_tile(const T* weights, ptrdiff_t stride, B b, int depth, T* c, ptrdiff_t c_row) {
  Vector<T> sums[M][N] = {};
  for (int j = 0; j < depth; ++j) {
    const T* const row = b[j];
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
    for (int n = 0; n < N; ++n) store(c + m * c_row + n * LANES<T>, sums[m][n]);
}

// C of `rows` rows, N vectors of it.
template <class T, int N, class B>
RELVLM_INLINE void product(int rows, const T* weights, ptrdiff_t stride, B b, int depth, T* c, ptrdiff_t c_row) {
  const Blocks blocks(rows, TILE_ROWS);
  for (int block = 0, i = 0; block < blocks.number; i += blocks.rows(block++))
    choose<TILE_ROWS>(blocks.rows(block), [&](auto count) {
      product_tile<T, count(), N>(weights + i * stride, stride, b, depth, c + i * c_row, c_row);
    });
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
  for_pieces<T>(padded, [&](int d, auto vectors) {
    const Listed<T> rows{{b.data + d, b.stride}, part.list};
    product<T, vectors()>(part.count(), part.row(weights, part.begin), part.stride, rows, part.keys,
                          c + ptrdiff_t(part.begin) * padded + d, padded);
  });
}

// The rows of C listed (PIECES of N vectors) += weights, transposed, times the part's rows of B. What the last block of
// keys has too many of goes to `spare`.
template <class T, int N, int PIECES>
__attribute__((noinline)) void scatter_rows(const Part& part, const T* weights, const T* b, Rows<T> c, int padded,
                                            T* spare) {
  const int keys = part.keys, count = part.count();
  const ptrdiff_t stride = part.stride;
  for (int j = 0; j < keys; j += SCATTER_KEYS) {
    T* to[SCATTER_KEYS];
#pragma GCC unroll 8
    for (int m = 0; m < SCATTER_KEYS; ++m) to[m] = j + m < keys ? c[part.list[j + m]] : spare;
    for (int d = 0; d < PIECES * N * LANES<T>; d += N * LANES<T>) {
      Vector<T> sums[SCATTER_KEYS][N];
#pragma GCC unroll 8
      for (int m = 0; m < SCATTER_KEYS; ++m)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) sums[m][n] = load(to[m] + d + n * LANES<T>);
      int i = 0;
      do {  // a loop that may run no times would keep the sums twice
        Vector<T> x[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) x[n] = load(b + i * padded + d + n * LANES<T>);
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
        for (int n = 0; n < N; ++n) store(to[m] + d + n * LANES<T>, sums[m][n]);
    }
  }
}

template <class T>
void scatter(const Part& part, const T* weights, const T* b, Rows<T> c, int padded, T* spare) {
  constexpr int together = SCATTER_PIECES * TILE_VECTORS * LANES<T>;
  weights = part.row(weights, part.begin), b += ptrdiff_t(part.begin) * padded;
  int d = 0;
  for (; d + together <= padded; d += together)
    scatter_rows<T, TILE_VECTORS, SCATTER_PIECES>(part, weights, b + d, {c.data + d, c.stride}, padded, spare);
  for_pieces<T>(padded - d, [&](int more, auto vectors) {
    scatter_rows<T, vectors(), 1>(part, weights, b + d + more, {c.data + d + more, c.stride}, padded, spare);
  });
}

}  // namespace RELVLM_ISA
}  // namespace relvlm
