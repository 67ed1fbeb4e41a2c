// Runs the CUDA kernels on a CPU, for tests: each thread of a block is a fiber, which stops at barriers and wherever
// its warp exchanges something. Stands in for csrc/cuda/device.cuh; the tensor cores' fragments follow the layouts
// of the PTX manual ("Matrix multiply-accumulate operation using mma instruction", "ldmatrix").
//
// What goes wrong on a GPU in silence is made to show: shared memory begins as NaN and lies in a buffer of its exact
// size; asynchronous copies land as late as they may, or at once (`relvlm_emulation_eager`); threads run in either
// order (`relvlm_emulation_reversed`); a barrier that not all threads reach ends the program.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  explicit dim3(unsigned x_ = 0, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

extern dim3 gridDim, blockIdx, threadIdx;

using cudaError_t = int;
inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }

using std::max;
using std::min;

namespace relvlm {

struct Bfloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

namespace emulation {

// Words that the lanes of the calling thread's warp hand to each other; `reading` sees them all.
constexpr int WORDS = 8;
using Lanes = uint32_t[32][WORDS];
void exchange(const uint32_t* own, int count, const std::function<void(const Lanes&)>& reading);

void run(const std::function<void()>& kernel, dim3 grid, int threads, size_t shared);
[[noreturn]] void fail(const char* what);

template <class To, class From>
To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}

template <class T>
T shuffle(T value, int from_lane) {
  const uint32_t own = same_bits<uint32_t>(value);
  T found{};
  exchange(&own, 1, [&](const Lanes& lanes) { found = same_bits<T>(lanes[from_lane][0]); });
  return found;
}

}  // namespace emulation

char* shared_memory();
void copy_async(void* shared, const void* global, bool valid);
void commit_copies();
void wait_for_copies_but(int pending);
template <int pending>
void wait_for_copies() {
  wait_for_copies_but(pending);
}

void load_matrices(uint32_t (&to)[4], const void* row);
void load_matrices_transposed(uint32_t (&to)[4], const void* row);
void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t* b, Bfloat16);
void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t* b, Half);
void mma_tf32(float (&c)[4], const float (&a)[4], const float (&b)[2]);
float to_tf32(float x);

uint32_t pack(float low, float high, Bfloat16);
uint32_t pack(float low, float high, Half);
float to_float(Bfloat16 x);
float to_float(Half x);

inline float power_of_2(float x) { return x < -126 ? 0.f : std::exp2(x); }
inline uint32_t shift_left(uint32_t x, int by) { return by < 32 ? x << by : 0; }

inline void refuse() { emulation::fail("refused"); }

inline int use_device(int) { return 0; }
inline int wait_for_device() { return 0; }
inline int shared_limit(int) { return 99 * 1024; }  // of sm_86, 89 and 120

template <class... Parameters>
int launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared, void*, Parameters... arguments) {
  emulation::run([&] { kernel(arguments...); }, grid, threads, shared);
  return 0;
}

}  // namespace relvlm

void __syncthreads();
void __syncwarp();
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return uint64_t(a) * b >> 32; }
inline int lane_of_thread() { return threadIdx.x % 32; }

template <class T>
T __shfl_sync(uint32_t, T value, int lane) {
  return relvlm::emulation::shuffle(value, lane);
}
template <class T>
T __shfl_xor_sync(uint32_t, T value, int mask) {
  return relvlm::emulation::shuffle(value, lane_of_thread() ^ mask);
}
template <class T>
T __shfl_up_sync(uint32_t, T value, int step) {
  const int lane = lane_of_thread();
  return relvlm::emulation::shuffle(value, lane < step ? lane : lane - step);
}

inline uint32_t __ballot_sync(uint32_t, bool vote) {
  const uint32_t own = vote;
  uint32_t votes = 0;
  relvlm::emulation::exchange(&own, 1, [&](const relvlm::emulation::Lanes& lanes) {
    for (int lane = 0; lane < 32; ++lane) votes |= lanes[lane][0] << lane;
  });
  return votes;
}
inline bool __any_sync(uint32_t mask, bool vote) { return __ballot_sync(mask, vote) != 0; }
