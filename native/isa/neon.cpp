// Kernels for 64-bit ARM.
#if defined(__aarch64__)
#include "prelude.h"
#define WL_LANES 4
#define WL_NEON 1

namespace wl {
namespace neon {
namespace {
#include "../kernels/table.inc"
}  // namespace
extern const Table kTable;
const Table kTable = tableOf("neon");
}  // namespace neon
}  // namespace wl
#endif
