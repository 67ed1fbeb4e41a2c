// Means of the patches inside boxes, and their gradient, of one group and one image.
#pragma once

#include "attention.h"
#include "rows.h"

namespace relvlm {
namespace RELVLM_ISA {

template <class T, class S>
RELVLM_INLINE void add_row(const S* from, int width, T* to) {
  int d = 0;
  for (; d + LANES<T> <= width; d += LANES<T>) store(to + d, load(to + d) + load_as(from + d));
  if (d == width) return;
  S rest[LANES<T>] = {};
  __builtin_memcpy(rest, from + d, (width - d) * sizeof(S));
  store(to + d, load(to + d) + load_as(rest));
}

// Calls `row` with each token inside the box.
template <class Row>
RELVLM_INLINE void for_box(const BoxMean& call, const int32_t* box, Row row) {
  const int32_t first_patch = call.tokens - call.grid_rows * call.grid_columns;
  for (int32_t y = box[1]; y < box[3]; ++y)
    for (int32_t x = box[0]; x < box[2]; ++x) row(first_patch + y * call.grid_columns + x);
}

inline int32_t patches(const int32_t* box) { return (box[2] - box[0]) * (box[3] - box[1]); }

template <class T, class S>
void box_mean_of(const BoxMean& call, int32_t group, void* scratch) {
  const int width = static_cast<int>(call.width);
  const int32_t* const box = call.box + 4 * group;
  const S* const image = static_cast<const S*>(call.source) + call.image[group] * call.source_image;
  T* const total = static_cast<T*>(scratch);
  __builtin_memset(total, 0, round_up(width, LANES<T>) * sizeof(T));
  for_box(call, box, [&](int32_t token) { add_row(image + token * call.source_row, width, total); });
  write_row(total, width, 1 / T(patches(box)), static_cast<S*>(call.to) + group * call.width);
}

// All groups of one image, in their order: groups[begin, end).
template <class T, class S>
void box_mean_backward_of(const BoxMean& call, int32_t image, const int32_t* groups, int32_t count, void* scratch) {
  const int width = static_cast<int>(call.width), padded = round_up(width, LANES<T>);
  T *const spread = static_cast<T*>(scratch), *const sums = spread + padded;
  __builtin_memset(sums, 0, size_t(call.tokens) * padded * sizeof(T));
  for (int32_t i = 0; i < count; ++i) {
    const int32_t* const box = call.box + 4 * groups[i];
    pack_row(static_cast<const S*>(call.source) + groups[i] * call.source_row, width, 1 / T(patches(box)), spread);
    for_box(call, box, [&](int32_t token) { add_row(spread, padded, sums + size_t(token) * padded); });
  }
  S* const to = static_cast<S*>(call.to) + int64_t(image) * call.tokens * call.width;
  for (int32_t i = 0; i < call.tokens; ++i) write_row(sums + size_t(i) * padded, width, T(1), to + i * call.width);
}

inline size_t box_bytes(const BoxMean& call) {
  return (call.backward ? size_t(call.tokens) + 1 : 1) * round_up(static_cast<int>(call.width), 16) * sizeof(double);
}

inline void box_mean(const BoxMean& call, int32_t group, void* scratch) {
  switch (call.type) {
    case FLOAT64: return box_mean_of<double, double>(call, group, scratch);
    case BFLOAT16: return box_mean_of<float, Bfloat16>(call, group, scratch);
    case FLOAT16: return box_mean_of<float, Float16>(call, group, scratch);
    default: return box_mean_of<float, float>(call, group, scratch);
  }
}

inline void box_mean_backward(const BoxMean& call, int32_t image, const int32_t* groups, int32_t count, void* scratch) {
  switch (call.type) {
    case FLOAT64: return box_mean_backward_of<double, double>(call, image, groups, count, scratch);
    case BFLOAT16: return box_mean_backward_of<float, Bfloat16>(call, image, groups, count, scratch);
    case FLOAT16: return box_mean_backward_of<float, Float16>(call, image, groups, count, scratch);
    default: return box_mean_backward_of<float, float>(call, image, groups, count, scratch);
  }
}

}  // namespace RELVLM_ISA
}  // namespace relvlm
