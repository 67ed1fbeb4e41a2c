// What the parts of the CPU op share: a plan of who looks at which keys, a call, and one table of kernels per
// instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace relvlm {

// Keys [from, from + count) of an item.
struct Segment {
  int32_t from, count;
};

// Queries that see the same keys: plan rows [rows_begin, rows_end), one or several groups.
struct Run {
  int32_t rows_begin, rows_end;
  int32_t segments_begin, segments_end;
  int32_t keys;    // of all segments
  int32_t prefix;  // the first keys, no part of the box
  bool mean;       // one more key, the mean of the box's
};

// One image or one sequence: its keys lie in rows [key_row, key_row + keys).
struct Item {
  int64_t key_row;
  int32_t keys;
  int32_t runs_begin, runs_end;
};

struct Plan {
  const int32_t* rows;  // packed query rows, item by item
  const Segment* segments;
  const Run* runs;
  const Item* items;
  int32_t item_count;
  int32_t most_keys;  // of any item
};

// Mirrored by `_Call` in relvlm_kernels/cpu.py. Pointers are to float or to double; strides count elements, the
// last dimension has stride 1; outputs are contiguous (rows, heads, width). The forward writes out, the backward
// reads grad and writes dq, dk and dv.
struct Call {
  const void *q, *k, *v, *grad;
  void *out, *lse, *dq, *dk, *dv;
  int64_t q_row, q_head, k_row, k_head, v_row, v_head, grad_row, grad_head;
  int64_t queries, keys, heads, width;
  double scale;
  int32_t is_double, backward, threads;
};

// `scratch` holds `bytes` and is aligned to 64; the kernels write all outputs of (item, head).
struct Kernels {
  const char* name;
  size_t (*bytes)(const Plan&, const Call&);
  void (*forward)(const Plan&, const Call&, const Item&, int64_t head, void* scratch);
  void (*backward)(const Plan&, const Call&, const Item&, int64_t head, void* scratch);
};

extern const Kernels kernels_baseline;
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;

}  // namespace relvlm
