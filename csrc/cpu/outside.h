// Rows before the first and after the last that some group or sequence owns: their outputs and gradients are zeros.
#pragma once

#include <limits>

#include "attention.h"

namespace relvlm {

// Of `rows` rows those in [begin, end) have an owner.
struct Owned {
  int64_t begin, end, rows;

  template <class Row>
  void for_others(Row row) const {
    for (int64_t i = 0; i < begin; ++i) row(i);
    for (int64_t i = end; i < rows; ++i) row(i);
  }
};

inline Owned owned(const int32_t* offsets, int32_t count, int64_t rows) { return {offsets[0], offsets[count], rows}; }

inline void clear(const Owned& owned, const Call& call, void* data, int64_t row_stride, int64_t head_stride) {
  const int64_t size = call.type == FLOAT64 ? 8 : call.type == FLOAT32 ? 4 : 2;
  owned.for_others([&](int64_t row) {
    for (int64_t head = 0; head < call.heads; ++head)
      __builtin_memset(static_cast<char*>(data) + (row * row_stride + head * head_stride) * size, 0, call.width * size);
  });
}

template <class T>
void no_lse(const Owned& owned, const Call& call) {
  owned.for_others([&](int64_t row) {
    for (int64_t head = 0; head < call.heads; ++head)
      static_cast<T*>(call.lse)[row * call.heads + head] = -std::numeric_limits<T>::infinity();
  });
}

inline void clear_queries(const Owned& owned, const Call& call) {
  if (call.backward) return clear(owned, call, call.dq, call.dq_row, call.dq_head);
  clear(owned, call, call.out, call.heads * call.width, call.width);
  call.type == FLOAT64 ? no_lse<double>(owned, call) : no_lse<float>(owned, call);
}

inline void clear_keys(const Owned& owned, const Call& call) {
  if (!call.backward) return;
  clear(owned, call, call.dk, call.dk_row, call.dk_head);
  clear(owned, call, call.dv, call.dv_row, call.dv_head);
}

}  // namespace relvlm
