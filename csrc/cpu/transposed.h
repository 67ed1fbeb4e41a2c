// Scores of runs of many rows: a product with their keys transposed, which sums nothing across lanes.
#pragma once

#include "products.h"
#include "rows.h"
#include "tiles.h"

namespace relvlm {
namespace RELVLM_ISA {

constexpr int MANY_ROWS = 12;  // of a part, from which on the transposition pays

// The keys of one run at a time, `padded` rows of them: pieces of some vectors each, one after another.
template <class T>
class Transposed {
 public:
  Transposed(Rows<const T> keys, int padded, T* memory) : keys_(keys), padded_(padded), memory_(memory) {}

  // Whether the part's scores should come by `dots` here.
  bool takes(const Part& part) const { return part.list == list_ || part.count() >= MANY_ROWS; }

  // Dot products of the packed rows of a part with its keys, up to whole vectors.
  template <class Between>
  void dots(const Part& part, const T* queries, T* scores, Between& between) {
    if (part.list != list_) transpose_keys(part);
    for_pieces<T>(round_up(part.keys, LANES<T>), [&](int j, auto vectors) {
      const Rows<const T> piece{memory_ + ptrdiff_t(j) * padded_, vectors() * LANES<T>};
      between(vectors() * LANES<T>);
      product<T, vectors()>(part.count(), queries + ptrdiff_t(part.begin) * padded_, padded_, piece, padded_,
                            part.row(scores, part.begin) + j, part.stride);
    });
  }

 private:
  __attribute__((noinline)) void transpose_keys(const Part& part) {
    list_ = part.list;
    for_pieces<T>(round_up(part.keys, LANES<T>), [&](int j, auto vectors) {
      for (int n = 0; n < vectors(); ++n)
        for (int d = 0; d < padded_; d += LANES<T>)
          transpose_square(part, j + n * LANES<T>, d, vectors() * LANES<T>,
                           memory_ + ptrdiff_t(j) * padded_ + n * LANES<T>);
    });
  }
  // Keys from `first` on, the last one instead of those beyond it.
  RELVLM_INLINE void transpose_square(const Part& part, int first, int d, ptrdiff_t row, T* to) const {
    Vector<T> square[LANES<T>];
#pragma GCC unroll 16
    for (int i = 0; i < LANES<T>; ++i)
      square[i] = load(keys_[part.list[first + i < part.keys ? first + i : part.keys - 1]] + d);
    transpose<T>(square);
#pragma GCC unroll 16
    for (int i = 0; i < LANES<T>; ++i) store(to + (d + i) * row, square[i]);
  }

  Rows<const T> keys_;
  int padded_;
  T* memory_;
  const int32_t* list_ = nullptr;
};

}  // namespace RELVLM_ISA
}  // namespace relvlm
