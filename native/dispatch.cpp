#include "dispatch.h"

#include <cstdlib>
#include <cstring>

namespace wl {

namespace generic {
extern const Table kTable;
}
#if defined(__x86_64__) || defined(_M_X64)
namespace avx2 {
extern const Table kTable;
}
namespace avx512 {
extern const Table kTable;
}
#elif defined(__aarch64__)
namespace neon {
extern const Table kTable;
}
#endif

namespace {

struct Candidate {
  const Table* table;
  bool usable;
};

}  // namespace

// Best first. The compiler's CPU queries also ask whether the operating system saves the wide registers.
const Table* findTable(const char* isa) {
#if defined(__x86_64__) || defined(_M_X64)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  const Candidate candidates[] = {{&avx512::kTable, avx512}, {&avx2::kTable, avx2}, {&generic::kTable, true}};
#elif defined(__aarch64__)
  const Candidate candidates[] = {{&neon::kTable, true}, {&generic::kTable, true}};
#else
  const Candidate candidates[] = {{&generic::kTable, true}};
#endif
  for (const Candidate& c : candidates)
    if (c.usable && (!isa || std::strcmp(c.table->isa, isa) == 0)) return c.table;
  return nullptr;
}

const Table& table() {
  static const Table& best = [&]() -> const Table& {
    const char* isa = std::getenv("WEIGHTLOOM_ISA");
    const Table* wanted = findTable(isa && *isa ? isa : nullptr);
    return wanted ? *wanted : *findTable(nullptr);
  }();
  return best;
}

}  // namespace wl
