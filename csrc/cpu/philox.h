// The keep-mask of dropout: Philox-4x32-10 with the counter (key, query row, head, 0); see dropout.py.
#pragma once

#include "vector.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace relvlm {
namespace RELVLM_ISA {

typedef uint32_t Words __attribute__((vector_size(RELVLM_VECTOR)));
typedef uint64_t LongWords __attribute__((vector_size(RELVLM_VECTOR)));  // of each, the lower half is a word
constexpr int WORDS = RELVLM_VECTOR / 4, PHILOX_ROUNDS = 10;

// Products of the lower halves with one factor. Compilers make several multiplications of a 64-bit product even where
// they could know that the upper halves are zeros.
RELVLM_INLINE LongWords multiply(LongWords x, uint32_t factor) {
#if RELVLM_VECTOR == 64 && defined(__AVX512F__)
  return (LongWords)_mm512_maskz_mul_epu32(0xFF, (__m512i)x, _mm512_set1_epi64(factor));
#elif RELVLM_VECTOR == 32 && defined(__AVX2__)
  return (LongWords)_mm256_mul_epu32((__m256i)x, _mm256_set1_epi64x(factor));
#elif RELVLM_VECTOR == 16 && defined(__SSE2__)
  return (LongWords)_mm_mul_epu32((__m128i)x, _mm_set1_epi64x(factor));
#else
  return (x & 0xFFFFFFFFu) * factor;
#endif
}

// The keep-mask of one head.
struct Dropout {
  uint32_t below, head;
  double scale;
  int32_t mean_key;                                    // the counter's key of the mean token
  LongWords low[PHILOX_ROUNDS], high[PHILOX_ROUNDS];  // Philox's key in each round

  Dropout(uint64_t seed, uint32_t below, uint32_t head, double scale, int32_t mean_key)
      : below(below), head(head), scale(scale), mean_key(mean_key) {
    uint32_t a = static_cast<uint32_t>(seed), b = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < PHILOX_ROUNDS; ++round, a += 0x9E3779B9u, b += 0xBB67AE85u)
      low[round] = LongWords{} + a, high[round] = LongWords{} + b;
  }
};

// First words, in the lower halves. Upper halves may hold anything all the way: no step lets them come down.
RELVLM_INLINE LongWords philox(LongWords keys, uint32_t row, const Dropout& dropout) {
  LongWords a = keys, b = LongWords{} + row, c = LongWords{} + dropout.head, d{};
#pragma GCC unroll 10
  for (int round = 0; round < PHILOX_ROUNDS; ++round) {
    const LongWords of_a = multiply(a, 0xD2511F53u), of_c = multiply(c, 0xCD9E8D57u);
    a = (of_c >> 32) ^ b ^ dropout.low[round], b = of_c;
    c = (of_a >> 32) ^ d ^ dropout.high[round], d = of_a;
  }
  return a;
}

// Those of the even and of the odd places, each by itself.
RELVLM_INLINE Words philox(Words keys, uint32_t row, const Dropout& dropout) {
  const LongWords even = philox((LongWords)keys, row, dropout), odd = philox((LongWords)keys >> 32, row, dropout);
  return (Words)((even & 0xFFFFFFFFu) | odd << 32);
}

RELVLM_INLINE void write_kept(Words words, const Dropout& dropout, float* to) {
  const Vector<float> scale = splat(static_cast<float>(dropout.scale));
  const Words kept = (Words)(words >= dropout.below) & (Words)scale;
  __builtin_memcpy(to, &kept, sizeof kept);
}

RELVLM_INLINE void write_kept(Words words, const Dropout& dropout, double* to) {
  for (int i = 0; i < WORDS; ++i) to[i] = words[i] >= dropout.below ? dropout.scale : 0;
}

}  // namespace RELVLM_ISA
}  // namespace relvlm
