// Makes the plan on the device, so that the host never waits: one block of threads an image (or sequence) finds the
// groups that look at it, in their order, and lists their rows.
//
// Tiles: an item whose rows begin at place b gets the tiles from b / TILE_ROWS + item on. There are always enough
// before the next item's; the spare ones have no rows, as those after the last where groups are left out.

#include "attention.h"
#include "scan.cuh"

namespace relvlm {
namespace {

constexpr int THREADS = 256;

__device__ void write_tiles(const Call& call, Tile* tiles, int total, int item, int begin, int count) {
  const int first = begin / TILE_ROWS + item;
  const int end = item + 1 < call.items ? (begin + count) / TILE_ROWS + item + 1 : total;
  for (int tile = first + int(threadIdx.x); tile < end; tile += THREADS) {
    const int done = (tile - first) * TILE_ROWS;
    const int left = max(0, min(count - done, TILE_ROWS));
    tiles[tile] = {item, begin + done, left, 0};
  }
}

// `begin` of key tiles counts from the item's first key.
__device__ void write_item(const Call& call, int item, Item whole) {
  const int rows = whole.rows_end - whole.rows_begin;
  write_tiles(call, call.plan.query_tiles, query_tiles_of(call), item, whole.rows_begin, rows);
  write_tiles(call, call.plan.key_tiles, key_tiles_of(call), item, whole.key_row, whole.keys);
  if (threadIdx.x == 0) call.plan.items[item] = whole;
}

__global__ void __launch_bounds__(THREADS) plan_sequences(Call call) {
  const int item = blockIdx.x;
  const int32_t *const rows = call.index.offsets + item, *const keys = call.index.key_offsets + item;
  const bool rising = rows[0] <= rows[1] && keys[0] <= keys[1];
  const bool inside = rows[0] >= 0 && rows[1] <= call.queries && keys[0] >= 0 && keys[1] <= call.keys;
  if (!rising || !inside) return refuse();
  const int length = keys[1] - keys[0];
  write_item(call, item, {keys[0], length, rows[0], rows[1]});
  for (int row = rows[0] + int(threadIdx.x); row < rows[1]; row += THREADS)
    call.plan.views[row] = {row, 0, 0, 0, length, length ? 1 : 0, 0.f, 0};
}

struct Group {
  int image, row, length;
};

__device__ Group group_of(const Call& call, int group) {
  const Index& index = call.index;
  if (group >= index.count) return {-1, 0, 0};
  const Group found = {index.image[group], index.offsets[group], index.offsets[group + 1] - index.offsets[group]};
  const int32_t* const box = index.box + 4 * group;
  const bool in_grid = box[0] >= 0 && box[1] >= 0 && box[2] <= index.grid_columns && box[3] <= index.grid_rows;
  const bool rows_there = found.row >= 0 && found.length >= 0 && found.row + found.length <= call.queries;
  const bool image_there = call.backward || (found.image >= 0 && found.image < call.items);
  if (!in_grid || box[0] >= box[2] || box[1] >= box[3] || !rows_there || !image_there) refuse();
  return found;
}

__device__ void write_views(const Call& call, int group, Group rows, View* to) {
  const Index& index = call.index;
  const int32_t* const box = index.box + 4 * group;
  const int width = box[2] - box[0], height = box[3] - box[1];
  const float share = index.mean[group] ? 1.f / float(width * height) : 0.f;
  for (int i = 0; i < rows.length; ++i)
    to[i] = {rows.row + i, index.prefix[group], box[0], box[1], width, height, share, 0};
}

__global__ void __launch_bounds__(THREADS) plan_groups(Call call) {
  const int item = blockIdx.x;
  int before = 0, own = 0;
  for (int g = threadIdx.x; g < call.index.count; g += THREADS) {
    const Group group = group_of(call, g);
    if (group.image >= 0 && group.image < item) before += group.length;
    if (group.image == item) own += group.length;
  }
  block_scan<THREADS>(before, before);
  block_scan<THREADS>(own, own);
  const int tokens = call.index.tokens;
  write_item(call, item, {item * tokens, tokens, before, before + own});
  for (int start = 0, place = before; start < call.index.count; start += THREADS) {
    const int g = start + int(threadIdx.x);
    Group group = group_of(call, g);
    if (group.image != item) group.length = 0;
    int total;
    const int offset = block_scan<THREADS>(group.length, total);
    if (group.length) write_views(call, g, group, call.plan.views + place + offset);
    place += total;
  }
}

}  // namespace

int make_plan(const Call& call) {
  const auto kernel = call.index.grid_columns ? plan_groups : plan_sequences;
  return launch(kernel, dim3(call.items), THREADS, SCAN_BYTES<THREADS>, call.stream, call);
}

}  // namespace relvlm
