// What the kernels that own queries share: their tile, and the way through the keys of their image.
#pragma once

#include "fragment.cuh"
#include "tile.cuh"
#include "view.cuh"

namespace relvlm {

// Ones where the bits of the lane's two rows are set, from that of its first key on.
template <class T>
__device__ __forceinline__ Left<T> ones_of(const uint32_t (&bits)[2]) {
  Block ones;
#pragma unroll
  for (int i = 0; i < 8; ++i) ones[i / 4][i % 4] = bits[i / 2 % 2] >> (i / 4 * 8 + i % 2) & 1 ? 1.f : 0.f;
  return left_of<T>(ones);
}

// to += weights (16, 16) rows (16, D); of_box += (ones in the box) rows.
template <class T, int D>
__device__ __forceinline__ void add_rows(const Block& weights, const uint32_t (&box)[2], bool with_mean, const T* rows,
                                         Block (&to)[D / 16], Block (&of_box)[D / 16]) {
  const Left<T> left = left_of<T>(weights), ones = ones_of<T>(box);
#pragma unroll
  for (int d = 0; d < D / 16; ++d) {
    Right<T> right;
    load_rows(right, rows + d * 16, Shape<T, D>::stride);
    multiply(to[d], left, right);
    if (with_mean) multiply(of_box[d], ones, right);
  }
}

// to += factor from, of the lane's row r.
template <int D>
__device__ __forceinline__ void add_scaled(Block (&to)[D / 16], const Block (&from)[D / 16], float factor, int r) {
#pragma unroll
  for (int d = 0; d < D / 4; ++d)
    to[d / 4][d / 2 % 2][r * 2 + d % 2] += factor * from[d / 4][d / 2 % 2][r * 2 + d % 2];
}

// Shared memory: queries (and their gradients in the backward), two steps of keys and values, views, the warps' reach.
template <class T, int D>
constexpr size_t query_tile_bytes(bool backward) {
  using S = Shape<T, D>;
  return ((backward ? 2 : 1) * TILE_ROWS + 4 * S::keys) * S::row_bytes + TILE_ROWS * sizeof(View) +
         THREADS / WARP * sizeof(Reach);
}

template <class T, int D>
struct QueryTile {
  using S = Shape<T, D>;

  Item item;
  Grid grid;
  int head, begin, count;
  bool with_mean;  // some query of this warp
  Reach reach;
  View* warp_views;         // of this warp's rows
  T *q, *warp_q, *warp_g;   // queries, and this warp's; gradients in the backward
  T* steps;

  __device__ explicit QueryTile(const Call& call) : grid(call.index) {
    const Tile tile = call.plan.query_tiles[blockIdx.x];
    count = tile.count;
    if (!count) return;
    item = call.plan.items[tile.item];
    head = blockIdx.y;
    begin = tile.begin;
    lay_out(call.backward);
    find_reach(call);
    copy(call);
  }

  __device__ __forceinline__ void lay_out(bool backward) {
    q = reinterpret_cast<T*>(shared_memory());
    T* const g = q + (backward ? TILE_ROWS : 0) * S::stride;
    warp_q = q + warp_id() * WARP_ROWS * S::stride;
    warp_g = g + warp_id() * WARP_ROWS * S::stride;
    steps = g + TILE_ROWS * S::stride;
    warp_views = reinterpret_cast<View*>(steps + 4 * S::keys * S::stride) + warp_id() * WARP_ROWS;
  }

  __device__ __forceinline__ int place(int r) const { return warp_id() * WARP_ROWS + block_row() + r * 8; }
  __device__ __forceinline__ bool holds(int r) const { return place(r) < count; }

  // Of the lane's row r.
  __device__ __forceinline__ const View& view(int r) const { return warp_views[block_row() + r * 8]; }

