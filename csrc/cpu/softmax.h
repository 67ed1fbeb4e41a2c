// Rows of scores: their softmax with the mean token and dropout, and its gradient.
#pragma once

#include "philox.h"
#include "tiles.h"
#include "vector.h"

namespace relvlm {
namespace RELVLM_ISA {

// The keep-mask of one head: Philox-4x32-7 with the counter (quad, query row, head, 0), a word for each key of a quad;
// see dropout.py.
struct Dropout {
  uint64_t seed;
  uint32_t below, head;
  double scale;
  int32_t mean_key;  // the counter's key of the mean token
};

// The words of as many quads, from `quad` on, word by word.
RELVLM_INLINE void philox(uint32_t quad, uint32_t row, const Dropout& dropout, uint32_t (&to)[4 * WORDS]) {
  Words x[4] = {{}, Words{} + row, Words{} + dropout.head, {}};
  for (int i = 0; i < WORDS; ++i) x[0][i] = quad + i;
  philox(x, dropout.seed);
  __builtin_memcpy(to, x, sizeof x);
}

// The words of the keys around one key: whole blocks of 16, so that quads are whole.
struct KeyWords {
  static constexpr int keys = 4 * WORDS;
  int32_t first;
  uint32_t words[keys];

  RELVLM_INLINE KeyWords(int32_t key, uint32_t row, const Dropout& dropout) : first(key / keys * keys) {
    philox(first / 4, row, dropout, words);
  }
  // Keys 0, 1, 8 and 9 of a block have the words 0 to 3 of its first quad, 2, 3, 10 and 11 of the second.
  RELVLM_INLINE uint32_t of(int32_t key) const {
    const uint32_t at = key - first, quad = at / 16 * 4 + at / 2 % 4, word = at % 2 + at / 8 % 2 * 2;
    return words[word * WORDS + quad];
  }
  RELVLM_INLINE bool holds(int32_t key) const { return key - first < keys; }  // of keys that rise
};

// The keep-mask of a row of scores, its scale or 0, and zeros up to a whole vector of words; returns that of the mean
// token.
template <class T>
T keep_row(const Part& part, uint32_t row, const Dropout& dropout, T* to) {
  const T scale = static_cast<T>(dropout.scale);
  for (int j = 0, end; j < part.keys; j = end) {
    const KeyWords words(part.list[j], row, dropout);
    for (end = j; end < part.keys && words.holds(part.list[end]);) ++end;
    for (int i = j; i < end; ++i) to[i] = words.of(part.list[i]) >= dropout.below ? scale : T(0);
  }
  for (int j = part.keys; j % WORDS; ++j) to[j] = 0;
  if (!part.mean) return 0;
  return KeyWords(dropout.mean_key, row, dropout).of(dropout.mean_key) >= dropout.below ? scale : T(0);
}

// Vectors that the rows of a tile add up in.
template <class T>
using Partial = Vector<T>[TILE_ROOM];

// Means of each row of scores over the box.
template <class T>
void box_means(const Tile& tile, const T* scores, PerRow<T>& means) {
  Partial<T> totals;
  for_rows(tile, scores, [&](const Part& part, int i, const T* row) {
    totals[i] = Vector<T>{};
    for_vectors(row, part.prefix, part.keys, T(0), [&](int, Vector<T> x) { totals[i] += x; });
  });
  reduce<T, Sum>(totals, tile.count, means);
  for_rows(tile, scores, [&](const Part& part, int i, const T*) { means[i] /= part.box(); });
}

template <class T>
constexpr T MINUS_INFINITY = -static_cast<T>(__builtin_inf());

// What the mean token adds to each patch of its box: its value is the mean of theirs.
template <class T>
RELVLM_INLINE T share_of(const Part& part, T x) {
  return part.mean ? x / part.box() : T(0);
}

// Takes from the prefix what a whole row was given and the box alone should have.
template <class T>
RELVLM_INLINE void take_from_prefix(T* row, const Part& part, T x) {
  for (int j = 0; part.mean && j < part.prefix; ++j) row[j] -= x;
}

// What makes the rows of exponentials probabilities: 1 / total; the log-sum-exp is peak + log(total).
template <class T>
struct Softmax {
  PerRow<T> peaks, totals;
};

template <class T>
void find_peaks(const Tile& tile, const T* scores, PerRow<T>& peaks) {
  Partial<T> most;
  for_rows(tile, scores, [&](const Part& part, int i, const T* row) {
    most[i] = splat(MINUS_INFINITY<T>);
    for_vectors(row, 0, part.keys, MINUS_INFINITY<T>, [&](int, Vector<T> x) { most[i] = Largest::of(most[i], x); });
  });
  reduce<T, Largest>(most, tile.count, peaks);
}

// exp(scores - largest) in place, dropped where the dropout says, with the mean token's share of each patch added.
// `mask` has room for a row.
template <class T>
void softmax(const Tile& tile, T* scores, const Dropout& dropout, T* mask, Softmax<T>& to) {
  Partial<T> totals;
  PerRow<T> means{};
  find_peaks(tile, scores, to.peaks);
  if (tile.any_mean()) {
    box_means(tile, scores, means);
    for (int i = 0; i < tile.count; i += LANES<T>) {
      const Vector<T> peaks = Largest::of(load(to.peaks + i), load(means + i));  // the mean is larger by rounding only
      store(to.peaks + i, peaks);
      store(means + i, exponential(load(means + i) - peaks));
    }
  }
  for_rows(tile, scores, [&](const Part& part, int i, T* row) {
    const T mean_mask = dropout.below ? keep_row(part, tile.rows[i], dropout, mask) : T(1);
    const T share = share_of(part, means[i] * mean_mask);
    const Vector<T> peak = splat(to.peaks[i]), shares = splat(share);
    totals[i] = Vector<T>{};
    for_vectors(row, 0, part.keys, MINUS_INFINITY<T>, [&](int j, Vector<T> x) {
      const Vector<T> e = exponential(x - peak);
      store(row + j, (dropout.below ? e * load(mask + j) : e) + shares);
      totals[i] += e;
    });
    take_from_prefix(row, part, share);
  });
  reduce<T, Sum>(totals, tile.count, to.totals);
  for_rows(tile, scores, [&](const Part& part, int i, const T*) { to.totals[i] += part.mean ? means[i] : T(0); });
}

// From scores and the gradients of the (dropped) weights: the weights of the values and the gradients of the scores,
// in place. `lse` and `deltas` of each row: a delta is the dot product of the output and its gradient, which is that of
// weights and gradients.
template <class T>
void softmax_backward(const Tile& tile, T* weights, T* dweights, const PerRow<T>& lse, const PerRow<T>& deltas,
                      const Dropout& dropout, T* mask) {
  PerRow<T> means{}, dmeans{};
  if (tile.any_mean()) {
    box_means(tile, weights, means);
    box_means(tile, dweights, dmeans);
    for (int i = 0; i < tile.count; i += LANES<T>) store(means + i, exponential(load(means + i) - load(lse + i)));
  }
  for_rows(tile, weights, [&](const Part& part, int i, T* row) {
    T* const drow = dweights + (row - weights);
    const T mean_mask = dropout.below ? keep_row(part, tile.rows[i], dropout, mask) : T(1);
    const T share = share_of(part, means[i] * mean_mask);
    const T dshare = share_of(part, means[i] * (dmeans[i] * mean_mask - deltas[i]));
    const Vector<T> shares = splat(share), dshares = splat(dshare), delta = splat(deltas[i]);
    for_vectors(row, 0, part.keys, MINUS_INFINITY<T>, [&](int j, Vector<T> x) {
      const Vector<T> p = exponential(x - lse[i]), dp = load(drow + j);
      const Vector<T> kept = dropout.below ? load(mask + j) : splat(T(1));
      store(row + j, p * kept + shares);
      store(drow + j, p * (dp * kept - delta) + dshares);
    });
    take_from_prefix(row, part, share);
    take_from_prefix(drow, part, dshare);
  });
}

}  // namespace RELVLM_ISA
}  // namespace relvlm
