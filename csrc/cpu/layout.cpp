// Where the fields of the structures lie that relvlm_kernels/cpu/library.py mirrors.

#include "../common/layout.h"

#include "attention.h"
#include "fused_rows.h"
#include "plan.h"

namespace relvlm {
namespace {

#define CALL(name) RELVLM_FIELD(Call, name)
#define GROUPS(name) RELVLM_FIELD(Groups, name)
#define BOX_MEAN(name) RELVLM_FIELD(BoxMean, name)
#define ADD_NORM(name) RELVLM_FIELD(AddNorm, name)
#define BIAS_GELU(name) RELVLM_FIELD(BiasGelu, name)

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
    RELVLM_SIZE(AddNorm)
    ADD_NORM(x) ADD_NORM(residual) ADD_NORM(weight) ADD_NORM(shift) ADD_NORM(out) ADD_NORM(total) ADD_NORM(mean)
    ADD_NORM(rstd) ADD_NORM(grad) ADD_NORM(dresidual) ADD_NORM(dx) ADD_NORM(dweight) ADD_NORM(dshift) ADD_NORM(rows)
    ADD_NORM(width) ADD_NORM(eps) ADD_NORM(keep_scale) ADD_NORM(seed) ADD_NORM(drop_below) ADD_NORM(type) ADD_NORM(backward) ADD_NORM(threads)
    RELVLM_SIZE(BiasGelu)
    BIAS_GELU(x) BIAS_GELU(bias) BIAS_GELU(grad) BIAS_GELU(out) BIAS_GELU(dx) BIAS_GELU(dbias) BIAS_GELU(rows)
    BIAS_GELU(width) BIAS_GELU(type) BIAS_GELU(backward) BIAS_GELU(threads)
};

}  // namespace
}  // namespace relvlm

extern "C" const char* relvlm_layout() {
  static const std::string text = relvlm::text_of(relvlm::FIELDS);
  return text.c_str();
}
