// Rows in the types of the tensors, and in that of the arithmetic: bfloat16 and float16 become float while a row is
// packed, and are rounded (to nearest, ties to even) when it is written.
#pragma once

#include "vector.h"

namespace relvlm {
namespace RELVLM_ISA {

// Rows of one head of a (rows, heads, width) tensor, or side by side.
template <class S>
struct Rows {
  S* data;
  ptrdiff_t stride;
  S* operator[](int64_t row) const { return data + row * stride; }
};

struct Bfloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

typedef uint32_t Bits __attribute__((vector_size(RELVLM_VECTOR)));
typedef uint16_t HalfBits __attribute__((vector_size(RELVLM_VECTOR / 2)));

RELVLM_INLINE Bits bits_of(Vector<float> x) { return (Bits)x; }
RELVLM_INLINE Vector<float> floats_of(Bits x) { return (Vector<float>)x; }

template <class S>
RELVLM_INLINE Bits load_half(const S* from) {
  HalfBits x;
  __builtin_memcpy(&x, from, sizeof x);
  return __builtin_convertvector(x, Bits);
}

template <class S>
RELVLM_INLINE void store_half(S* to, Bits x) {
  const HalfBits y = __builtin_convertvector(x, HalfBits);
  __builtin_memcpy(to, &y, sizeof y);
}

RELVLM_INLINE Vector<float> load_as(const float* from) { return load(from); }
RELVLM_INLINE Vector<double> load_as(const double* from) { return load(from); }
RELVLM_INLINE Vector<float> load_as(const Bfloat16* from) { return floats_of(load_half(from) << 16); }
RELVLM_INLINE Vector<float> load_as(const Float16* from) {
  const Bits x = load_half(from), exponent = x & 0x7C00u;
  const Bits value = bits_of(floats_of((x & 0x7FFFu) << 13) * 5.192296858534828e33f);  // 2^112: the other bias
  return floats_of((x & 0x8000u) << 16 | (exponent == 0x7C00u ? value | 0x7F800000u : value));
}

RELVLM_INLINE void store_as(float* to, Vector<float> x) { store(to, x); }
RELVLM_INLINE void store_as(double* to, Vector<double> x) { store(to, x); }
RELVLM_INLINE void store_as(Bfloat16* to, Vector<float> x) {
  const Bits bits = bits_of(x), rounded = bits + 0x7FFFu + (bits >> 16 & 1u);
  store_half(to, (x != x ? bits | 0x400000u : rounded) >> 16);
}
RELVLM_INLINE void store_as(Float16* to, Vector<float> x) {
  const Bits sign = bits_of(x) & 0x80000000u, bits = bits_of(x) ^ sign;
  const Vector<float> denormal = splat(0.5f);  // its last place is that of the smallest float16
  const Bits small = bits_of(floats_of(bits) + denormal) - bits_of(denormal);
  const Bits normal = (bits - 0x38000000u + 0xFFFu + (bits >> 13 & 1u)) >> 13;
  const Bits special = bits > 0x7F800000u ? Bits{} + 0x7E00u : Bits{} + 0x7C00u;
  const Bits value = bits >= 0x47800000u ? special : bits < 0x38800000u ? small : normal;
  store_half(to, value | sign >> 16);
}

// `width` elements times `scale`, then zeros up to a whole vector.
template <class T, class S>
RELVLM_INLINE void pack_row(const S* from, int width, T scale, T* to) {
  int d = 0;
  for (; d + LANES<T> <= width; d += LANES<T>) store(to + d, load_as(from + d) * scale);
  if (d == width) return;
  S rest[LANES<T>] = {};
  __builtin_memcpy(rest, from + d, (width - d) * sizeof(S));
  store(to + d, load_as(rest) * scale);
}

template <class T, class S>
RELVLM_INLINE void write_row(const T* from, int width, T scale, S* to) {
  int d = 0;
  for (; d + LANES<T> <= width; d += LANES<T>) store_as(to + d, load(from + d) * scale);
  if (d == width) return;
  S rest[LANES<T>];
  store_as(rest, load(from + d) * scale);
  __builtin_memcpy(to + d, rest, (width - d) * sizeof(S));
}

// Products of a packed row and one of a tensor, to be summed.
template <class T, class S>
RELVLM_INLINE Vector<T> row_products(const T* packed, const S* row, int width) {
  Vector<T> total{};
  int d = 0;
  for (; d + LANES<T> <= width; d += LANES<T>) total += load(packed + d) * load_as(row + d);
  if (d < width) {
    S rest[LANES<T>] = {};
    __builtin_memcpy(rest, row + d, (width - d) * sizeof(S));
    total += load(packed + d) * load_as(rest);
  }
  return total;
}

}  // namespace RELVLM_ISA
}  // namespace relvlm
