// Kernels for AVX-512 F, VL, DQ and BW.
#if defined(__x86_64__) || defined(_M_X64)
#include "prelude.h"
#define WL_LANES 16
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma"))), \
                             apply_to = function)
#else
// GCC's generic tuning spills pointers to vector registers, from where they come back behind all multiply-adds in
// flight.
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,prefer-vector-width=512,tune=haswell")
#endif

namespace wl {
namespace avx512 {
namespace {
#include "../kernels/table.inc"
}  // namespace
extern const Table kTable;
const Table kTable = tableOf("avx512");
}  // namespace avx512
}  // namespace wl

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
