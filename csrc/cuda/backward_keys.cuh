// The backward's second pass: dk and dv.
#pragma once

#include "backward.cuh"
#include "dropout.cuh"
#include "view.cuh"

namespace relvlm {

// Shared memory of the second pass: keys, values, two steps of queries, gradients, views and states.
template <class T, int D>
constexpr size_t QUERY_STEP_BYTES =
    Shape<T, D>::queries * (2 * Shape<T, D>::row_bytes + sizeof(View) + sizeof(RowState));

template <class T, int D>
constexpr size_t KEY_TILE_BYTES = 2 * TILE_ROWS * Shape<T, D>::row_bytes + 2 * QUERY_STEP_BYTES<T, D>;

template <class T, int D>
struct QueryStep {
  using S = Shape<T, D>;
  T *q, *g;
  View* views;
  RowState* states;

  __device__ __forceinline__ explicit QueryStep(char* memory)
      : q(reinterpret_cast<T*>(memory)),
        g(q + S::queries * S::stride),
        views(reinterpret_cast<View*>(g + S::queries * S::stride)),
        states(reinterpret_cast<RowState*>(views + S::queries)) {}

  __device__ __forceinline__ void fetch(const Call& call, int head, int begin, int end) const {
    const Head<T> queries = head_of<T>(call.q, call.q_row, call.q_head, head);
    const Head<T> grads = head_of<T>(call.grad, call.grad_row, call.grad_head, head);
    copy_queries<T, D, S::queries>(q, queries, g, grads, call.plan.views, begin, end);
    const RowState* const of_head = call.states + int64_t(head) * call.queries;
    for (int i = threadIdx.x; i < S::queries * 3; i += THREADS) {
      const int place = i / 3, part = i % 3;
      const bool valid = begin + place < end;
      const int from = valid ? begin + place : 0;
      if (part < 2)
        copy_async(reinterpret_cast<Chunk*>(views + place) + part,
                   reinterpret_cast<const Chunk*>(call.plan.views + from) + part, valid);
      else
        copy_async(states + place, of_head + from, valid);
    }
  }
};

// to += weights (16, 16) rows (16, D).
template <class T, int D>
__device__ __forceinline__ void add_product(const Block& weights, const T* rows, Block (&to)[D / 16]) {
  const Left<T> left = left_of<T>(weights);
#pragma unroll
  for (int d = 0; d < D / 16; ++d) {
    Right<T> right;
    load_rows(right, rows + d * 16, Shape<T, D>::stride);
    multiply(to[d], left, right);
  }
}

// Bits of 16 keys and what a query makes of them: 0 to 15, whether it sees them; 16 to 31, whether they are in its box.
__device__ __forceinline__ uint32_t bits_of_keys(const Grid& grid, const View& view, int key) {
  const uint32_t box = box_bits(grid, view, key), prefix = view.prefix ? prefix_bits(grid, key) : 0u;
  return ((box | prefix) & 0xffff) | box << 16;
}

// Which of the lane's 8 weights dropout keeps: bit half * 8 + r * 2 + odd * 4. The lanes of two neighbouring keys have
// the same four queries, and a draw has words for both: each makes those of two queries and hands them over.
template <class T, int D, bool drops>
__device__ __forceinline__ uint32_t kept_bits(const QueryStep<T, D>& step, int first, int key, int head,
                                              const Dropout<drops>& dropout) {
  const int odd_key = block_row() % 2, place = first + odd_key * 8 + block_column();
  const uint32_t quad = key / 4 + block_row() / 2;
  uint32_t own = dropout.kept_bits(quad, step.views[place].row, head);
  __syncwarp();  // one after another, for want of registers
  own |= dropout.kept_bits(quad, step.views[place + 1].row, head) << 4;
  const uint32_t other = __shfl_xor_sync(ALL, own, 4);
  return (odd_key ? other | own << 8 : own | other << 8) >> odd_key;
}

// Products k.q in `s` and v.g in `dp` of 16 keys and 16 queries become weights and gradients of the scores, without the
// mean token's part. Bits are those of the lane's four queries, from its first key on.
template <class T, int D, bool drops>
__device__ __forceinline__ void through_softmax(const QueryStep<T, D>& step, int first, const uint32_t (&bits)[4],
                                                uint32_t kept, float kept_scale, float scale, Block& s, Block& dp) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int half = i / 2, odd = i % 2;
    const RowState& state = step.states[first + half * 8 + block_column() + odd];
    const float lse2 = state.lse2, delta = state.delta;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int e = r * 2 + odd;
      const float p = bits[i] >> (r * 8) & 1 ? power_of_2(s[half][e] * scale - lse2) : 0.f;
      const float keep = !drops ? 1.f : kept >> (half * 8 + r * 2 + odd * 4) & 1 ? kept_scale : 0.f;
      s[half][e] = p * keep;
      dp[half][e] = p * (keep * dp[half][e] - delta);
    }
  }
}

// What the mean tokens add to the patches of their boxes.
template <class T, int D>
__device__ __forceinline__ void add_folds(const QueryStep<T, D>& step, int first, const uint32_t (&bits)[4], Block& s,
                                          Block& dp) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int half = i / 2, odd = i % 2;
    const RowState& state = step.states[first + half * 8 + block_column() + odd];
    const float fold = state.fold, dfold = state.dfold;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (!(bits[i] >> (16 + r * 8) & 1)) continue;
      s[half][r * 2 + odd] += fold;
      dp[half][r * 2 + odd] += dfold;
    }
  }
}

