// A bias of the scores of sequences of one length: (heads, tokens, tokens), with a mask (masks, tokens, tokens) that
// the sequences take in turn.
#pragma once

#include "attention.h"
#include "tiles.h"
#include "vector.h"

namespace relvlm {
namespace RELVLM_ISA {

// That of one item and head; rows are `stride` apart, and whole vectors long.
template <class T>
class Bias {
 public:
  Bias(const Plan& plan, const Call& call, const Item& item, int64_t head) : stride_(call.bias_row) {
    if (!call.bias) return;
    const int64_t number = &item - plan.items, square = item.keys * stride_;
    first_ = plan.rows[plan.runs[item.runs_begin].rows_begin];
    bias_ = static_cast<const T*>(call.bias) + head * square;
    if (call.mask) mask_ = static_cast<const T*>(call.mask) + number % call.masks * square;
    if (call.dbias) gradient_ = static_cast<T*>(call.dbias) + (number / call.chunk * call.heads + head) * square;
  }
  void add_to(const Tile& tile, T* scores) const {
    if (bias_) add_rows(tile, scores, bias_);
    if (mask_) add_rows(tile, scores, mask_);
  }
  void add_gradient(const Tile& tile, const T* dscores) const {
    if (!gradient_) return;
    for_rows(tile, dscores, [&](const Part& part, int i, const T* row) {
      T* const to = gradient_ + (tile.rows[i] - first_) * stride_;
      for_vectors(row, 0, part.keys, T(0), [&](int j, Vector<T> x) { store(to + j, load(to + j) + x); });
    });
  }

 private:
  void add_rows(const Tile& tile, T* scores, const T* from) const {
    for_rows(tile, scores, [&](const Part& part, int i, T* row) {
      const T* const added = from + (tile.rows[i] - first_) * stride_;
      for (int j = 0; j < part.keys; j += LANES<T>) store(row + j, load(row + j) + load(added + j));
    });
  }

  int64_t stride_;
  int32_t first_ = 0;
  const T *bias_ = nullptr, *mask_ = nullptr;
  T* gradient_ = nullptr;
};

}  // namespace RELVLM_ISA
}  // namespace relvlm
