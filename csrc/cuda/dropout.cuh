// The keep-mask of dropout: a function of the seed and of (key, packed row, head) alone, so that the backward makes
// it again. Philox-4x32 with ten rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
#pragma once

#include "call.h"
#include "device.cuh"

namespace relvlm {

template <bool active>
struct Dropout;

template <>
struct Dropout<false> {
  __device__ explicit Dropout(const Call&) {}
  __device__ __forceinline__ float keep(int, int, int) const { return 1.f; }
};

template <>
struct Dropout<true> {
  const Call& call;
  uint32_t key0, key1;

  __device__ explicit Dropout(const Call& of)
      : call(of), key0(uint32_t(*of.seed)), key1(uint32_t(uint64_t(*of.seed) >> 32)) {}

  // 0, or what a kept weight is multiplied by. The mean token is the key after the last.
  __device__ __forceinline__ float keep(int key, int row, int head) const {
    return first_word(key, row, head) >= call.threshold ? call.kept : 0.f;
  }

  __device__ __forceinline__ uint32_t first_word(uint32_t c0, uint32_t c1, uint32_t c2) const {
    uint32_t c3 = 0, k0 = key0, k1 = key1;
#pragma unroll
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
      const uint32_t high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
      const uint32_t high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
      c0 = high1 ^ c1 ^ k0;
      c1 = low1;
      c2 = high0 ^ c3 ^ k1;
      c3 = low0;
    }
    return c0;
  }
};

}  // namespace relvlm
