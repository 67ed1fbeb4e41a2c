// The passes of fused_rows.h, row by row; compiled once per instruction set. Arithmetic is of type T, whatever the type S
// of the tensors; a row's scratch begins on a cache line and has room for whole vectors.

#include "fused_rows.h"

#include <cmath>
#include <type_traits>

#include "attention.h"
#include "gelu.h"
#include "philox.h"
#include "rows.h"

namespace relvlm {
namespace RELVLM_ISA {

constexpr int KEEP_BLOCK = 64;  // columns whose words are those of 16 counters

template <class T>
RELVLM_INLINE T lanes_sum(Vector<T> x) {
  T total = 0;
  for (int i = 0; i < LANES<T>; ++i) total += x[i];
  return total;
}

// A row of a tensor as it lies, or packed into the scratch: of another type, or not of whole vectors.
template <class T, class S>
RELVLM_INLINE const T* row_of(const void* tensor, int64_t row, int width, T* scratch) {
  const S* const from = static_cast<const S*>(tensor) + row * width;
  if constexpr (std::is_same_v<T, S>)
    if (width % LANES<T> == 0) return from;
  pack_row(from, width, T(1), scratch);
  return scratch;
}

// Where a row is written: to the tensor as it lies, or to the scratch, from which `finish` rounds it.
template <class T, class S>
RELVLM_INLINE T* target_of(void* tensor, int64_t row, int width, T* scratch) {
  if constexpr (std::is_same_v<T, S>)
    if (width % LANES<T> == 0) return static_cast<T*>(tensor) + row * width;
  return scratch;
}

template <class T, class S>
RELVLM_INLINE void finish(const T* target, void* tensor, int64_t row, int width) {
  S* const to = static_cast<S*>(tensor) + row * width;
  if (static_cast<const void*>(target) != to) write_row(target, width, T(1), to);
}

RELVLM_INLINE void write_keep(Words words, uint32_t below, float scale, float* to) {
  const Words kept = (Words)(words >= below) & (Words)splat(scale);
  __builtin_memcpy(to, &kept, sizeof kept);
}

RELVLM_INLINE void write_keep(Words words, uint32_t below, double scale, double* to) {
  for (int i = 0; i < WORDS; ++i) to[i] = words[i] >= below ? scale : 0;
}

// What dropout multiplies a row with: its scale or 0. Column 64 b + 16 w + i has word w of the counter (16 b + i, row,
// 0, 1); see dropout.py.
template <class T>
void keep_row(const AddNorm& call, int64_t row, T* to) {
  Words lanes;
  for (int i = 0; i < WORDS; ++i) lanes[i] = i;
  for (int64_t block = 0; block < call.width; block += KEEP_BLOCK)
    for (int first = 0; first < 16; first += WORDS) {
      const uint32_t counter = static_cast<uint32_t>(block / 4 + first);
      Words x[4] = {lanes + counter, Words{} + static_cast<uint32_t>(row), Words{}, Words{} + 1u};
      philox(x, call.seed);
      for (int w = 0; w < 4; ++w)
        write_keep(x[w], call.drop_below, static_cast<T>(call.keep_scale), to + block + 16 * w + first);
    }
}

template <class T>
struct Scratch {
  T* next;
  int padded;
  Scratch(void* scratch, int64_t width) : next(static_cast<T*>(scratch)), padded(size_of(width)) {}
  static int size_of(int64_t width) { return round_up(static_cast<int>(width), KEEP_BLOCK); }
  T* row() {
    T* const taken = next;
    next += padded;
    return taken;
  }
};

constexpr int SCRATCH_ROWS = 8;

// Sums over the rows of a block, in two steps: what the rows of a strip come to is rounded as often as its rows, and not
// as those of the block.
constexpr int64_t STRIP = 8;

template <class T>
struct Columns {
  T *strip, *sums;  // `count` rows of `padded` each
  int count, padded;

