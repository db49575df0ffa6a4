// Kernels for what every machine of the architecture has, by vectors of four.
#include "prelude.h"
#define WL_LANES 4

namespace wl {
namespace generic {
namespace {
#include "../kernels/table.inc"
}  // namespace
extern const Table kTable;
const Table kTable = tableOf("generic");
}  // namespace generic
}  // namespace wl
