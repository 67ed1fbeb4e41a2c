// The C functions of the passes of fused_rows.h: rows are cut into blocks, blocks shared by threads.

#include <cstdlib>
#include <cstring>
#include <memory>

#include "fused_rows.h"
#include "plan.h"

extern "C" const char* relvlm_instructions();

namespace relvlm {
namespace {

const RowKernels& selected() {
  const RowKernels* const compiled[] = {
#if defined(RELVLM_HAS_AVX512)
      &rows_avx512,
#endif
#if defined(RELVLM_HAS_AVX2)
      &rows_avx2,
#endif
      &rows_baseline,
  };
  for (const RowKernels* kernels : compiled)
    if (!std::strcmp(kernels->name, relvlm_instructions())) return *kernels;
  return rows_baseline;
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<char, Free>;

// Zeros, on a cache line; null where memory is short.
Memory zeros(size_t bytes) {
  const size_t whole = (bytes / 64 + 1) * 64;
  Memory memory(static_cast<char*>(std::aligned_alloc(64, whole)));
  if (memory) std::memset(memory.get(), 0, whole);
  return memory;
}

// `run(begin, end, block, scratch)` for each block of rows.
template <class Run>
Status for_blocks(int64_t rows, int threads, size_t scratch_bytes, Run run) {
  const int64_t blocks = (rows + ROWS_OF_A_BLOCK - 1) / ROWS_OF_A_BLOCK;
  bool short_of_memory = false;
#pragma omp parallel num_threads(threads) if (threads > 1 && blocks > 1) reduction(|| : short_of_memory)
  {
    const Memory scratch = zeros(scratch_bytes);
    short_of_memory = !scratch;
    // Every thread takes part: it must not skip its share of the loop in silence.
#pragma omp for schedule(static)
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t begin = block * ROWS_OF_A_BLOCK, end = begin + ROWS_OF_A_BLOCK;
      if (scratch) run(begin, end < rows ? end : rows, block, scratch.get());
    }
  }
  return short_of_memory ? NO_MEMORY : OK;
}

// Sums of columns, `count` rows of them for each block.
struct Sums {
  int64_t blocks, padded, size;
  int count;
  Memory memory;

  Sums(int64_t rows, int64_t width, int32_t type, int count)
      : blocks((rows + ROWS_OF_A_BLOCK - 1) / ROWS_OF_A_BLOCK),
        padded((width + 63) / 64 * 64),
        size(type == FLOAT64 ? 8 : 4),
        count(count),
        memory(zeros(blocks * count * padded * size)) {}

  char* of(int64_t block) const { return memory.get() + block * count * padded * size; }
  void add(const RowKernels& kernels, int which, int64_t width, int32_t type, void* to) const {
    kernels.add_blocks(memory.get() + which * padded * size, blocks, count * padded, width, type, to);
  }
};

}  // namespace
}  // namespace relvlm

using namespace relvlm;

extern "C" {

int32_t relvlm_add_norm(const AddNorm* call) {
  const RowKernels& kernels = selected();
  const size_t bytes = kernels.bytes(call->width, call->type);
  if (!call->backward)
    return for_blocks(call->rows, call->threads, bytes, [&](int64_t begin, int64_t end, int64_t, void* scratch) {
      kernels.add_norm(*call, begin, end, scratch);
    });
  const Sums sums(call->rows, call->width, call->type, 2);
  if (!sums.memory) return NO_MEMORY;
  const Status status =
      for_blocks(call->rows, call->threads, bytes, [&](int64_t begin, int64_t end, int64_t block, void* scratch) {
        kernels.add_norm_backward(*call, begin, end, sums.of(block), scratch);
      });
  sums.add(kernels, 0, call->width, call->type, call->dweight);
  sums.add(kernels, 1, call->width, call->type, call->dshift);
  return status;
}

int32_t relvlm_bias_gelu(const BiasGelu* call) {
  const RowKernels& kernels = selected();
  const size_t bytes = kernels.bytes(call->width, call->type);
  if (!call->backward)
    return for_blocks(call->rows, call->threads, bytes, [&](int64_t begin, int64_t end, int64_t, void* scratch) {
      kernels.bias_gelu(*call, begin, end, scratch);
    });
  const Sums sums(call->rows, call->width, call->type, 1);
  if (!sums.memory) return NO_MEMORY;
  const Status status =
      for_blocks(call->rows, call->threads, bytes, [&](int64_t begin, int64_t end, int64_t block, void* scratch) {
        kernels.bias_gelu_backward(*call, begin, end, sums.of(block), scratch);
      });
  sums.add(kernels, 0, call->width, call->type, call->dbias);
  return status;
}

}  // extern "C"
