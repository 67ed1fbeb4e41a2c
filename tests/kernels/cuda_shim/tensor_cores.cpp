// Matrices and numbers of the emulated tensor cores: who holds which element follows the PTX manual.

#include <cstring>

#include "emulation.h"

namespace relvlm {

using emulation::Lanes;
using emulation::same_bits;

namespace {

uint16_t half_word(uint32_t word, int index) { return index ? word >> 16 : word & 0xffff; }

// Row r of matrix m lies where lane 8 m + r points; this lane gets two elements of row lane / 4 of each, or, if
// transposed, of column lane / 4.
void load_four(uint32_t (&to)[4], const void* row, bool transposed) {
  const uint64_t address = reinterpret_cast<uint64_t>(row);
  if (address % 16) emulation::fail("ldmatrix of an unaligned row");
  const uint32_t own[2] = {uint32_t(address), uint32_t(address >> 32)};
  emulation::exchange(own, 2, [&](const Lanes& lanes) {
    const auto element = [&](int matrix, int r, int c) {
      const uint32_t* const words = lanes[8 * matrix + r];
      return reinterpret_cast<const uint16_t*>(words[0] | uint64_t(words[1]) << 32)[c];
    };
    const int g = lane_of_thread() / 4, t = lane_of_thread() % 4 * 2;
    for (int m = 0; m < 4; ++m)
      to[m] = transposed ? element(m, t, g) | uint32_t(element(m, t + 1, g)) << 16
                         : element(m, g, t) | uint32_t(element(m, g, t + 1)) << 16;
  });
}

template <class T>
void mma_16(float (&c)[4], const uint32_t (&a)[4], const uint32_t* b) {
  const uint32_t own[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  emulation::exchange(own, 6, [&](const Lanes& lanes) {
    const int g = lane_of_thread() / 4, t = lane_of_thread() % 4 * 2;
    for (int e = 0; e < 4; ++e) {
      const int column = t + e % 2;
      float sum = 0;
      for (int k = 0; k < 16; ++k) {
        const uint32_t left = lanes[g * 4 + k % 8 / 2][e / 2 + k / 8 * 2];
        const uint32_t right = lanes[column * 4 + k % 8 / 2][4 + k / 8];
        sum += to_float(T{half_word(left, k % 2)}) * to_float(T{half_word(right, k % 2)});
      }
      c[e] += sum;
    }
  });
}

}  // namespace

void load_matrices(uint32_t (&to)[4], const void* row) { load_four(to, row, false); }
void load_matrices_transposed(uint32_t (&to)[4], const void* row) { load_four(to, row, true); }

void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t* b, Bfloat16) { mma_16<Bfloat16>(c, a, b); }
void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t* b, Half) { mma_16<Half>(c, a, b); }

void mma_tf32(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
  uint32_t own[6];
  for (int i = 0; i < 6; ++i) own[i] = same_bits<uint32_t>(i < 4 ? a[i] : b[i - 4]) & ~0x1fffu;
  emulation::exchange(own, 6, [&](const Lanes& lanes) {
    const int g = lane_of_thread() / 4, t = lane_of_thread() % 4 * 2;
    for (int e = 0; e < 4; ++e)
      for (int k = 0; k < 8; ++k)
        c[e] += same_bits<float>(lanes[g * 4 + k % 4][e / 2 + k / 4 * 2]) *
                same_bits<float>(lanes[(t + e % 2) * 4 + k % 4][4 + k / 4]);
  });
}

float to_tf32(float x) { return same_bits<float>((same_bits<uint32_t>(x) + 0x1000u) & ~0x1fffu); }

static uint16_t bfloat16_bits(float x) {
  const uint32_t bits = same_bits<uint32_t>(x);
  if (x != x) return 0x7fff;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

uint32_t pack(float low, float high, Bfloat16) { return bfloat16_bits(low) | uint32_t(bfloat16_bits(high)) << 16; }

uint32_t pack(float low, float high, Half) {
  return same_bits<uint16_t>(_Float16(low)) | uint32_t(same_bits<uint16_t>(_Float16(high))) << 16;
}

float to_float(Bfloat16 x) { return same_bits<float>(uint32_t(x.bits) << 16); }
float to_float(Half x) { return same_bits<_Float16>(x.bits); }

}  // namespace relvlm
