// The parts of an attention call, each in a source file of its own. All return 0 or an error of CUDA.
#pragma once

#include "call.h"
#include "device.cuh"

namespace relvlm {

int make_plan(const Call& call);

// Compiled once per element and width: attention.cu.
template <class T, int D>
struct Attention {
  static int forward(const Call& call);
  static int backward(const Call& call);
};

}  // namespace relvlm
