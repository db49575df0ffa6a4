#include "arena.h"

#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "kernel.h"
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace wl {
namespace {

constexpr size_t kAlign = 64;
constexpr size_t kFirstChunk = size_t(1) << 18;

struct Chunk {
  std::unique_ptr<char[]> memory;
  size_t size;

  char* base() const {
    return reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(memory.get()) + kAlign - 1) & ~(kAlign - 1));
  }
};

// Chunks never move while a pointer into them is in use; when nothing is in use, several are replaced by one.
struct ThreadScratch {
  std::vector<Chunk> chunks;
  size_t current = 0;
  size_t used = 0;
};

thread_local ThreadScratch local;

Chunk makeChunk(size_t size) { return {std::unique_ptr<char[]>(new char[size + kAlign]), size}; }

}  // namespace

void* scratch(size_t bytes) {
  bytes = (bytes + kAlign - 1) & ~(kAlign - 1);
  while (local.current < local.chunks.size() && local.used + bytes > local.chunks[local.current].size)
    ++local.current, local.used = 0;
  if (local.current == local.chunks.size()) {
    const size_t last = local.chunks.empty() ? kFirstChunk / 2 : local.chunks.back().size;
    local.chunks.push_back(makeChunk(bytes > 2 * last ? bytes : 2 * last));
  }
  char* p = local.chunks[local.current].base() + local.used;
  local.used += bytes;
  return p;
}

ScratchScope::ScratchScope() : chunk_(local.current), used_(local.used) {}

ScratchScope::~ScratchScope() {
  local.current = chunk_, local.used = used_;
  if (chunk_ == 0 && used_ == 0 && local.chunks.size() > 1) {
    Chunk largest = std::move(local.chunks.back());
    local.chunks.clear();
    local.chunks.push_back(std::move(largest));
  }
}

void adviseHuge(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = uintptr_t(1) << 21;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) & ~(page - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(page - 1);
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

}  // namespace wl
