// The threads of an emulated block, one block after another.

#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "emulation.h"

dim3 gridDim(1), blockIdx(0), threadIdx(0);

namespace relvlm {
namespace emulation {
namespace {

constexpr size_t STACK = 256 * 1024;
enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };

struct Copy {
  void* to;
  const void* from;  // null: zeros
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[STACK]};
  State state = READY;
  std::vector<std::vector<Copy>> groups{1};  // copies not yet done, the last group still open
};

struct Warp {
  Lanes slots[2];  // alternating, so that one barrier an exchange is enough
  int turn[32] = {};
};

bool eager = false, reversed = false;
std::vector<Fiber> fibers;
std::vector<Warp> warps;
std::unique_ptr<char[]> shared;
ucontext_t scheduler;
int current;
const std::function<void()>* body;

void enter() {
  (*body)();
  fibers[current].state = DONE;
}

void stop(State state) {
  const int self = current;
  fibers[self].state = state;
  swapcontext(&fibers[self].context, &scheduler);
}

void resume(int thread) {
  current = thread;
  threadIdx = dim3(thread);
  swapcontext(&scheduler, &fibers[thread].context);
}

int count(int begin, int end, State state) {
  int found = 0;
  for (int i = begin; i < end; ++i) found += fibers[i].state == state;
  return found;
}

void release(int begin, int end) {
  for (int i = begin; i < end; ++i) fibers[i].state = READY;
}

// Lets the threads go on that have all come to the same barrier; false where there are none.
bool release_barriers() {
  const int threads = static_cast<int>(fibers.size());
  bool released = false;
  for (int warp = 0; warp < threads; warp += 32)
    if (count(warp, warp + 32, AT_WARP_BARRIER) == 32) {
      release(warp, warp + 32);
      released = true;
    }
  if (!released && count(0, threads, AT_BLOCK_BARRIER) == threads) {
    release(0, threads);
    released = true;
  }
  return released;
}

void run_block(int threads) {
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    fiber.state = READY;
    fiber.groups.assign(1, {});
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, enter, 0);
  }
  while (count(0, threads, DONE) < threads) {
    for (int i = 0; i < threads; ++i) {
      const int thread = reversed ? threads - 1 - i : i;
      if (fibers[thread].state == READY) resume(thread);
    }
    if (count(0, threads, DONE) < threads && !release_barriers()) fail("a barrier that not all threads reach");
  }
  for (const Fiber& fiber : fibers)
    for (const auto& group : fiber.groups)
      if (!group.empty()) fail("copies that nobody waited for");
}

void finish(const std::vector<Copy>& copies) {
  for (const Copy& copy : copies)
    copy.from ? std::memcpy(copy.to, copy.from, 16) : std::memset(copy.to, 0, 16);
}

}  // namespace

void fail(const char* what) {
  std::fprintf(stderr, "emulated block (%u, %u), thread %d: %s\n", blockIdx.x, blockIdx.y, current, what);
  std::abort();
}

void run(const std::function<void()>& kernel, dim3 grid, int threads, size_t bytes) {
  body = &kernel;
  gridDim = grid;
  fibers.resize(threads);
  warps.assign(threads / 32, Warp{});
  for (unsigned block = 0; block < grid.x * grid.y * grid.z; ++block) {
    blockIdx = dim3(block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y);
    shared.reset(new char[bytes]);
    std::memset(shared.get(), 0xff, bytes);
    run_block(threads);
  }
}

void exchange(const uint32_t* own, int words, const std::function<void(const Lanes&)>& reading) {
  const int lane = current % 32;
  Warp& warp = warps[current / 32];
  Lanes& slots = warp.slots[warp.turn[lane] ^= 1];
  std::memcpy(slots[lane], own, words * sizeof(uint32_t));
  stop(AT_WARP_BARRIER);
  reading(slots);
}

}  // namespace emulation

using namespace emulation;

char* shared_memory() { return shared.get(); }

void copy_async(void* to, const void* from, bool valid) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16) fail("a copy of unaligned memory");
  const Copy copy = {to, valid ? from : nullptr};
  if (eager) return finish({copy});
  fibers[current].groups.back().push_back(copy);
}

void commit_copies() { fibers[current].groups.emplace_back(); }

void wait_for_copies_but(int pending) {
  auto& groups = fibers[current].groups;
  while (static_cast<int>(groups.size()) - 1 > pending) {
    finish(groups.front());
    groups.erase(groups.begin());
  }
}

}  // namespace relvlm

void __syncthreads() { relvlm::emulation::stop(relvlm::emulation::AT_BLOCK_BARRIER); }
void __syncwarp() { relvlm::emulation::stop(relvlm::emulation::AT_WARP_BARRIER); }

extern "C" void relvlm_emulation(int eager, int reversed) {
  relvlm::emulation::eager = eager;
  relvlm::emulation::reversed = reversed;
}
