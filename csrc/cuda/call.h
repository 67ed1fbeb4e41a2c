// What a call of the attention kernels holds, and the plan of who looks at which keys.
//
// Mirrored by relvlm_kernels/cuda/library.py. Pointers are to device memory; nothing of a plan is known to the host
// but the sizes of its arrays.
#pragma once

#include <cstdint>

namespace relvlm {

constexpr float LOG2E = 1.4426950408889634f;
constexpr int TILE_ROWS = 64;  // queries, or keys, that a block of threads owns

enum Element : int32_t { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2 };

// What a query sees: the box, and the prefix if `prefix`. `share` is 1 / patches of the box if it sees their mean
// as well, else 0. An empty view sees nothing.
struct alignas(16) View {
  int32_t row;  // of the packed queries
  int32_t prefix;
  int32_t x0, y0, width, height;
  float share;
  int32_t unused;
};

// One image or one sequence: its keys, and its queries in the plan's order.
struct alignas(16) Item {
  int32_t key_row, keys, rows_begin, rows_end;
};

// Up to TILE_ROWS queries (or keys) of one item, none in spare tiles.
struct alignas(16) Tile {
  int32_t item, begin, count, unused;
};

// Sum of the weights' logarithm in base 2, sum of the weights times their gradients, what the mean token adds to
// the weight of each patch of the box and to the gradient of its score.
struct alignas(16) RowState {
  float lse2, delta, fold, dfold;
};

struct Plan {
  View* views;
  Item* items;
  Tile *query_tiles, *key_tiles;
};

// Index tensors: of sequences (offsets are cu_q, key_offsets cu_k, and there is no grid) or of groups.
struct Index {
  const int32_t *offsets, *key_offsets, *image, *box;
  const uint8_t *prefix, *mean;
  int32_t count, grid_rows, grid_columns, tokens;
};

// Strides count elements; `saved` and `out` are contiguous (rows, heads, width), `lse` (rows, heads), `states`
// (heads, rows). The forward writes out and lse, the backward reads grad, saved and lse and writes states, dq, dk and
// dv.
struct Call {
  const void *q, *k, *v, *grad, *saved;
  void *out, *dq, *dk, *dv;
  float* lse;
  RowState* states;
  const int64_t* seed;
  void* stream;
  Plan plan;
  Index index;
  int64_t q_row, q_head, k_row, k_head, v_row, v_head, grad_row, grad_head;
  int64_t dq_row, dq_head, dk_row, dk_head, dv_row, dv_head;
  int32_t queries, keys, heads, width, items;
  int32_t element, backward, device;
  float scale, dropout, kept;  // 1 / (1 - dropout)
  uint32_t threshold;          // of the generator: floor(dropout * 2^32)
  int32_t partial;             // groups of images that are not there are left out, else they see nothing
  int32_t planned;             // the plan is one that an earlier call on this stream has made
};

}  // namespace relvlm
