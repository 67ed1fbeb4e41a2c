// Plans: which query rows look at which keys, made from the index tensors of the ops.
#pragma once

#include <vector>

#include "attention.h"

namespace relvlm {

// What is wrong with index tensors; `OK` is 0. Mirrored by `ERRORS` in relvlm_kernels/cpu/library.py.
enum Status : int32_t { OK = 0, BAD_OFFSETS = 1, BAD_IMAGE = 2, BAD_BOX = 3, NO_MEMORY = 4 };

// The index tensors of `region_attention`, mirrored by relvlm_kernels/cpu/library.py; flags are 0 or 1. Groups of images that are not there are an error, or are
// left out where `partial`.
struct Groups {
  const int32_t *offsets, *image, *box;
  const uint8_t *prefix, *mean;
  int32_t count, images, tokens, grid_rows, grid_columns, partial;
};

// Groups by image, in their packed order, without those that have none; `starts` gets the first place of each image,
// and the end.
std::vector<int32_t> by_image(const Groups& groups, std::vector<int32_t>& starts);
// Images and boxes alone.
Status check_boxes(const Groups& groups);

// Owns what a `Plan` points at.
class PlanBuilder {
 public:
  // One item per sequence. Offsets must rise within the number of rows; rows outside of them are in no item.
  Status add_sequences(const int32_t* cu_q, const int32_t* cu_k, int32_t sequences, int64_t queries, int64_t keys);
  // One item per image, with or without groups. Neighbours that see the same keys become one run.
  Status add_groups(const Groups& groups, int64_t queries);
  Plan plan() const;

 private:
  void add_run(const Groups& groups, int32_t group);
  void pad_keys();

  std::vector<int32_t> rows_, keys_;
  std::vector<Run> runs_;
  std::vector<Item> items_;
};

}  // namespace relvlm
