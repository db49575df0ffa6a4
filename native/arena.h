// Scratch memory of threads. Kernels reach it through scratch() in kernel.h.
#pragma once
#include <stddef.h>

namespace wl {

// While it lives, scratch() calls of this thread add up; when it dies, what they returned since is free again.
class ScratchScope {
 public:
  ScratchScope();
  ~ScratchScope();
  ScratchScope(const ScratchScope&) = delete;
  ScratchScope& operator=(const ScratchScope&) = delete;

 private:
  size_t chunk_;
  size_t used_;
};

// Bytes this thread holds for scratch(): no more than a few times what its last some thousand scopes needed.
size_t scratchBytes();

// Asks the system to back the 2 MB pages that lie wholly inside [data, data + bytes) by huge pages. Only a hint.
void adviseHuge(void* data, size_t bytes);

}  // namespace wl