// Gradients of keys that are in no sequence, before the first and after the last.
template <class T, int D>
__device__ __forceinline__ void write_zeros(const Call& call, int head) {
  const Item first = call.plan.items[0], last = call.plan.items[call.items - 1];
  const int before = first.key_row, outside = before + call.keys - (last.key_row + last.keys);
  for (int i = threadIdx.x; i < outside * Shape<T, D>::chunks; i += THREADS) {
    const int n = i / Shape<T, D>::chunks, column = i % Shape<T, D>::chunks * Shape<T, D>::chunk;
    const int64_t row = n < before ? n : call.keys - outside + n;
    *reinterpret_cast<Chunk*>(static_cast<T*>(call.dk) + row * call.dk_row + head * call.dk_head + column) = Chunk{};
    *reinterpret_cast<Chunk*>(static_cast<T*>(call.dv) + row * call.dv_row + head * call.dv_head + column) = Chunk{};
  }
}

template <class T, int D, bool drops>
__global__ void __launch_bounds__(THREADS, (Blocks<T, D, drops>::keys)) backward_of_keys(Call call) {
  using S = Shape<T, D>;
  // From the last image to the first: what the first pass read last is still in the cache.
  const int number = gridDim.x - 1 - blockIdx.x, head = gridDim.y - 1 - blockIdx.y;
  if (number == 0) write_zeros<T, D>(call, head);
  const Tile tile = call.plan.key_tiles[number];
  if (!tile.count) return;
  const Item item = call.plan.items[tile.item];
  const Grid grid(call.index);
  const Dropout<drops> dropout(call);
  const float scale = call.scale * LOG2E;
  char* const memory = shared_memory();
  T *const k = reinterpret_cast<T*>(memory), *const v = k + TILE_ROWS * S::stride;
  char* const after = memory + 2 * TILE_ROWS * S::row_bytes;
  const auto step_at = [&](int stage) { return QueryStep<T, D>(after + stage * QUERY_STEP_BYTES<T, D>); };
  const int own = warp_id() * WARP_ROWS;  // this warp's first key of the tile
  T *const warp_k = k + own * S::stride, *const warp_v = v + own * S::stride;
  const int key = tile.begin - item.key_row + own;
  Block dk[D / 16] = {}, dv[D / 16] = {};

  const int end = tile.begin + tile.count;
  copy_keys<T, D, TILE_ROWS>(k, head_of<T>(call.k, call.k_row, call.k_head, head), tile.begin, end);
  copy_keys<T, D, TILE_ROWS>(v, head_of<T>(call.v, call.v_row, call.v_head, head), tile.begin, end);
  if (item.rows_begin < item.rows_end) step_at(0).fetch(call, head, item.rows_begin, item.rows_end);
  commit_copies();
  int stage = 0;
  for (int begin = item.rows_begin; begin < item.rows_end; begin += S::queries, stage ^= 1) {
    if (begin + S::queries < item.rows_end) step_at(stage ^ 1).fetch(call, head, begin + S::queries, item.rows_end);
    commit_copies();
    wait_for_copies<1>();
    __syncthreads();
    const QueryStep<T, D> step = step_at(stage);
    const View view = step.views[lane_id()];
    const uint32_t seen = own < tile.count ? bits_of_keys(grid, view, key) : 0u;
    const uint32_t meeting = __ballot_sync(ALL, seen != 0), with_mean = __ballot_sync(ALL, view.share > 0);
#pragma unroll 1
    for (int b = 0; b < S::queries / 16; ++b) {
      if (!(meeting >> (b * 16) & 0xffff)) continue;
      Block s = {}, dp = {};
      const int at = b * 16 * S::stride;
      two_products<T, D>(warp_k, step.q + at, s, warp_v, step.g + at, dp);
      uint32_t bits[4], kept = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i)
        bits[i] = __shfl_sync(ALL, seen, b * 16 + i / 2 * 8 + block_column() + i % 2) >> block_row();
      if constexpr (drops) kept = kept_bits(step, b * 16, key, head, dropout);
      through_softmax<T, D, drops>(step, b * 16, bits, kept, dropout.scale(), scale, s, dp);
      if (with_mean >> (b * 16) & 0xffff) add_folds(step, b * 16, bits, s, dp);
      add_product<T, D>(s, step.g + at, dv);
      add_product<T, D>(dp, step.q + at, dk);
    }
    __syncthreads();
  }
  wait_for_copies<0>();
  __syncthreads();
  const int64_t first = int64_t(tile.begin) + own;
  const auto row_of = [&](int i) { return own + i < tile.count ? i : -1; };
  T *const dk_to = static_cast<T*>(call.dk) + first * call.dk_row + head * call.dk_head;
  T *const dv_to = static_cast<T*>(call.dv) + first * call.dv_row + head * call.dv_head;
  store_rows<T, D>(dk, call.scale, call.scale, warp_k, dk_to, call.dk_row, row_of);
  store_rows<T, D>(dv, 1.f, 1.f, warp_v, dv_to, call.dv_row, row_of);
}

}  // namespace relvlm
