// What the parts of the CPU op share: a plan of who looks at which keys, a call, and one table of kernels per
// instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace relvlm {

// Queries that see the same keys: plan rows [rows_begin, rows_end), one or several groups.
struct Run {
  int32_t rows_begin, rows_end;
  int64_t keys_begin;  // place in the plan's keys
  int32_t keys;
  int32_t prefix;  // the first keys, no part of the box
  bool mean;       // one more key, the mean of the box's
};

// One image or one sequence: its keys lie in rows [key_row, key_row + keys).
struct Item {
  int64_t key_row;
  int32_t keys;
  int32_t runs_begin, runs_end;
};

constexpr int KEYS_PADDING = 8;  // the last key of a run is repeated up to a multiple of this

struct Plan {
  const int32_t* rows;  // packed query rows, item by item
  const int32_t* keys;  // within the item, run by run
  const Run* runs;
  const Item* items;
  int32_t item_count;
  int32_t most_keys;  // of any item
};

enum Type : int32_t { FLOAT32 = 0, FLOAT64 = 1, BFLOAT16 = 2, FLOAT16 = 3 };

// This and `BoxMean` are mirrored by relvlm_kernels/cpu/library.py. Pointers are to elements of `type`, `lse` to float
// or, for float64, double; strides count elements, the last dimension has stride 1; out (rows, heads, width) and lse
// (rows, heads) are contiguous. The forward writes out and lse, the backward reads them and grad, and writes dq, dk
// and dv. A bias, its mask and its gradient are of the type of the arithmetic, their rows `bias_row` apart, a multiple
// of 64 bytes; each `chunk` of sequences adds to a gradient of its own.
struct Call {
  const void *q, *k, *v, *grad, *bias, *mask;
  void *out, *lse, *dq, *dk, *dv, *dbias;
  int64_t q_row, q_head, k_row, k_head, v_row, v_head, grad_row, grad_head;
  int64_t dq_row, dq_head, dk_row, dk_head, dv_row, dv_head;
  int64_t queries, keys, heads, width, bias_row, masks, chunk;
  double scale;
  double keep_scale;     // 1 / (1 - dropout)
  uint64_t seed;         // of the keep-mask
  uint32_t drop_below;   // floor(dropout * 2^32); 0 without dropout
  int32_t type, backward, threads;
};

// The forward reads x (images, tokens, width) and writes (groups, width); the backward reads that one's gradient, whose
// rows lie `source_row` apart, and writes that of x. `to` is contiguous.
struct BoxMean {
  const void* source;
  void* to;
  const int32_t *box, *image;
  int64_t source_image, source_row, width;
  int32_t groups, images, tokens, grid_rows, grid_columns, type, backward, threads;
};

// `scratch` holds `bytes` and is aligned to 64; the kernels write all outputs of (item, head).
struct Kernels {
  const char* name;
  size_t (*bytes)(const Plan&, const Call&);
  void (*forward)(const Plan&, const Call&, const Item&, int64_t head, void* scratch);
  void (*backward)(const Plan&, const Call&, const Item&, int64_t head, void* scratch);
  size_t (*box_bytes)(const BoxMean&);
  void (*box_mean)(const BoxMean&, int32_t group, void* scratch);
  void (*box_mean_backward)(const BoxMean&, int32_t image, const int32_t* groups, int32_t count, void* scratch);
};

extern const Kernels kernels_baseline;
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;

}  // namespace relvlm