  __device__ __forceinline__ void find_reach(const Call& call) {
    const int row = warp_id() * WARP_ROWS + lane_id() % WARP_ROWS;
    const View own = row < count ? call.plan.views[begin + row] : View{};
    if (lane_id() < WARP_ROWS) warp_views[lane_id()] = own;
    with_mean = __any_sync(ALL, own.share > 0);
    const Reach warp_reach = join_lanes(reach_of(own, grid));
    Reach* const of_warps = reinterpret_cast<Reach*>(warp_views + TILE_ROWS - warp_id() * WARP_ROWS);
    if (lane_id() == 0) of_warps[warp_id()] = warp_reach;
    __syncthreads();
    reach = of_warps[0];
#pragma unroll
    for (int warp = 1; warp < THREADS / WARP; ++warp) reach = join(reach, of_warps[warp]);
  }

  __device__ __forceinline__ void copy(const Call& call) {
    const Head<T> queries = head_of<T>(call.q, call.q_row, call.q_head, head);
    const Head<T> grads = head_of<T>(call.grad, call.grad_row, call.grad_head, head);
    T* const to = call.backward ? q + TILE_ROWS * S::stride : nullptr;
    copy_queries<T, D, TILE_ROWS>(q, queries, to, grads, call.plan.views, begin, begin + count);
  }

  // What this warp's rows see of 64 keys: lanes 0 to 15 have the bits of their row for the first 32, the others for the
  // rest.
  __device__ __forceinline__ uint32_t bits(int key) const {
    return seen_bits(grid, warp_views[lane_id() % WARP_ROWS], key + lane_id() / WARP_ROWS * 32);
  }

  // Which of the four blocks of 16 keys some row of this warp sees.
  __device__ __forceinline__ static uint32_t blocks_met(uint32_t bits) {
    const uint32_t even = __ballot_sync(ALL, (bits & 0xffff) != 0), odd = __ballot_sync(ALL, bits >> 16 != 0);
    return (even & 0xffff ? 1 : 0) | (odd & 0xffff ? 2 : 0) | (even >> 16 ? 4 : 0) | (odd >> 16 ? 8 : 0);
  }

  // Those of the lane's two rows for 32 keys of the 64, from the lane's first key on.
  __device__ __forceinline__ static void own_bits(uint32_t bits, int half, uint32_t (&to)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r)
      to[r] = __shfl_sync(ALL, bits, half * WARP_ROWS + block_row() + r * 8) >> block_column();
  }

  __device__ __forceinline__ int next_step(int key) const {
    while (key < item.keys && !reach.meets(key, S::keys)) key += S::keys;
    return key;
  }

  // Calls `work(k, v, first key)` for each step of keys that some query may see.
  template <class Work>
  __device__ __forceinline__ void through_keys(const Call& call, Work work) {
    const Head<T> keys = head_of<T>(call.k, call.k_row, call.k_head, head);
    const Head<T> values = head_of<T>(call.v, call.v_row, call.v_head, head);
    const auto fetch = [&](int key, int stage) {
      T* const to = steps + stage * 2 * S::keys * S::stride;
      const int64_t from = int64_t(item.key_row) + key, end = int64_t(item.key_row) + item.keys;
      copy_keys<T, D, S::keys>(to, keys, from, end);
      copy_keys<T, D, S::keys>(to + S::keys * S::stride, values, from, end);
    };
    int key = next_step(0), stage = 0;
    if (key < item.keys) fetch(key, stage);
    commit_copies();
    while (key < item.keys) {
      const int next = next_step(key + S::keys);
      if (next < item.keys) fetch(next, stage ^ 1);
      commit_copies();
      wait_for_copies<1>();
      __syncthreads();
      const T* const k = steps + stage * 2 * S::keys * S::stride;
      work(k, k + S::keys * S::stride, key);
      __syncthreads();
      key = next;
      stage ^= 1;
    }
    wait_for_copies<0>();
    __syncthreads();
  }

  // Rows of `to` are those of this head, `row_stride` apart.
  __device__ __forceinline__ void store(Block (&blocks)[D / 16], float scale0, float scale1, T* to,
                                        int64_t row_stride) const {
    const int held = count - warp_id() * WARP_ROWS;
    const auto row_of = [&](int i) { return i < held ? warp_views[i].row : -1; };
    store_rows<T, D>(blocks, scale0, scale1, warp_q, to, row_stride, row_of);
  }
};

}  // namespace relvlm