  Columns(Scratch<T>& scratch, int count, void* sums)
      : strip(scratch.next), sums(static_cast<T*>(sums)), count(count), padded(scratch.padded) {
    for (int i = 0; i < count; ++i) scratch.row();
    __builtin_memset(strip, 0, size_t(count) * padded * sizeof(T));
  }
  T* row(int which) { return strip + which * padded; }
  void end_row(int64_t done, bool last) {
    if (done % STRIP && !last) return;
    for (int d = 0; d < count * padded; d += LANES<T>) {
      store(sums + d, load(sums + d) + load(strip + d));
      store(strip + d, Vector<T>{});
    }
  }
};

// Parameters of columns, packed once for all rows.
template <class T, class S>
const T* parameter(const void* tensor, int64_t width, Scratch<T>& scratch) {
  return row_of<T, S>(tensor, 0, static_cast<int>(width), scratch.row());
}

// Mean and 1 / deviation; the padding of the row is set to the mean.
template <class T>
RELVLM_INLINE void moments(T* row, int width, double eps, T& mean, T& rstd) {
  Vector<T> sum{}, squares{};
  const int padded = round_up(width, LANES<T>);
  for (int d = width; d < padded; ++d) row[d] = 0;
  for (int d = 0; d < padded; d += LANES<T>) sum += load(row + d);
  mean = lanes_sum<T>(sum) / width;
  for (int d = width; d < padded; ++d) row[d] = mean;
  for (int d = 0; d < padded; d += LANES<T>) {
    const Vector<T> off = load(row + d) - mean;
    squares += off * off;
  }
  rstd = T(1) / std::sqrt(lanes_sum<T>(squares) / width + static_cast<T>(eps));
}

template <class T, class S>
void add_norm_of(const AddNorm& call, int64_t begin, int64_t end, void* memory) {
  const int width = static_cast<int>(call.width);
  Scratch<T> scratch(memory, width);
  const T* const weight = parameter<T, S>(call.weight, width, scratch);
  const T* const shift = parameter<T, S>(call.shift, width, scratch);
  T *const x_room = scratch.row(), *const residual_room = scratch.row(), *const keep = scratch.row();
  T *const total_room = scratch.row(), *const out_room = scratch.row();
  for (int64_t i = begin; i < end; ++i) {
    const T* const x = row_of<T, S>(call.x, i, width, x_room);
    const T* const residual = row_of<T, S>(call.residual, i, width, residual_room);
    T* const total = target_of<T, S>(call.total, i, width, total_room);
    T* const out = target_of<T, S>(call.out, i, width, out_room);
    if (call.drop_below) keep_row(call, i, keep);
    for (int d = 0; d < width; d += LANES<T>) {
      Vector<T> branch = load(x + d);
      if (call.drop_below) branch *= load(keep + d);
      store(total + d, load(residual + d) + branch);
    }
    T mean, rstd;
    moments(total, width, call.eps, mean, rstd);
    for (int d = 0; d < width; d += LANES<T>)
      store(out + d, (load(total + d) - mean) * rstd * load(weight + d) + load(shift + d));
    finish<T, S>(total, call.total, i, width), finish<T, S>(out, call.out, i, width);
    static_cast<T*>(call.mean)[i] = mean, static_cast<T*>(call.rstd)[i] = rstd;
  }
}

template <class T, class S>
void add_norm_backward_of(const AddNorm& call, int64_t begin, int64_t end, void* sums, void* memory) {
  const int width = static_cast<int>(call.width);
  Scratch<T> scratch(memory, width);
  const T* const weight = parameter<T, S>(call.weight, width, scratch);
  T *const grad_room = scratch.row(), *const total_room = scratch.row();
  T *const keep = scratch.row(), *const dtotal_room = scratch.row(), *const dx_room = scratch.row();
  Columns<T> columns(scratch, 2, sums);
  T *const dweight = columns.row(0), *const dshift = columns.row(1);
  for (int64_t i = begin; i < end; ++i) {
    const T* const grad = row_of<T, S>(call.grad, i, width, grad_room);
    const T* const total = row_of<T, S>(call.total, i, width, total_room);
    T* const dtotal = target_of<T, S>(call.dresidual, i, width, dtotal_room);
    const T mean = static_cast<const T*>(call.mean)[i], rstd = static_cast<const T*>(call.rstd)[i];
    Vector<T> of_grad{}, of_product{};
    for (int d = 0; d < width; d += LANES<T>) {
      const Vector<T> g = load(grad + d), normal = (load(total + d) - mean) * rstd, weighed = g * load(weight + d);
      store(dweight + d, load(dweight + d) + g * normal);
      store(dshift + d, load(dshift + d) + g);
      of_grad += weighed, of_product += weighed * normal;  // of padding: its gradient is 0
    }
    const T mean_grad = lanes_sum<T>(of_grad) / width, mean_product = lanes_sum<T>(of_product) / width;
    for (int d = 0; d < width; d += LANES<T>) {
      const Vector<T> normal = (load(total + d) - mean) * rstd, weighed = load(grad + d) * load(weight + d);
      store(dtotal + d, (weighed - mean_grad - normal * mean_product) * rstd);
    }
    finish<T, S>(dtotal, call.dresidual, i, width);
    if (call.drop_below) {
      T* const dx = target_of<T, S>(call.dx, i, width, dx_room);
      keep_row(call, i, keep);
      for (int d = 0; d < width; d += LANES<T>) store(dx + d, load(dtotal + d) * load(keep + d));
      finish<T, S>(dx, call.dx, i, width);
    }
    columns.end_row(i + 1 - begin, i + 1 == end);
  }
}

template <class T, class S>
void bias_gelu_of(const BiasGelu& call, int64_t begin, int64_t end, void* memory) {
  const int width = static_cast<int>(call.width);
  Scratch<T> scratch(memory, width);
  const T* const bias = parameter<T, S>(call.bias, width, scratch);
  T *const x_room = scratch.row(), *const out_room = scratch.row();
  for (int64_t i = begin; i < end; ++i) {
    const T* const x = row_of<T, S>(call.x, i, width, x_room);
    T* const out = target_of<T, S>(call.out, i, width, out_room);
    for (int d = 0; d < width; d += LANES<T>) store(out + d, gelu(load(x + d) + load(bias + d)).value);
    finish<T, S>(out, call.out, i, width);
  }
}

template <class T, class S>
void bias_gelu_backward_of(const BiasGelu& call, int64_t begin, int64_t end, void* sums, void* memory) {
  const int width = static_cast<int>(call.width);
  Scratch<T> scratch(memory, width);
  const T* const bias = parameter<T, S>(call.bias, width, scratch);
  T *const x_room = scratch.row(), *const grad_room = scratch.row();
  T *const out_room = scratch.row(), *const dx_room = scratch.row();
  Columns<T> columns(scratch, 1, sums);
  T* const dbias = columns.row(0);
  for (int64_t i = begin; i < end; ++i) {
    const T* const x = row_of<T, S>(call.x, i, width, x_room);
    const T* const grad = row_of<T, S>(call.grad, i, width, grad_room);
    T* const out = target_of<T, S>(call.out, i, width, out_room);
    T* const dx = target_of<T, S>(call.dx, i, width, dx_room);
    for (int d = 0; d < width; d += LANES<T>) {
      const Gelu<T> at = gelu(load(x + d) + load(bias + d));
      const Vector<T> found = at.slope * load(grad + d);
      store(out + d, at.value);
      store(dx + d, found);
      store(dbias + d, load(dbias + d) + found);
    }
    finish<T, S>(out, call.out, i, width), finish<T, S>(dx, call.dx, i, width);
    columns.end_row(i + 1 - begin, i + 1 == end);
  }
}

template <class T, class S>
void add_blocks_of(const T* sums, int64_t blocks, int64_t stride, int64_t width, S* to) {
  for (int64_t d = 0; d < width; d += LANES<T>) {
    Vector<T> total{};
    for (int64_t block = 0; block < blocks; ++block) total += load(sums + block * stride + d);
    T lanes[LANES<T>];
    store(lanes, total);
    write_row(lanes, static_cast<int>(width - d < LANES<T> ? width - d : LANES<T>), T(1), to + d);
  }
}

size_t bytes(int64_t width, int32_t type) {
  return size_t(SCRATCH_ROWS) * Scratch<float>::size_of(width) * (type == FLOAT64 ? sizeof(double) : sizeof(float));
}

#define RELVLM_BY_TYPE(function, ...)                                          \
  switch (call.type) {                                                         \
    case FLOAT64: return function<double, double>(call, __VA_ARGS__);          \
    case BFLOAT16: return function<float, Bfloat16>(call, __VA_ARGS__);        \
    case FLOAT16: return function<float, Float16>(call, __VA_ARGS__);          \
    default: return function<float, float>(call, __VA_ARGS__);                 \
  }

void add_norm(const AddNorm& call, int64_t begin, int64_t end, void* scratch) {
  RELVLM_BY_TYPE(add_norm_of, begin, end, scratch)
}

void add_norm_backward(const AddNorm& call, int64_t begin, int64_t end, void* sums, void* scratch) {
  RELVLM_BY_TYPE(add_norm_backward_of, begin, end, sums, scratch)
}

void bias_gelu(const BiasGelu& call, int64_t begin, int64_t end, void* scratch) {
  RELVLM_BY_TYPE(bias_gelu_of, begin, end, scratch)
}

void bias_gelu_backward(const BiasGelu& call, int64_t begin, int64_t end, void* sums, void* scratch) {
  RELVLM_BY_TYPE(bias_gelu_backward_of, begin, end, sums, scratch)
}

void add_blocks(const void* sums, int64_t blocks, int64_t stride, int64_t width, int32_t type, void* to) {
  const auto* const wide = static_cast<const double*>(sums);
  const auto* const narrow = static_cast<const float*>(sums);
  switch (type) {
    case FLOAT64: return add_blocks_of(wide, blocks, stride, width, static_cast<double*>(to));
    case BFLOAT16: return add_blocks_of(narrow, blocks, stride, width, static_cast<Bfloat16*>(to));
    case FLOAT16: return add_blocks_of(narrow, blocks, stride, width, static_cast<Float16*>(to));
    default: return add_blocks_of(narrow, blocks, stride, width, static_cast<float*>(to));
  }
}

}  // namespace RELVLM_ISA

#define RELVLM_JOIN(a, b) a##b
#define RELVLM_TABLE(isa) RELVLM_JOIN(rows_, isa)
#define RELVLM_QUOTE(isa) #isa
#define RELVLM_NAME(isa) RELVLM_QUOTE(isa)

const RowKernels RELVLM_TABLE(RELVLM_ISA) = {
    RELVLM_NAME(RELVLM_ISA), RELVLM_ISA::bytes,     RELVLM_ISA::add_norm,           RELVLM_ISA::add_norm_backward,
    RELVLM_ISA::bias_gelu,   RELVLM_ISA::bias_gelu_backward, RELVLM_ISA::add_blocks,
};

}  // namespace relvlm
