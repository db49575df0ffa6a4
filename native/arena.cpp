#include "arena.h"

#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "kernel.h"
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
// Scratch that nobody holds is poisoned, so that the sanitizer sees a kernel that runs past what it asked for.
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(data, bytes) (static_cast<void>(data), static_cast<void>(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(data, bytes) (static_cast<void>(data), static_cast<void>(bytes))
#endif

namespace wl {
namespace {

constexpr size_t kAlign = 64;
constexpr size_t kFirstChunk = size_t(1) << 18;
constexpr size_t kHuge = size_t(4) << 20;
// Memory of which so many scopes in a row have needed less than a quarter goes back to the system.
constexpr int kPatience = 4096;

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
  // Outermost scopes that have ended since `peak` was set back, and the most that was in use at once since then.
  int scopes = 0;
  size_t peak = 0;
};

thread_local ThreadScratch local;

Chunk makeChunk(size_t size) {
  Chunk chunk{std::unique_ptr<char[]>(new char[size + kAlign]), size};
  if (size >= kHuge) adviseHuge(chunk.base(), size);
  ASAN_POISON_MEMORY_REGION(chunk.base(), size);
  return chunk;
}

size_t roundUp(size_t bytes) { return (bytes + kAlign - 1) & ~(kAlign - 1); }

}  // namespace

void* scratch(size_t bytes) {
  const size_t size = roundUp(bytes);
  while (local.current < local.chunks.size() && local.used + size > local.chunks[local.current].size)
    ++local.current, local.used = 0;
  if (local.current == local.chunks.size()) {
    const size_t last = local.chunks.empty() ? kFirstChunk / 2 : local.chunks.back().size;
    local.chunks.push_back(makeChunk(size > 2 * last ? size : 2 * last));
  }
  char* p = local.chunks[local.current].base() + local.used;
  local.used += size;
  const size_t inUse = local.current == 0 ? local.used : scratchBytes();
  if (inUse > local.peak) local.peak = inUse;
  ASAN_UNPOISON_MEMORY_REGION(p, bytes);
  return p;
}

ScratchScope::ScratchScope() : chunk_(local.current), used_(local.used) {}

ScratchScope::~ScratchScope() {
  for (size_t i = chunk_; i < local.chunks.size() && i <= local.current; ++i) {
    const size_t from = i == chunk_ ? used_ : 0;
    ASAN_POISON_MEMORY_REGION(local.chunks[i].base() + from, local.chunks[i].size - from);
  }
  local.current = chunk_, local.used = used_;
  if (chunk_ != 0 || used_ != 0) return;
  if (local.chunks.size() > 1) {
    Chunk largest = std::move(local.chunks.back());
    local.chunks.clear();
    local.chunks.push_back(std::move(largest));
  }
  if (++local.scopes < kPatience) return;
  if (scratchBytes() > kFirstChunk && scratchBytes() / 4 > local.peak) local.chunks.clear();
  local.scopes = 0, local.peak = 0;
}

size_t scratchBytes() {
  size_t bytes = 0;
  for (const Chunk& chunk : local.chunks) bytes += chunk.size;
  return bytes;
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
