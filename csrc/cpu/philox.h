// Philox-4x32-7 in vectors of counters, all four words of each; see dropout.py.
#pragma once

#include "vector.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace relvlm {
namespace RELVLM_ISA {

typedef uint32_t Words __attribute__((vector_size(RELVLM_VECTOR)));
typedef uint64_t LongWords __attribute__((vector_size(RELVLM_VECTOR)));
constexpr int WORDS = RELVLM_VECTOR / 4;

// Products of the words in even places: one instruction, which compilers do not find for vectors of 32 bytes and less.
RELVLM_INLINE LongWords multiply_even(Words x, uint32_t factor) {
  const Words factors = Words{} + factor;
#if defined(__AVX512F__)
  return (LongWords)_mm512_maskz_mul_epu32(0xFF, (__m512i)x, (__m512i)factors);
#elif defined(__AVX2__)
  return (LongWords)_mm256_mul_epu32((__m256i)x, (__m256i)factors);
#elif defined(__SSE2__)
  return (LongWords)_mm_mul_epu32((__m128i)x, (__m128i)factors);
#else
  return ((LongWords)x & 0xFFFFFFFFu) * ((LongWords)factors & 0xFFFFFFFFu);
#endif
}

// High and low words of the products with one factor: those of the even places, then of the odd ones.
RELVLM_INLINE void multiply(Words x, uint32_t factor, Words& high, Words& low) {
  const LongWords even = multiply_even(x, factor), odd = multiply_even((Words)((LongWords)x >> 32), factor);
  const LongWords upper = ~LongWords{} << 32;
  high = (Words)(even >> 32 | (odd & upper));
  low = (Words)((even & ~upper) | odd << 32);
}

// From the four words of counters to those that they give.
RELVLM_INLINE void philox(Words (&x)[4], uint64_t seed) {
  uint32_t low = static_cast<uint32_t>(seed), high = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 7; ++round, low += 0x9E3779B9u, high += 0xBB67AE85u) {
    Words high_a, low_a, high_c, low_c;
    multiply(x[0], 0xD2511F53u, high_a, low_a);
    multiply(x[2], 0xCD9E8D57u, high_c, low_c);
    x[0] = high_c ^ x[1] ^ low, x[1] = low_c, x[2] = high_a ^ x[3] ^ high, x[3] = low_a;
  }
}

}  // namespace RELVLM_ISA
}  // namespace relvlm
