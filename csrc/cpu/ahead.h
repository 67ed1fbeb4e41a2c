// What the next head or item needs, asked of memory ahead.
#pragma once

#include "rows.h"
#include "tiles.h"

namespace relvlm {
namespace RELVLM_ISA {

template <class S>
RELVLM_INLINE void prefetch(const S* row, int width) {
  for (int d = 0; d < width; d += 64 / int(sizeof(S))) __builtin_prefetch(row + d, 0, 2);
}

// What the next head or item reads and writes, asked of memory bit by bit during the work on this one: its rows lie so
// far apart that the processor does not foresee them, and a burst of them would hold up what is read now.
template <class S>
class Ahead {
 public:
  Ahead(const Plan& plan, const Call& call, const Item& item, int64_t head)
      : head_(head), width_(static_cast<int>(call.width)), same_(head + 1 < call.heads) {
    first_row_ = plan.rows + plan.runs[item.runs_begin].rows_begin;
    rows_ = plan.runs[item.runs_end - 1].rows_end - plan.runs[item.runs_begin].rows_begin;
    const Item* const next = same_ ? &item : &item + 1;
    if (next == plan.items + plan.item_count || next->runs_begin == next->runs_end) return;
    next_rows_ = plan.rows + plan.runs[next->runs_begin].rows_begin;
    queries_ = plan.runs[next->runs_end - 1].rows_end - plan.runs[next->runs_begin].rows_begin;
    key_row_ = next->key_row, keys_ = next->keys;
  }
  // Rows of this head that the next one has its own of, `apart` elements on.
  template <class Row>
  void of_queries(Rows<Row> rows, int64_t apart) {
    of_queries_[query_sources_++] = shifted(rows, apart);
  }
  template <class Row>
  void of_keys(Rows<Row> rows, int64_t apart) {
    of_keys_[key_sources_++] = shifted(rows, apart);
  }
  // Spreads a tile's share over the keys of so many `dots` of each part.
  void begin(const Tile& tile, int dots) {
    int keys = 0;
    for (const Part& part : tile) keys += part.keys;
    start_ = asked_, done_ = 0;
    due_ = static_cast<int32_t>((queries_ + keys_) * (tile.rows + tile.count - first_row_) / rows_);
    rate_ = static_cast<float>(due_ - start_) / static_cast<float>(keys * dots + 1);
  }
  // Before work on so many keys.
  RELVLM_INLINE void operator()(int keys) {
    done_ += keys;
    const int32_t end = start_ + static_cast<int32_t>(static_cast<float>(done_) * rate_);
    if (asked_ < end) ask(end < due_ ? end : due_);
  }
  void end() { ask(due_); }

 private:
  template <class Row>
  Rows<const S> shifted(Rows<Row> rows, int64_t apart) const {
    return {rows.data + (same_ ? apart : -head_ * apart), rows.stride};
  }
  __attribute__((noinline)) void ask(int32_t end) {
    for (; asked_ < end; ++asked_) {
      if (asked_ < queries_)
        for (int i = 0; i < query_sources_; ++i) prefetch(of_queries_[i][next_rows_[asked_]], width_);
      else
        for (int i = 0; i < key_sources_; ++i) prefetch(of_keys_[i][key_row_ + asked_ - queries_], width_);
    }
  }

  int64_t head_;
  int width_;
  bool same_;
  const int32_t *first_row_, *next_rows_ = nullptr;
  int64_t key_row_ = 0;
  int32_t rows_, queries_ = 0, keys_ = 0, asked_ = 0, start_ = 0, due_ = 0, done_ = 0;
  float rate_ = 0;
  int query_sources_ = 0, key_sources_ = 0;
  Rows<const S> of_queries_[4], of_keys_[4];
};

}  // namespace RELVLM_ISA
}  // namespace relvlm
