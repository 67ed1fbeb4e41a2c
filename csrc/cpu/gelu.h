// GELU by the normal distribution's function Phi, and its derivative.
#pragma once

#include "vector.h"

namespace relvlm {
namespace RELVLM_ISA {

template <class T>
struct Gelu {
  Vector<T> value, slope;  // x Phi(x) and Phi(x) + x phi(x)
};

// exp(-x^2 / 2): 2^r by a minimax polynomial (2e-9); log2(e) in two parts, and squares up to 170 alone: 1e-37.
RELVLM_INLINE Vector<float> bell(Vector<float> x) {
  typedef uint32_t Bits __attribute__((vector_size(RELVLM_VECTOR)));
  const float magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to a whole number, left in the low bits
  const Vector<float> bounded = x * x < splat(170.f) ? x * x : splat(170.f);
  const Vector<float> shifted = bounded * -0.72134752f + magic;  // log2(e) / 2
  const Vector<float> whole = shifted - magic;
  const Vector<float> r = (bounded * -0.72134752f - whole) + bounded * -9.62981495e-9f;
  Vector<float> y = splat(1.53533606e-4f);
  y = y * r + 1.33988749e-3f;
  y = y * r + 9.61843737e-3f;
  y = y * r + 5.55033247e-2f;
  y = y * r + 2.40226479e-1f;
  y = y * r + 6.93147203e-1f;
  y = y * r + 1.f;
  return (Vector<float>)((Bits)y + ((Bits)shifted << 23));
}

// Phi(-z) for z >= 0 is exp(-z^2/2) P(t) with t = 1 / (1 + .26 z): the least relative error over [0, 13] (2e-8).
RELVLM_INLINE Vector<float> tail(Vector<float> z, Vector<float> bell) {
  const Vector<float> t = 1.f / (1.f + 0.26f * z);
  Vector<float> y = splat(0.0310659856f);
  y = y * t - 0.155574113f;
  y = y * t + 0.257210135f;
  y = y * t - 0.157559916f;
  y = y * t + 0.165576503f;
  y = y * t + 0.0490218885f;
  y = y * t + 0.103554644f;
  y = y * t + 0.102941237f;
  y = y * t + 0.103763640f;
  return y * t * bell;
}

RELVLM_INLINE Gelu<float> gelu(Vector<float> x) {
  const Vector<float> e = bell(x), below = tail(x < Vector<float>{} ? -x : x, e);
  const Vector<float> phi = x < Vector<float>{} ? below : 1.f - below;
  return {x * phi, phi + x * e * 0.398942280f};
}

RELVLM_INLINE Gelu<double> gelu(Vector<double> x) {
  Gelu<double> found;
  for (int i = 0; i < LANES<double>; ++i) {
    const double phi = 0.5 * __builtin_erfc(-x[i] * 0.70710678118654752), e = __builtin_exp(-0.5 * x[i] * x[i]);
    found.value[i] = x[i] * phi;
    found.slope[i] = phi + x[i] * e * 0.39894228040143268;
  }
  return found;
}

}  // namespace RELVLM_ISA
}  // namespace relvlm
