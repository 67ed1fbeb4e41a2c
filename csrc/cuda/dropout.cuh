// The keep-mask of dropout: a function of the seed and of (key, packed row, head) alone, so that the backward makes
// it again. Philox-4x32-7 gives the words of four keys, those that a lane holds of 16 in a `Block`; see dropout.py.
#pragma once

#include "call.h"
#include "device.cuh"

namespace relvlm {

template <bool active>
struct Dropout;

template <>
struct Dropout<false> {
  __device__ explicit Dropout(const Call&) {}
  __device__ __forceinline__ bool keeps(int, int, int) const { return true; }
  __device__ __forceinline__ float scale() const { return 1.f; }
};

template <>
struct Dropout<true> {
  const Call& call;
  uint32_t key0, key1;

  __device__ explicit Dropout(const Call& of)
      : call(of), key0(uint32_t(*of.seed)), key1(uint32_t(uint64_t(*of.seed) >> 32)) {}

  __device__ __forceinline__ uint32_t threshold() const { return call.threshold; }

  // What kept weights are multiplied by.
  __device__ __forceinline__ float scale() const { return call.kept; }

  // Of one key alone. The mean token is the key after the last.
  __device__ __forceinline__ bool keeps(int key, int row, int head) const {
    uint32_t words[4];
    draw(quad_of(key), row, head, words);
    const uint32_t low = key % 2 ? words[1] : words[0], high = key % 2 ? words[3] : words[2];
    return (key / 8 % 2 ? high : low) >= call.threshold;
  }

  __device__ __forceinline__ static uint32_t quad_of(int key) { return key / 16 * 4 + key / 2 % 4; }

  // Bit i: whether word i says that its weight is kept.
  __device__ __forceinline__ uint32_t kept_bits(uint32_t quad, uint32_t row, uint32_t head) const {
    uint32_t words[4], bits = 0;
    draw(quad, row, head, words);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (words[i] >= call.threshold) bits |= 1u << i;
    return bits;
  }

  // Words of the keys 16 b + 2 i + (0, 1, 8, 9), which are quad 4 b + i.
  __device__ __forceinline__ void draw(uint32_t quad, uint32_t row, uint32_t head, uint32_t (&words)[4]) const {
    uint32_t c0 = quad, c1 = row, c2 = head, c3 = 0, k0 = key0, k1 = key1;
#pragma unroll
    for (int round = 0; round < 7; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
      const uint32_t high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
      const uint32_t high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
      c0 = high1 ^ c1 ^ k0;
      c1 = low1;
      c2 = high0 ^ c3 ^ k1;
      c3 = low0;
    }
    words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
  }
};

}  // namespace relvlm
