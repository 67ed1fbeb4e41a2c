// Vectors of RELVLM_VECTOR bytes. Everything here is compiled once per instruction set, hence the namespace.
#pragma once

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

// A NaN in `b` wins over nothing: it shows up in the exponentials instead.
template <class T>
RELVLM_INLINE Vector<T> larger(Vector<T> a, Vector<T> b) {
  return b > a ? b : a;
}

template <class T>
RELVLM_INLINE T sum(Vector<T> x) {
  T lanes[LANES<T>];
  store(lanes, x);
#pragma GCC unroll 4
  for (int half = LANES<T> / 2; half; half /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

template <class T>
RELVLM_INLINE T largest(Vector<T> x) {
  T lanes[LANES<T>];
  store(lanes, x);
#pragma GCC unroll 4
  for (int half = LANES<T> / 2; half; half /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) lanes[i] = lanes[i + half] > lanes[i] ? lanes[i + half] : lanes[i];
  return lanes[0];
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

RELVLM_INLINE Vector<double> exponential(Vector<double> x) {
  for (int i = 0; i < LANES<double>; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

}  // namespace RELVLM_ISA
}  // namespace relvlm
