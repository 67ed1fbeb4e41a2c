// The first layer of the MRC head: two rows are gathered for each triplet straight into the product's tiles, the
// concatenation is never stored.

#include "fragment.cuh"
#include "pool.h"
#include "tile.cuh"

namespace relvlm {
namespace {

constexpr int DEPTH = 32;  // columns of a step through [subject; object]
constexpr int COLUMNS = 64;

template <class T>
using PairShape = Shape<T, DEPTH>;

template <class T>
constexpr size_t PAIR_BYTES = 2 * (TILE_ROWS + COLUMNS) * PairShape<T>::row_bytes;

__device__ __forceinline__ int64_t row_of(const PairLinear& call, const int64_t* rows, int pair) {
  const int64_t row = rows[pair];
  if (row < 0 || row >= call.rows) refuse();
  return row;
}

// Columns `depth`.. of the block's pairs and of the weight's rows.
template <class T>
__device__ __forceinline__ void fetch(const PairLinear& call, int depth, T* a, T* b) {
  using S = PairShape<T>;
  const bool of_subject = depth < call.width;
  const int64_t* const rows = of_subject ? call.subject : call.object;
  const int first_pair = blockIdx.x * TILE_ROWS, first_feature = blockIdx.y * COLUMNS;
  for (int i = threadIdx.x; i < TILE_ROWS * S::chunks; i += THREADS) {
    const int row = i / S::chunks, column = i % S::chunks * S::chunk;
    const bool pair_there = first_pair + row < call.pairs, feature_there = first_feature + row < call.features;
    const int64_t from = pair_there ? row_of(call, rows, first_pair + row) : 0;
    const int64_t feature = feature_there ? first_feature + row : 0;
    copy_async(a + row * S::stride + column,
               static_cast<const T*>(call.h) + from * call.width + depth - (of_subject ? 0 : call.width) + column,
               pair_there);
    copy_async(b + row * S::stride + column,
               static_cast<const T*>(call.weight) + feature * 2 * call.width + depth + column, feature_there);
  }
  commit_copies();
}

template <class T>
__device__ __forceinline__ void store(const PairLinear& call, int pair, int feature, float sum) {
  if (pair >= call.pairs || feature >= call.features) return;
  const int64_t place = int64_t(pair) * call.features + feature;
  const float x = sum + to_float(static_cast<const T*>(call.bias)[feature]);
  store_one(static_cast<T*>(call.out) + place, x < 0 ? 0.f : x);  // a NaN stays one
}

template <class T>
__global__ void __launch_bounds__(THREADS) linear_of_pairs(PairLinear call) {
  using S = PairShape<T>;
  T* const tiles = reinterpret_cast<T*>(shared_memory());
  const auto stage_of = [&](int stage) { return tiles + stage * (TILE_ROWS + COLUMNS) * S::stride; };
  Block sums[COLUMNS / 16] = {};
  fetch(call, 0, stage_of(0), stage_of(0) + TILE_ROWS * S::stride);
  int stage = 0;
  for (int depth = 0; depth < 2 * call.width; depth += DEPTH, stage ^= 1) {
    T* const next = stage_of(stage ^ 1);
    if (depth + DEPTH < 2 * call.width)
      fetch(call, depth + DEPTH, next, next + TILE_ROWS * S::stride);
    else
      commit_copies();
    wait_for_copies<1>();
    __syncthreads();
    const T *const a = stage_of(stage) + warp_id() * WARP_ROWS * S::stride;
    const T *const b = stage_of(stage) + TILE_ROWS * S::stride;
#pragma unroll
    for (int d = 0; d < DEPTH; d += 16) {
      Left<T> left;
      load(left, a + d, S::stride);
#pragma unroll
      for (int n = 0; n < COLUMNS / 16; ++n) {
        Right<T> right;
        load_columns(right, b + n * 16 * S::stride + d, S::stride);
        multiply(sums[n], left, right);
      }
    }
    __syncthreads();
  }
  const int pair = blockIdx.x * TILE_ROWS + warp_id() * WARP_ROWS + block_row();
#pragma unroll
  for (int i = 0; i < COLUMNS / 2; ++i) {
    const int half = i / 4 % 2, e = i % 4;
    const int feature = blockIdx.y * COLUMNS + i / 8 * 16 + half * 8 + block_column() + e % 2;
    store<T>(call, pair + e / 2 * 8, feature, sums[i / 8][half][e]);
  }
}

template <class T>
int pair_linear_of(const PairLinear& call) {
  const dim3 grid((call.pairs + TILE_ROWS - 1) / TILE_ROWS, (call.features + COLUMNS - 1) / COLUMNS);
  return launch(linear_of_pairs<T>, grid, THREADS, PAIR_BYTES<T>, call.stream, call);
}

}  // namespace

int pair_linear(const PairLinear& call) {
  if (call.element == BFLOAT16) return pair_linear_of<Bfloat16>(call);
  return call.element == FLOAT16 ? pair_linear_of<Half>(call) : pair_linear_of<float>(call);
}

}  // namespace relvlm
