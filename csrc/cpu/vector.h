// Vectors of RELVLM_VECTOR bytes. Everything here is compiled once per instruction set, hence the namespace.
#pragma once

#include <cstddef>
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

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define RELVLM_SHUFFLEVECTOR 1  // clang, and gcc from 12 on
#endif
#endif

// Lanes of the 2 LANES lanes of (a, b) that `Index` names.
template <class T, class Index, size_t... I>
RELVLM_INLINE Vector<T> shuffle(Vector<T> a, Vector<T> b, std::index_sequence<I...>) {
#if RELVLM_SHUFFLEVECTOR
  return __builtin_shufflevector(a, b, Index::of(I)...);
#else
  return __builtin_shuffle(a, b, Lanes<T>{Index::of(I)...});
#endif
}

// Half of a vector, from lane FIRST on.
template <class T, size_t FIRST, class V, size_t... I>
RELVLM_INLINE auto half(V x, std::index_sequence<I...>) {
#if RELVLM_SHUFFLEVECTOR
  return __builtin_shufflevector(x, x, (FIRST + I)...);
#else
  typedef T Half __attribute__((vector_size(sizeof(V) / 2)));
  Half y;
  __builtin_memcpy(&y, reinterpret_cast<const T*>(&x) + FIRST, sizeof y);
  return y;
#endif
}

struct Sum {
  template <class V>
  static RELVLM_INLINE V of(V a, V b) {
    return a + b;
  }
};

// A NaN in `b` wins over nothing: it shows up in the exponentials instead.
struct Largest {
  template <class V>
  static RELVLM_INLINE V of(V a, V b) {
    return b > a ? b : a;
  }
};

// The even (odd) lanes of `a`, then those of `b`, within each 16 bytes: single instructions everywhere.
template <class T, bool ODD>
struct Alternate {
  static constexpr int part = 16 / sizeof(T);
  static constexpr int of(int lane) {
    const int within = lane % part, from_b = within / (part / 2);
    return from_b * LANES<T> + lane / part * part + within % (part / 2) * 2 + ODD;
  }
};

template <class T, class Op>
RELVLM_INLINE Vector<T> pair(Vector<T> a, Vector<T> b) {
  constexpr std::make_index_sequence<LANES<T>> lanes;
  return Op::of(shuffle<T, Alternate<T, false>>(a, b, lanes), shuffle<T, Alternate<T, true>>(a, b, lanes));
}

// Folds a vector into 16 bytes, and writes these.
template <class T, class Op, class V>
RELVLM_INLINE void fold(V x, T* to) {
  if constexpr (sizeof x == 16) {
    __builtin_memcpy(to, &x, sizeof x);
  } else {
    constexpr size_t lanes = sizeof x / sizeof(T) / 2;
    constexpr std::make_index_sequence<lanes> first;
    fold<T, Op>(Op::of(half<T, 0>(x, first), half<T, lanes>(x, first)), to);
  }
}

// Writes what the lanes of each of four vectors come to.
template <class T, class Op>
RELVLM_INLINE void reduce_four(const Vector<T>* x, T* to) {
  const Vector<T> a = pair<T, Op>(x[0], x[1]), b = pair<T, Op>(x[2], x[3]);
  if constexpr (sizeof(T) == 4) {
    fold<T, Op>(pair<T, Op>(a, b), to);
  } else {
    fold<T, Op>(a, to), fold<T, Op>(b, to + 2);
  }
}

// Likewise of `count` vectors, and up to three more.
template <class T, class Op>
RELVLM_INLINE void reduce(const Vector<T>* x, int count, T* to) {
  for (int i = 0; i < count; i += 4) reduce_four<T, Op>(x + i, to + i);
}

// Lanes of the first (SECOND: the other) of two rows after their off-diagonal blocks of SIZE lanes were exchanged.
template <class T, int SIZE, bool SECOND>
struct Exchange {
  static constexpr int of(int lane) {
    const bool from_b = lane & SIZE;
    return SECOND ? (from_b ? LANES<T> + lane : lane + SIZE) : (from_b ? LANES<T> + lane - SIZE : lane);
  }
};

// Transposes a square of LANES rows.
template <class T, int SIZE = LANES<T> / 2>
RELVLM_INLINE void transpose(Vector<T>* rows) {
  constexpr std::make_index_sequence<LANES<T>> lanes;
#pragma GCC unroll 16
  for (int i = 0; i < LANES<T>; ++i) {
    if (i & SIZE) continue;
    const Vector<T> a = rows[i], b = rows[i + SIZE];
    rows[i] = shuffle<T, Exchange<T, SIZE, false>>(a, b, lanes);
    rows[i + SIZE] = shuffle<T, Exchange<T, SIZE, true>>(a, b, lanes);
  }
  if constexpr (SIZE > 1) transpose<T, SIZE / 2>(rows);
}

// exp of x <= 0: 2^r by a minimax polynomial. Relative error below 2e-7 + 1.3e-8 |x|; 0 below -87; NaN stays NaN.
RELVLM_INLINE Vector<float> exponential(Vector<float> x) {
  typedef uint32_t Bits __attribute__((vector_size(RELVLM_VECTOR)));
  const float magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to a whole number, left in the low bits
  const Vector<float> shifted = x * 1.44269504f + magic;
  const Vector<float> whole = shifted - magic;
  const Vector<float> r = x * 1.44269504f - whole;
  Vector<float> y = splat(1.32647273e-3f);
  y = y * r + 9.67151299e-3f;
  y = y * r + 5.55073358e-2f;
  y = y * r + 2.40222424e-1f;
  y = y * r + 6.93147004e-1f;
  y = y * r + 1.f;
  y = (Vector<float>)((Bits)y + ((Bits)shifted << 23));
  return x < splat(-87.f) ? Vector<float>{} : y;
}

// log of x > 0, normal (polynomial of Cephes' logf).
RELVLM_INLINE Vector<float> logarithm(Vector<float> x) {
  typedef int32_t Bits __attribute__((vector_size(RELVLM_VECTOR)));
  typedef uint32_t Unsigned __attribute__((vector_size(RELVLM_VECTOR)));
  const Bits shifted = (Bits)((Unsigned)x - 0x3F3504F3u);  // of sqrt(1/2): the rest lies in [sqrt(1/2), sqrt(2))
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
