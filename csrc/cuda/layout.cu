// Where the fields of the structures lie that relvlm_kernels/cuda/library.py mirrors.

#include "../common/layout.h"

#include "call.h"
#include "pool.h"

namespace relvlm {
namespace {

#define PLAN(name) RELVLM_FIELD(Plan, name)
#define INDEX(name) RELVLM_FIELD(Index, name)
#define CALL(name) RELVLM_FIELD(Call, name)
#define BOX_MEAN(name) RELVLM_FIELD(BoxMean, name)
#define PAIR_LINEAR(name) RELVLM_FIELD(PairLinear, name)
#define ROW_SUMS(name) RELVLM_FIELD(RowSums, name)

const Field FIELDS[] = {
    RELVLM_SIZE(Plan)
    PLAN(views) PLAN(items) PLAN(query_tiles) PLAN(key_tiles)
    RELVLM_SIZE(Index)
    INDEX(offsets) INDEX(key_offsets) INDEX(image) INDEX(box) INDEX(prefix) INDEX(mean)
    INDEX(count) INDEX(grid_rows) INDEX(grid_columns) INDEX(tokens)
    RELVLM_SIZE(Call)
    CALL(q) CALL(k) CALL(v) CALL(grad) CALL(saved) CALL(out) CALL(dq) CALL(dk) CALL(dv) CALL(lse) CALL(states)
    CALL(seed) CALL(stream) CALL(plan) CALL(index)
    CALL(q_row) CALL(q_head) CALL(k_row) CALL(k_head) CALL(v_row) CALL(v_head) CALL(grad_row) CALL(grad_head)
    CALL(dq_row) CALL(dq_head) CALL(dk_row) CALL(dk_head) CALL(dv_row) CALL(dv_head)
    CALL(queries) CALL(keys) CALL(heads) CALL(width) CALL(items) CALL(element) CALL(backward) CALL(device)
    CALL(scale) CALL(dropout) CALL(kept) CALL(threshold) CALL(partial) CALL(planned)
    RELVLM_SIZE(BoxMean)
    BOX_MEAN(source) BOX_MEAN(to) BOX_MEAN(box) BOX_MEAN(image) BOX_MEAN(stream)
    BOX_MEAN(source_image) BOX_MEAN(source_row) BOX_MEAN(count) BOX_MEAN(images) BOX_MEAN(tokens) BOX_MEAN(width)
    BOX_MEAN(grid_rows) BOX_MEAN(grid_columns) BOX_MEAN(element) BOX_MEAN(backward) BOX_MEAN(device)
    RELVLM_SIZE(PairLinear)
    PAIR_LINEAR(h) PAIR_LINEAR(weight) PAIR_LINEAR(bias) PAIR_LINEAR(out) PAIR_LINEAR(subject) PAIR_LINEAR(object)
    PAIR_LINEAR(stream) PAIR_LINEAR(rows) PAIR_LINEAR(pairs) PAIR_LINEAR(width) PAIR_LINEAR(features)
    PAIR_LINEAR(element) PAIR_LINEAR(device)
    RELVLM_SIZE(RowSums)
    ROW_SUMS(source) ROW_SUMS(to) ROW_SUMS(places) ROW_SUMS(starts) ROW_SUMS(stream)
    ROW_SUMS(rows) ROW_SUMS(width) ROW_SUMS(element) ROW_SUMS(device)
};

}  // namespace
}  // namespace relvlm

extern "C" const char* relvlm_cuda_layout() {
  static const std::string text = relvlm::text_of(relvlm::FIELDS);
  return text.c_str();
}
