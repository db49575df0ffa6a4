// Kernels for AVX2 with FMA.
#if defined(__x86_64__) || defined(_M_X64)
#include "prelude.h"
#define WL_LANES 8
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
// GCC's generic tuning spills pointers to vector registers, from where they come back behind all multiply-adds in
// flight.
#pragma GCC push_options
#pragma GCC target("avx2,fma,tune=haswell")
#endif

namespace wl {
namespace avx2 {
namespace {
#include "../kernels/table.inc"
}  // namespace
extern const Table kTable;
const Table kTable = tableOf("avx2");
}  // namespace avx2
}  // namespace wl

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
