// Rows of scores: their softmax with the mean token and dropout, and its gradient.
//
// A row has room for one vector beyond its keys. What lies there is replaced in registers: a store just before a wider
// load of the same place would hold up every row.
#pragma once

#include "attention.h"
#include "vector.h"

namespace relvlm {
namespace RELVLM_ISA {

// A run's view of the item's keys, and how its scores lie.
struct View {
  const int32_t* list;
  int keys, prefix, stride;
  bool mean;
  int box() const { return keys - prefix; }
};

// The keep-mask of one head: Philox-4x32-10 with the counter (key, query row, head, 0); see dropout.py.
struct Dropout {
  uint64_t seed;
  uint32_t below, head;
  double scale;
  int32_t mean_key;  // the counter's key of the mean token
};

typedef uint32_t Words __attribute__((vector_size(RELVLM_VECTOR)));
typedef uint64_t LongWords __attribute__((vector_size(RELVLM_VECTOR)));
constexpr int WORDS = RELVLM_VECTOR / 4;

// High and low words of the products with one factor: those of the even places, then of the odd ones.
RELVLM_INLINE void multiply(Words x, uint32_t factor, Words& high, Words& low) {
  const LongWords even = ((LongWords)x & 0xFFFFFFFFu) * factor, odd = ((LongWords)x >> 32) * factor;
  const LongWords upper = ~LongWords{} << 32;
  high = (Words)(even >> 32 | (odd & upper));
  low = (Words)((even & ~upper) | odd << 32);
}

RELVLM_INLINE Words philox(Words keys, uint32_t row, const Dropout& dropout) {
  Words a = keys, b = Words{} + row, c = Words{} + dropout.head, d{};
  uint32_t low = static_cast<uint32_t>(dropout.seed), high = static_cast<uint32_t>(dropout.seed >> 32);
  for (int round = 0; round < 10; ++round, low += 0x9E3779B9u, high += 0xBB67AE85u) {
    Words high_a, low_a, high_c, low_c;
    multiply(a, 0xD2511F53u, high_a, low_a);
    multiply(c, 0xCD9E8D57u, high_c, low_c);
    a = high_c ^ b ^ low, b = low_c, c = high_a ^ d ^ high, d = low_a;
  }
  return a;
}

RELVLM_INLINE void write_kept(Words words, const Dropout& dropout, float* to) {
  const Vector<float> scale = splat(static_cast<float>(dropout.scale));
  const Words kept = (Words)(words >= dropout.below) & (Words)scale;
  __builtin_memcpy(to, &kept, sizeof kept);
}

RELVLM_INLINE void write_kept(Words words, const Dropout& dropout, double* to) {
  for (int i = 0; i < WORDS; ++i) to[i] = words[i] >= dropout.below ? dropout.scale : 0;
}

// The keep-mask of a row of scores, its scale or 0, up to a whole vector of words; returns that of the mean token.
template <class T>
T keep_row(const View& view, uint32_t row, const Dropout& dropout, T* to) {
  Words keys;
  int j = 0;
  for (; j + WORDS <= view.keys; j += WORDS) {
    __builtin_memcpy(&keys, view.list + j, sizeof keys);
    write_kept(philox(keys, row, dropout), dropout, to + j);
  }
  if (j == view.keys && !view.mean) return 0;
  keys = Words{} + static_cast<uint32_t>(dropout.mean_key);  // the mean token comes behind the last of the keys
  __builtin_memcpy(&keys, view.list + j, (view.keys - j) * sizeof(int32_t));
  write_kept(philox(keys, row, dropout), dropout, to + j);
  return to[view.keys];
}

template <class T>
RELVLM_INLINE T mean_of_box(const T* row, const View& view) {
  Vector<T> total{};
  for (int j = view.prefix; j < view.keys; j += LANES<T>) total += load_or(row + j, view.keys - j, T(0));
  return sum<T>(total) / view.box();
}

// Takes from the prefix what a whole row was given and the box alone should have.
template <class T>
RELVLM_INLINE void take_from_prefix(T* row, const View& view, T x) {
  for (int j = 0; j < view.prefix; ++j) row[j] -= x;
}

template <class T>
RELVLM_INLINE T exponential_of(T x) {
  return exponential(splat(x))[0];
}

// What makes a row of exponentials probabilities: 1 / total; the log-sum-exp is peak + log(total).
template <class T>
struct Softmax {
  T peak, total;
};

// exp(scores - largest) in place, dropped where `mask` (or null) says, with the mean token's share of each patch added
// (its value is the mean of theirs).
template <class T>
RELVLM_INLINE Softmax<T> softmax(T* row, const View& view, const T* mask, T mean_mask) {
  const int keys = view.keys;
  const T infinity = static_cast<T>(__builtin_inf());
  const T mean = view.mean ? mean_of_box(row, view) : -infinity;
  Vector<T> most = splat(-infinity);
  for (int j = 0; j < keys; j += LANES<T>) most = larger<T>(most, load_or(row + j, keys - j, -infinity));
  T peak = largest<T>(most);
  if (mean > peak) peak = mean;  // by rounding only
  const T own = view.mean ? exponential_of<T>(mean - peak) : T(0);
  const T share = view.mean ? own * mean_mask / view.box() : T(0);
  Vector<T> totals{};
  const Vector<T> peaks = splat(peak), shares = splat(share);
  for (int j = 0; j < keys; j += LANES<T>) {
    const Vector<T> e = exponential(load_or(row + j, keys - j, -infinity) - peaks);
    store(row + j, (mask ? e * load(mask + j) : e) + shares);
    totals += e;
  }
  take_from_prefix(row, view, share);
  return {peak, sum<T>(totals) + own};
}

// From scores and the gradients of the (dropped) weights: the weights of the values and the gradients of the scores,
// in place. `delta` is the dot product of the output and its gradient, which is that of weights and gradients.
template <class T>
RELVLM_INLINE void softmax_backward(T* weights, T* dweights, const View& view, T lse, T delta, const T* mask,
                                    T mean_mask) {
  const int keys = view.keys;
  T share = 0, dshare = 0;
  if (view.mean) {
    const T own = exponential_of<T>(mean_of_box(weights, view) - lse);
    share = own * mean_mask / view.box();
    dshare = own * (mean_of_box(dweights, view) * mean_mask - delta) / view.box();
  }
  const Vector<T> shares = splat(share), dshares = splat(dshare);
  for (int j = 0; j < keys; j += LANES<T>) {
    const Vector<T> p = exponential(load(weights + j) - lse), dp = load(dweights + j);
    const Vector<T> kept = mask ? load(mask + j) : splat(T(1));
    store(weights + j, (mask ? p * kept : p) + shares);
    store(dweights + j, p * ((mask ? dp * kept : dp) - delta) + dshares);
  }
  take_from_prefix(weights, view, share);
  take_from_prefix(dweights, view, dshare);
}

}  // namespace RELVLM_ISA
}  // namespace relvlm
