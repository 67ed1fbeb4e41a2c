#include "plan.h"

#include <algorithm>
#include <numeric>

namespace relvlm {

static bool rises_within(const int32_t* offsets, int32_t count, int64_t rows) {
  for (int32_t i = 0; i < count; ++i)
    if (offsets[i] > offsets[i + 1]) return false;
  return offsets[0] >= 0 && offsets[count] <= rows;
}

static bool is_there(const Groups& groups, int32_t group) {
  return groups.image[group] >= 0 && groups.image[group] < groups.images;
}

Status check_boxes(const Groups& groups) {
  for (int32_t g = 0; g < groups.count; ++g) {
    if (!is_there(groups, g) && !groups.partial) return BAD_IMAGE;
    const int32_t* const box = groups.box + 4 * g;
    const bool inside = box[0] >= 0 && box[1] >= 0 && box[2] <= groups.grid_columns && box[3] <= groups.grid_rows;
    if (!inside || box[0] >= box[2] || box[1] >= box[3]) return BAD_BOX;
  }
  return OK;
}

// A counting sort.
std::vector<int32_t> by_image(const Groups& groups, std::vector<int32_t>& starts) {
  starts.assign(groups.images + 1, 0);
  for (int32_t g = 0; g < groups.count; ++g)
    if (is_there(groups, g)) ++starts[groups.image[g] + 1];
  std::partial_sum(starts.begin(), starts.end(), starts.begin());
  std::vector<int32_t> order(starts.back()), next(starts.begin(), starts.end());
  for (int32_t g = 0; g < groups.count; ++g)
    if (is_there(groups, g)) order[next[groups.image[g]]++] = g;
  return order;
}

static bool same_view(const Groups& groups, int32_t a, int32_t b) {
  return std::equal(groups.box + 4 * a, groups.box + 4 * a + 4, groups.box + 4 * b) &&
         groups.prefix[a] == groups.prefix[b] && groups.mean[a] == groups.mean[b];
}

Status PlanBuilder::add_sequences(const int32_t* cu_q, const int32_t* cu_k, int32_t sequences, int64_t queries,
                                  int64_t keys) {
  if (!rises_within(cu_q, sequences, queries) || !rises_within(cu_k, sequences, keys)) return BAD_OFFSETS;
  rows_.resize(queries);
  std::iota(rows_.begin(), rows_.end(), 0);
  for (int32_t s = 0; s < sequences; ++s) {
    const int32_t length = cu_k[s + 1] - cu_k[s];
    const int32_t run = static_cast<int32_t>(runs_.size());
    if (cu_q[s] < cu_q[s + 1]) {
      const size_t begin = keys_.size();
      for (int32_t i = 0; i < length; ++i) keys_.push_back(i);
      pad_keys();
      runs_.push_back({cu_q[s], cu_q[s + 1], static_cast<int64_t>(begin), length, 0, false});
    }
    items_.push_back({cu_k[s], length, run, static_cast<int32_t>(runs_.size())});
  }
  return OK;
}

Status PlanBuilder::add_groups(const Groups& groups, int64_t queries) {
  if (!rises_within(groups.offsets, groups.count, queries)) return BAD_OFFSETS;
  const Status status = check_boxes(groups);
  if (status != OK) return status;
  std::vector<int32_t> starts;
  const std::vector<int32_t> order = by_image(groups, starts);
  rows_.reserve(queries);
  for (int32_t image = 0; image < groups.images; ++image) {
    const int32_t first = static_cast<int32_t>(runs_.size());
    int32_t last = -1;  // the group whose view the current run has
    for (int32_t i = starts[image]; i < starts[image + 1]; ++i) {
      const int32_t group = order[i];
      if (groups.offsets[group] == groups.offsets[group + 1]) continue;
      if (last < 0 || !same_view(groups, last, group)) add_run(groups, group);
      for (int32_t row = groups.offsets[group]; row < groups.offsets[group + 1]; ++row) rows_.push_back(row);
      runs_.back().rows_end = static_cast<int32_t>(rows_.size());
      last = group;
    }
    items_.push_back({int64_t(image) * groups.tokens, groups.tokens, first, static_cast<int32_t>(runs_.size())});
  }
  return OK;
}

void PlanBuilder::add_run(const Groups& groups, int32_t group) {
  const int32_t* const box = groups.box + 4 * group;
  const int32_t first_patch = groups.tokens - groups.grid_rows * groups.grid_columns;
  const int32_t prefix = groups.prefix[group] ? first_patch : 0;
  const int32_t rows = static_cast<int32_t>(rows_.size());
  const size_t begin = keys_.size();
  for (int32_t i = 0; i < prefix; ++i) keys_.push_back(i);
  for (int32_t y = box[1]; y < box[3]; ++y)
    for (int32_t x = box[0]; x < box[2]; ++x) keys_.push_back(first_patch + y * groups.grid_columns + x);
  const int32_t keys = static_cast<int32_t>(keys_.size() - begin);
  pad_keys();
  runs_.push_back({rows, rows, static_cast<int64_t>(begin), keys, prefix, groups.mean[group] != 0});
}

// The kernels read keys by whole blocks, and must find none that lies outside of the tensors.
void PlanBuilder::pad_keys() {
  while (keys_.size() % KEYS_PADDING) keys_.push_back(keys_.back());
}

Plan PlanBuilder::plan() const {
  int32_t most = 0;
  for (const Item& item : items_) most = std::max(most, item.keys);
  return {rows_.data(), keys_.data(), runs_.data(), items_.data(), static_cast<int32_t>(items_.size()), most};
}

}  // namespace relvlm
