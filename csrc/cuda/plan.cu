// Makes the plan on the device, so that the host never waits: one block of threads an image (or sequence) finds the
// groups that look at it, in their order, and lists their rows.
//
// Tiles: an item whose rows begin at place b gets the tiles from b / TILE_ROWS + item on, the first item all from 0 on.
// There are always enough before the next item's; the spare ones have no rows, as those after the last where groups are
// left out.
//
// Rows that no group or sequence owns need their zeros: the first and the last item have them as well, with views that
// see nothing. So do the queries of groups whose image is not there. Keys of no sequence: see backward_keys.cuh.

#include "attention.h"
#include "scan.cuh"

namespace relvlm {
namespace {

constexpr int THREADS = 256;

__device__ void write_tiles(const Call& call, Tile* tiles, int total, int item, int begin, int count) {
  const int first = item ? begin / TILE_ROWS + item : 0;
  const int end = item + 1 < call.items ? (begin + count) / TILE_ROWS + item + 1 : total;
  for (int tile = first + int(threadIdx.x); tile < end; tile += THREADS) {
    const int done = (tile - first) * TILE_ROWS;
    const int left = max(0, min(count - done, TILE_ROWS));
    tiles[tile] = {item, begin + done, left, 0};
  }
}

__device__ bool is_last(const Call& call, int item) { return item + 1 == call.items; }

__device__ View blind(int row) { return {row, 0, 0, 0, 0, 0, 0.f, 0}; }

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
  const int first = item ? rows[0] : 0, end = is_last(call, item) ? call.queries : rows[1];
  write_item(call, item, {keys[0], length, first, end});
  for (int row = first + int(threadIdx.x); row < end; row += THREADS)
    call.plan.views[row] =
        row < rows[0] || row >= rows[1] ? blind(row) : View{row, 0, 0, 0, length, length ? 1 : 0, 0.f, 0};
}

// `item` is the image's, or -1 where the group is left out.
struct Group {
  int item, row, length;
  bool sees;
};

__device__ Group group_of(const Call& call, int group) {
  const Index& index = call.index;
  if (group >= index.count) return {-1, 0, 0, false};
  const bool there = index.image[group] >= 0 && index.image[group] < call.items;
  const int item = there ? index.image[group] : call.partial ? -1 : call.items - 1;
  const Group found = {item, index.offsets[group], index.offsets[group + 1] - index.offsets[group], there};
  const int32_t* const box = index.box + 4 * group;
  const bool in_grid = box[0] >= 0 && box[1] >= 0 && box[2] <= index.grid_columns && box[3] <= index.grid_rows;
  const bool rows_there = found.row >= 0 && found.length >= 0 && found.row + found.length <= call.queries;
  if (!in_grid || box[0] >= box[2] || box[1] >= box[3] || !rows_there) refuse();
  return found;
}

__device__ void write_views(const Call& call, int group, Group rows, View* to) {
  const Index& index = call.index;
  const int32_t* const box = index.box + 4 * group;
  const int width = box[2] - box[0], height = box[3] - box[1];
  const float share = index.mean[group] ? 1.f / float(width * height) : 0.f;
  for (int i = 0; i < rows.length; ++i)
    to[i] = rows.sees ? View{rows.row + i, index.prefix[group], box[0], box[1], width, height, share, 0}
                      : blind(rows.row + i);
}

// The rows before the first group's and after the last's.
__device__ int rows_outside(const Index& index, int queries) {
  return queries - (index.offsets[index.count] - index.offsets[0]);
}

__device__ void write_rows_outside(const Call& call, View* to) {
  const int before = call.index.offsets[0], inside = call.index.offsets[call.index.count] - before;
  for (int i = threadIdx.x; i < rows_outside(call.index, call.queries); i += THREADS)
    to[i] = blind(i < before ? i : i + inside);
}

__global__ void __launch_bounds__(THREADS) plan_groups(Call call) {
  const int item = blockIdx.x;
  int before = 0, own = 0;
  for (int g = threadIdx.x; g < call.index.count; g += THREADS) {
    const Group group = group_of(call, g);
    if (group.item >= 0 && group.item < item) before += group.length;
    if (group.item == item) own += group.length;
  }
  block_scan<THREADS>(before, before);
  block_scan<THREADS>(own, own);
  const int tokens = call.index.tokens, key_row = item * tokens;
  const int outside = is_last(call, item) ? rows_outside(call.index, call.queries) : 0;
  write_item(call, item, {key_row, tokens, before, before + own + outside});
  if (outside) write_rows_outside(call, call.plan.views + before + own);
  for (int start = 0, place = before; start < call.index.count; start += THREADS) {
    const int g = start + int(threadIdx.x);
    Group group = group_of(call, g);
    if (group.item != item) group.length = 0;
    int total;
    const int offset = block_scan<THREADS>(group.length, total);
    if (group.length) write_views(call, g, group, call.plan.views + place + offset);
    place += total;
  }
}

}  // namespace

int make_plan(const Call& call) {
  if (call.planned) return 0;
  const auto kernel = call.index.grid_columns ? plan_groups : plan_sequences;
  return launch(kernel, dim3(call.items), THREADS, SCAN_BYTES<THREADS>, call.stream, call);
}

}  // namespace relvlm
