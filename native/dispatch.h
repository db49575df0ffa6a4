// Which kernels exist, and the choice among their builds for different instruction sets.
#pragma once
#include "kernel.h"

namespace wl {

// One kernel of one instruction set.
struct Entry {
  const char* name;
  Kernel run;
  // Null if operand counts, shapes and attributes fit together, else what does not: run() trusts all of them.
  const char* (*check)(const Call& call);
  // Raised when all operands have one shape and only the set of elements matters: the loader then drops axes of size
  // 1 and merges neighbours, so that run() sees the lowest rank possible.
  bool pointwise;
};

// One instruction set's build. `scalars[i]` is the name of the elementwise instruction with opcode i.
struct Table {
  const char* isa;
  const Entry* entries;
  int32_t entryCount;
  const char* const* scalars;
  int32_t scalarCount;
};

// Names of all instruction sets there are builds for on some machine.
constexpr const char* kIsaNames[] = {"avx512", "avx2", "neon", "generic"};

// The table of that name (null: the best), or null if it is not built in or cannot run here.
const Table* findTable(const char* isa);

// The table WEIGHTLOOM_ISA names, or the best where it names none that can run here.
const Table& table();

}  // namespace wl
