// Where the fields of the structures lie that relvlm_kernels/cpu/library.py mirrors.

#include "../common/layout.h"

#include "attention.h"
#include "plan.h"

namespace relvlm {
namespace {

#define CALL(name) RELVLM_FIELD(Call, name)
#define GROUPS(name) RELVLM_FIELD(Groups, name)
#define BOX_MEAN(name) RELVLM_FIELD(BoxMean, name)

const Field FIELDS[] = {
    RELVLM_SIZE(Call)
    CALL(q) CALL(k) CALL(v) CALL(grad) CALL(bias) CALL(mask)
    CALL(out) CALL(lse) CALL(dq) CALL(dk) CALL(dv) CALL(dbias)
    CALL(q_row) CALL(q_head) CALL(k_row) CALL(k_head) CALL(v_row) CALL(v_head) CALL(grad_row) CALL(grad_head)
    CALL(dq_row) CALL(dq_head) CALL(dk_row) CALL(dk_head) CALL(dv_row) CALL(dv_head)
    CALL(queries) CALL(keys) CALL(heads) CALL(width) CALL(bias_row) CALL(masks) CALL(chunk)
    CALL(scale) CALL(keep_scale) CALL(seed) CALL(drop_below)
    CALL(type) CALL(backward) CALL(threads)
    RELVLM_SIZE(Groups)
    GROUPS(offsets) GROUPS(image) GROUPS(box) GROUPS(prefix) GROUPS(mean)
    GROUPS(count) GROUPS(images) GROUPS(tokens) GROUPS(grid_rows) GROUPS(grid_columns) GROUPS(partial)
    RELVLM_SIZE(BoxMean)
    BOX_MEAN(source) BOX_MEAN(to) BOX_MEAN(box) BOX_MEAN(image) BOX_MEAN(source_image) BOX_MEAN(source_row)
    BOX_MEAN(width) BOX_MEAN(groups) BOX_MEAN(images) BOX_MEAN(tokens) BOX_MEAN(grid_rows) BOX_MEAN(grid_columns)
    BOX_MEAN(type) BOX_MEAN(backward) BOX_MEAN(threads)
};

}  // namespace
}  // namespace relvlm

extern "C" const char* relvlm_layout() {
  static const std::string text = relvlm::text_of(relvlm::FIELDS);
  return text.c_str();
}
