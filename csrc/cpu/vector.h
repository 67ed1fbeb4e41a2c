// Vectors of RELVLM_VECTOR bytes. Everything here is compiled once per instruction set, hence the namespace.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

namespace relvlm {
namespace RELVLM_ISA {

#define RELVLM_INLINE inline __attribute__((always_inline))

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(RELVLM_VECTOR)));
  static constexpr int lanes = RELVLM_VECTOR / sizeof(T);
};
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
constexpr int LANES = VectorOf<T>::lanes;

constexpr int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

template <class T>
RELVLM_INLINE Vector<T> load(const T* from) {
  Vector<T> x;
  __builtin_memcpy(&x, from, sizeof x);
  return x;
}

template <class T>
RELVLM_INLINE void store(T* to, Vector<T> x) {
  __builtin_memcpy(to, &x, sizeof x);
}

template <class T>
RELVLM_INLINE Vector<T> splat(T x) {
  return x - Vector<T>{};
}

template <class T>
using Lanes = decltype(Vector<T>{} < Vector<T>{});

template <class T, size_t... I>
RELVLM_INLINE Lanes<T> numbered(std::index_sequence<I...>) {
  return Lanes<T>{I...};
}

// The first `count` (one or more, or all) elements; the others are `rest`.
template <class T>
RELVLM_INLINE Vector<T> load_or(const T* from, int count, T rest) {
  const Lanes<T> inside = numbered<T>(std::make_index_sequence<LANES<T>>()) < count;
  return inside ? load(from) : splat(rest);
}

// A NaN in `b` wins over nothing: it shows up in the exponentials instead.
template <class T>
RELVLM_INLINE Vector<T> larger(Vector<T> a, Vector<T> b) {
  return b > a ? b : a;
}

// Lanes of the 2 LANES lanes of (a, b) that `Index` names.
template <class T, class Index, size_t... I>
RELVLM_INLINE Vector<T> shuffle(Vector<T> a, Vector<T> b, std::index_sequence<I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, Index::of(I)...);
#else
  typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Lane;
  typedef Lane Lanes __attribute__((vector_size(RELVLM_VECTOR)));
  return __builtin_shuffle(a, b, Lanes{Index::of(I)...});
#endif
}

// Pairs sums of `a` with sums of `b`, one halving of both: at level 0, 1, ... within 16 bytes, then across them, in
// the patterns that the processors have as single instructions.
template <class T, int LEVEL, bool UPPER>
struct Halves {
  static constexpr int part = 16 / sizeof(T), inner_levels = part == 4 ? 2 : 1, parts = LANES<T> / part;
  static constexpr int of(int lane) {
    const int within = lane % part, outer = lane / part;
    if (LEVEL < inner_levels) {
      const int grain = 1 << LEVEL, pair = within / (2 * grain), from_b = within / grain % 2;
      return from_b * LANES<T> + outer * part + UPPER * part / 2 + pair * grain + within % grain;
    }
    const int from_b = outer / (parts / 2), source = 2 * (outer % (parts / 2)) + UPPER;
    return from_b * LANES<T> + source * part + within;
  }
};

template <class T, int LEVEL>
RELVLM_INLINE Vector<T> halve(Vector<T> a, Vector<T> b) {
  constexpr std::make_index_sequence<LANES<T>> lanes;
  return shuffle<T, Halves<T, LEVEL, false>>(a, b, lanes) + shuffle<T, Halves<T, LEVEL, true>>(a, b, lanes);
}

// The sums of each of the N vectors in N (a power of 2) neighbouring places; a whole vector is written.
template <class T, int N, int LEVEL = 0>
RELVLM_INLINE void store_sums(const Vector<T>* x, T* to) {
  if constexpr ((1 << LEVEL) < LANES<T>) {
    constexpr int left = N > 1 ? N / 2 : 1;
    Vector<T> y[left];
#pragma GCC unroll 4
    for (int i = 0; i < left; ++i) y[i] = halve<T, LEVEL>(x[N > 1 ? 2 * i : 0], x[N > 1 ? 2 * i + 1 : 0]);
    store_sums<T, left, LEVEL + 1>(y, to);
  } else {
    store(to, x[0]);
  }
}

// Lanes half the vector, a quarter, ... apart.
template <class T, int DISTANCE>
struct Apart {
  static constexpr int of(int lane) { return lane ^ DISTANCE; }
};

template <class T, int DISTANCE = LANES<T> / 2>
RELVLM_INLINE T sum(Vector<T> x) {
  if constexpr (DISTANCE == 0) return x[0];
  else {
    constexpr std::make_index_sequence<LANES<T>> lanes;
    return sum<T, DISTANCE / 2>(x + shuffle<T, Apart<T, DISTANCE>>(x, x, lanes));
  }
}

template <class T, int DISTANCE = LANES<T> / 2>
RELVLM_INLINE T largest(Vector<T> x) {
  if constexpr (DISTANCE == 0) return x[0];
  else {
    constexpr std::make_index_sequence<LANES<T>> lanes;
    return largest<T, DISTANCE / 2>(larger<T>(x, shuffle<T, Apart<T, DISTANCE>>(x, x, lanes)));
  }
}

// exp of x <= 0 within 2 units in the last place (polynomial of Cephes' expf); 0 below -87; NaN stays NaN.
RELVLM_INLINE Vector<float> exponential(Vector<float> x) {
  typedef int32_t Bits __attribute__((vector_size(RELVLM_VECTOR)));
  const float magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to a whole number, left in the low bits
  const Vector<float> shifted = x * 1.44269504f + magic;
  const Vector<float> whole = shifted - magic;
  const Vector<float> r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Vector<float> y = splat(1.9875691500e-4f);
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * (r * r) + (r + 1.f);
  y = (Vector<float>)((Bits)y + ((Bits)shifted << 23));
  return x < splat(-87.f) ? Vector<float>{} : y;
}

// log of x > 0, normal (polynomial of Cephes' logf).
RELVLM_INLINE Vector<float> logarithm(Vector<float> x) {
  typedef int32_t Bits __attribute__((vector_size(RELVLM_VECTOR)));
  const Bits shifted = (Bits)x - 0x3F3504F3;  // of sqrt(1/2): the rest lies in [sqrt(1/2), sqrt(2))
  const Vector<float> exponent = __builtin_convertvector(shifted >> 23, Vector<float>);
  const Vector<float> r = (Vector<float>)((shifted & 0x7FFFFF) + 0x3F3504F3) - 1.f, square = r * r;
  Vector<float> y = splat(7.0376836292e-2f);
  y = y * r - 1.1514610310e-1f;
  y = y * r + 1.1676998740e-1f;
  y = y * r - 1.2420140846e-1f;
  y = y * r + 1.4249322787e-1f;
  y = y * r - 1.6668057665e-1f;
  y = y * r + 2.0000714765e-1f;
  y = y * r - 2.4999993993e-1f;
  y = y * r + 3.3333331174e-1f;
  y = y * r * square + exponent * -2.12194440e-4f - 0.5f * square;
  return r + y + exponent * 0.693359375f;
}

RELVLM_INLINE Vector<double> logarithm(Vector<double> x) {
  for (int i = 0; i < LANES<double>; ++i) x[i] = __builtin_log(x[i]);
  return x;
}

RELVLM_INLINE Vector<double> exponential(Vector<double> x) {
  for (int i = 0; i < LANES<double>; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

}  // namespace RELVLM_ISA
}  // namespace relvlm
