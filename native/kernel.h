// What a kernel sees: strided views, attribute words, scratch memory and a way to split work. No Node types, no std
// containers: this header is included inside every instruction set's namespace-compiled file, so it must not define
// inline functions that a linker could take from a file compiled for a newer CPU.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace wl {

constexpr int kMaxRank = 8;

// A strided window. `data` already includes the view's offset; strides count 4-byte elements; 0 broadcasts.
struct View {
  void* data;
  int32_t rank;
  int64_t shape[kMaxRank];
  int64_t strides[kMaxRank];
};

// Splits [0, count) into pieces of at least `grain` and runs `body(context, begin, end)` on the pool's threads, the
// caller among them; returns when all are done. Pieces depend on count and grain only, never on the number of
// threads, and no two pieces may write the same element: so results are the same bits for any number of threads.
void parallelFor(int64_t count, int64_t grain, void (*body)(void* context, int64_t begin, int64_t end), void* context);

// Scratch of the calling thread, 64-byte aligned, valid until the kernel returns; grows, never shrinks mid-program.
void* scratch(size_t bytes);

// One call. `attrs` holds the kernel's own encoding: int32 words, float immediates as their bits.
struct Call {
  const View* outs;
  int32_t outCount;
  const View* ins;
  int32_t inCount;
  const int32_t* attrs;
  int32_t attrCount;
};

using Kernel = void (*)(const Call& call);

}  // namespace wl
