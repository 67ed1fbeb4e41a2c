// The parts of the processor that C++ has no words for, as small functions: copies to shared memory that run on
// their own, fragments of matrices, products on tensor cores, conversions, launching.
//
// The same kernels run on a CPU for tests: there `emulation.h` (tests/kernels/cuda_shim) stands in for this file.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__CUDACC__)
#include "emulation.h"
#else

#include <cuda_runtime.h>

namespace relvlm {

struct Bfloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// Dynamic shared memory of the block.
__device__ __forceinline__ char* shared_memory() {
  extern __shared__ __align__(16) char relvlm_shared[];
  return relvlm_shared;
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes, or zeros where `valid` is false; both addresses are multiples of 16.
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until all but the newest `pending` groups of this thread's copies are there.
template <int pending>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Four 8x8 matrices of 16 bits; lane i names row i % 8 of matrix i / 8.
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}

#define RELVLM_MMA_16(type)                                                                          \
  asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                                         \
      ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                         \
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                               \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

// c (16, 8) += a (16, 16) b (16, 8).
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t* b, Bfloat16) {
  RELVLM_MMA_16("bf16");
}

__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t* b, Half) {
  RELVLM_MMA_16("f16");
}

#undef RELVLM_MMA_16

// c (16, 8) += a (16, 8) b (8, 8), of numbers that `to_tf32` has rounded.
__device__ __forceinline__ void mma_tf32(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
        "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

__device__ __forceinline__ float to_tf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return __uint_as_float(bits);
}

// Two numbers in one register, `low` in the lower half.
__device__ __forceinline__ uint32_t pack(float low, float high, Bfloat16) {
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}

__device__ __forceinline__ uint32_t pack(float low, float high, Half) {
  uint32_t bits;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}

__device__ __forceinline__ float to_float(Bfloat16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }

__device__ __forceinline__ float to_float(Half x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

// 2^x, to about two units in the last place; 0 where that is below the least normal number.
__device__ __forceinline__ float power_of_2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// By 32 or more: 0.
__device__ __forceinline__ uint32_t shift_left(uint32_t x, int by) { return __funnelshift_lc(0u, x, by); }

// An index tensor is wrong: as with torch's own kernels on the device, the stream ends in an error.
__device__ __forceinline__ void refuse() { __trap(); }

// The next good launch would report the error once more.
inline int cleared(cudaError_t error) {
  cudaGetLastError();
  return error;
}

inline int use_device(int device) {
  const cudaError_t error = cudaSetDevice(device);
  return error ? cleared(error) : 0;
}

inline int wait_for_device() {
  const cudaError_t error = cudaStreamSynchronize(nullptr);
  return error ? cleared(error) : 0;
}

// Bytes of shared memory that a block can have; 0 where the device does not say.
inline int shared_limit(int device) {
  int bytes = 0;
  const cudaError_t error = cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return error ? cleared(error) * 0 : bytes;
}

// 0, or the error's number.
template <class... Parameters>
int launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared, void* stream,
           Parameters... arguments) {
  if (!grid.x || !grid.y || !grid.z) return 0;
  if (shared > 48 * 1024) {
    const auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    const cudaError_t error = cudaFuncSetAttribute(kernel, attribute, static_cast<int>(shared));
    if (error != cudaSuccess) return cleared(error);
  }
  kernel<<<grid, threads, shared, static_cast<cudaStream_t>(stream)>>>(arguments...);
  return cudaGetLastError();
}

}  // namespace relvlm

#endif

namespace relvlm {

constexpr int WARP = 32;
constexpr uint32_t ALL = 0xffffffffu;  // lanes

__device__ __forceinline__ float to_float(float x) { return x; }

template <class T>
__device__ __forceinline__ void store_one(T* to, float x) {
  to->bits = uint16_t(pack(x, x, T{}) & 0xffff);
}

__device__ __forceinline__ void store_one(float* to, float x) { *to = x; }

__device__ __forceinline__ int lane_id() { return threadIdx.x % WARP; }
__device__ __forceinline__ int warp_id() { return threadIdx.x / WARP; }

}  // namespace relvlm
