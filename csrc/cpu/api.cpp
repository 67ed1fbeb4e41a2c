// The C ABI of the CPU op: no header of torch or Python, so that one library serves every version of both.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "attention.h"
#include "outside.h"
#include "plan.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace relvlm {
namespace {

bool runs_here(const Kernels& kernels) {
#if defined(RELVLM_HAS_AVX512)
  if (&kernels == &kernels_avx512) return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
#endif
#if defined(RELVLM_HAS_AVX2)
  if (&kernels == &kernels_avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return &kernels == &kernels_baseline;
}

// Widest first.
const Kernels* const COMPILED[] = {
#if defined(RELVLM_HAS_AVX512)
    &kernels_avx512,
#endif
#if defined(RELVLM_HAS_AVX2)
    &kernels_avx2,
#endif
    &kernels_baseline,
};

const Kernels* widest() {
  for (const Kernels* kernels : COMPILED)
    if (runs_here(*kernels)) return kernels;
  return &kernels_baseline;
}

const Kernels* selected = widest();

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// Memory of this thread, kept between calls: fresh pages would cost as much as a small call.
void* scratch_of_thread(size_t bytes) {
  thread_local std::unique_ptr<void, Free> memory;
  thread_local size_t held = 0;
  if (bytes > held) {
    held = 0;
    const size_t whole = (bytes + 4095) / 4096 * 4096;
    memory.reset(std::aligned_alloc(64, whole));
    if (!memory) return nullptr;
    std::memset(memory.get(), 0, whole);  // lanes beyond the end are computed, and thrown away
    held = whole;
  }
  return memory.get();
}

Status attend(const Plan& plan, const Call& call) {
  const Kernels& kernels = *selected;
  const auto kernel = call.backward ? kernels.backward : kernels.forward;
  const size_t bytes = kernels.bytes(plan, call);
  // Items that add to one gradient of the bias are one thread's, in their order.
  const int64_t total = plan.item_count * call.heads, together = call.dbias ? call.chunk * call.heads : 1;
  const int64_t shares = (total + together - 1) / together;
  bool short_of_memory = false;
#pragma omp parallel num_threads(call.threads) if (call.threads > 1 && shares > 1) reduction(|| : short_of_memory)
  {
    void* const scratch = scratch_of_thread(bytes);
    short_of_memory = scratch == nullptr;
    // Every thread takes part: it must not skip its share of the loop in silence.
#pragma omp for schedule(guided)
    for (int64_t share = 0; share < shares; ++share)
      for (int64_t i = share * together; scratch && i < std::min(total, (share + 1) * together); ++i)
        kernel(plan, call, plan.items[i / call.heads], i % call.heads, scratch);
  }
  return short_of_memory ? NO_MEMORY : OK;
}

// By group forward, by image backward: no two write the same row.
Status mean_of_boxes(const BoxMean& call, const std::vector<int32_t>& order, const std::vector<int32_t>& starts) {
  const Kernels& kernels = *selected;
  const size_t bytes = kernels.box_bytes(call);
  const int32_t total = call.backward ? call.images : call.groups;
  bool short_of_memory = false;
#pragma omp parallel num_threads(call.threads) if (call.threads > 1 && total > 1) reduction(|| : short_of_memory)
  {
    void* const scratch = scratch_of_thread(bytes);
    short_of_memory = scratch == nullptr;
#pragma omp for schedule(dynamic, 1)
    for (int32_t i = 0; i < total; ++i) {
      if (!scratch) continue;
      if (call.backward)
        kernels.box_mean_backward(call, i, order.data() + starts[i], starts[i + 1] - starts[i], scratch);
      else
        kernels.box_mean(call, i, scratch);
    }
  }
  return short_of_memory ? NO_MEMORY : OK;
}

}  // namespace
}  // namespace relvlm

using namespace relvlm;

extern "C" {

int32_t relvlm_openmp() {
#if defined(_OPENMP)
  return 1;
#else
  return 0;
#endif
}

// Name of the kernels in use.
const char* relvlm_instructions() { return selected->name; }

// Takes other kernels; 0 where they are not compiled or cannot run on this processor. For tests.
int32_t relvlm_select(const char* name) {
  for (const Kernels* kernels : COMPILED)
    if (!std::strcmp(kernels->name, name) && runs_here(*kernels)) {
      selected = kernels;
      return 1;
    }
  return 0;
}

int32_t relvlm_varlen_attention(const Call* call, const int32_t* cu_q, const int32_t* cu_k, int32_t sequences) try {
  PlanBuilder builder;
  const Status status = builder.add_sequences(cu_q, cu_k, sequences, call->queries, call->keys);
  if (status != OK) return status;
  clear_queries(owned(cu_q, sequences, call->queries), *call);
  clear_keys(owned(cu_k, sequences, call->keys), *call);
  return attend(builder.plan(), *call);
} catch (const std::bad_alloc&) {
  return NO_MEMORY;
}

int32_t relvlm_region_attention(const Call* call, const Groups* groups) try {
  PlanBuilder builder;
  const Status status = builder.add_groups(*groups, call->queries);
  if (status != OK) return status;
  clear_queries(owned(groups->offsets, groups->count, call->queries), *call);
  return attend(builder.plan(), *call);
} catch (const std::bad_alloc&) {
  return NO_MEMORY;
}

int32_t relvlm_box_mean(const BoxMean* call) try {
  const Groups groups{nullptr, call->image, call->box, nullptr, nullptr, call->groups, call->images, call->tokens,
                      call->grid_rows, call->grid_columns, false};
  const Status status = check_boxes(groups);
  if (status != OK) return status;
  std::vector<int32_t> starts;
  const std::vector<int32_t> order = by_image(groups, starts);
  return mean_of_boxes(*call, order, starts);
} catch (const std::bad_alloc&) {
  return NO_MEMORY;
}

}  // extern "C"
