// One vector of 32-bit lanes, as wide as the instruction set of the including file allows: arithmetic, comparison and
// `mask ? a : b` are the compiler's own vector operators; this header adds what they lack. It is included inside
// that instruction set's namespace (see isa/*.cpp), so it has no include guard and includes nothing.
//
// A comparison yields lanes of 0 or -1 (`I`). Nothing here contracts a*b+c by itself: `fma` is explicit.

constexpr int kLanes = WL_LANES;

typedef float F __attribute__((vector_size(WL_LANES * 4)));
typedef int32_t I __attribute__((vector_size(WL_LANES * 4)));
typedef uint32_t U __attribute__((vector_size(WL_LANES * 4)));
typedef float FLoose __attribute__((vector_size(WL_LANES * 4), aligned(4), may_alias));
typedef int32_t ILoose __attribute__((vector_size(WL_LANES * 4), aligned(4), may_alias));

#define WL_INLINE static inline __attribute__((always_inline))

WL_INLINE F splat(float x) { return x - F{}; }
WL_INLINE I splat(int32_t x) { return x - I{}; }
WL_INLINE U splat(uint32_t x) { return x - U{}; }

WL_INLINE F load(const float* p) { return *reinterpret_cast<const FLoose*>(p); }
WL_INLINE I load(const int32_t* p) { return *reinterpret_cast<const ILoose*>(p); }
WL_INLINE void store(float* p, F v) { *reinterpret_cast<FLoose*>(p) = v; }
WL_INLINE void store(int32_t* p, I v) { *reinterpret_cast<ILoose*>(p) = v; }

// Asks for the n floats from p on, which may lie beyond the memory's end. Whole-line stores need no such help: asking
// for their lines only makes the machine read what is overwritten.
WL_INLINE void fetchAhead(const float* p, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) __builtin_prefetch(p + i, 0, 3);
}
WL_INLINE I bits(F v) { return reinterpret_cast<I>(v); }
WL_INLINE F float_(I v) { return reinterpret_cast<F>(v); }
WL_INLINE F abs(F v) { return float_(bits(v) & splat(int32_t(0x7fffffff))); }
WL_INLINE F copysign(F magnitude, F sign) {
  const I top = splat(int32_t(0x80000000u));
  return float_((bits(magnitude) & ~top) | (bits(sign) & top));
}
WL_INLINE F toFloat(I v) { return __builtin_convertvector(v, F); }
// Truncates toward zero; lanes out of range or NaN are unspecified.
WL_INLINE I toInt(F v) { return __builtin_convertvector(v, I); }

// `mask` must be lanes of 0 or -1.
WL_INLINE F select(I mask, F yes, F no) { return mask ? yes : no; }
// The smaller (larger) lane; the second operand where one is NaN, as the machine's own instruction does.
WL_INLINE F least(F a, F b) { return a < b ? a : b; }
WL_INLINE F most(F a, F b) { return a > b ? a : b; }

// Loads (stores) the first n lanes, 0 < n <= kLanes, and touches no memory beyond them; the other lanes read 0.
#if WL_LANES == 16
WL_INLINE F loadFirst(const float* p, int n) { return (F)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
WL_INLINE void storeFirst(float* p, F v, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v); }
#elif WL_LANES == 8
WL_INLINE I firstLanes(int n) { return I{0, 1, 2, 3, 4, 5, 6, 7} < splat(int32_t(n)); }
WL_INLINE F loadFirst(const float* p, int n) { return (F)_mm256_maskload_ps(p, (__m256i)firstLanes(n)); }
WL_INLINE void storeFirst(float* p, F v, int n) { _mm256_maskstore_ps(p, (__m256i)firstLanes(n), (__m256)v); }
#else
WL_INLINE F loadFirst(const float* p, int n) {
  F v = {};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
WL_INLINE void storeFirst(float* p, F v, int n) {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}
#endif

// a*b+c rounded once where the machine can (kFma), twice where it cannot.
#if WL_LANES == 16
constexpr bool kFma = true;
WL_INLINE F fma(F a, F b, F c) { return (F)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
WL_INLINE F sqrt(F v) { return (F)_mm512_maskz_sqrt_ps(0xffff, (__m512)v); }
WL_INLINE F floor(F v) {
  return (F)_mm512_maskz_roundscale_ps(0xffff, (__m512)v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
#elif WL_LANES == 8
constexpr bool kFma = true;
WL_INLINE F fma(F a, F b, F c) { return (F)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
WL_INLINE F sqrt(F v) { return (F)_mm256_sqrt_ps((__m256)v); }
WL_INLINE F floor(F v) { return (F)_mm256_floor_ps((__m256)v); }
#elif defined(WL_NEON)
constexpr bool kFma = true;
WL_INLINE F fma(F a, F b, F c) { return (F)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
WL_INLINE F sqrt(F v) { return (F)vsqrtq_f32((float32x4_t)v); }
WL_INLINE F floor(F v) { return (F)vrndmq_f32((float32x4_t)v); }
#else
constexpr bool kFma = false;
WL_INLINE F fma(F a, F b, F c) { return a * b + c; }
WL_INLINE F sqrt(F v) {
  for (int i = 0; i < kLanes; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
}
WL_INLINE F floor(F v) {
  const F whole = toFloat(toInt(v));
  const F down = copysign(whole - select(whole > v, splat(1.f), F{}), v);
  return select(abs(v) < splat(8388608.f), down, v);
}
#endif

// Stores past the caches, to an address aligned to the vector; fence() comes between the last of them and other
// threads.
#if WL_LANES == 16
WL_INLINE void stream(float* p, F v) { _mm512_stream_ps(p, (__m512)v); }
WL_INLINE void fence() { _mm_sfence(); }
#elif WL_LANES == 8
WL_INLINE void stream(float* p, F v) { _mm256_stream_ps(p, (__m256)v); }
WL_INLINE void fence() { _mm_sfence(); }
#else
WL_INLINE void stream(float* p, F v) { store(p, v); }
WL_INLINE void fence() {}
#endif

// Whether `to` may be given to stream(), as every whole vector behind it then may.
WL_INLINE bool streamable(const float* to) { return reinterpret_cast<uintptr_t>(to) % sizeof(F) == 0; }
// Copies n floats past the caches as far as they allow it.
WL_INLINE void streamOut(float* to, const float* from, int64_t n) {
  if (n % kLanes == 0 && streamable(to))
    for (int64_t i = 0; i < n; i += kLanes) stream(to + i, load(from + i));
  else
    memcpy(to, from, static_cast<size_t>(n) * 4);
}

// v in a register: without this, a value from memory may be loaded again for every use of it.
WL_INLINE F pinned(F v) {
#if WL_LANES == 16
  asm("" : "+v"(v));
#elif defined(WL_NEON)
  asm("" : "+w"(v));
#elif defined(__x86_64__)
  asm("" : "+x"(v));
#endif
  return v;
}

#if WL_LANES == 16
// v * 2^n for whole n, rounded once.
WL_INLINE F scale2(F v, F n) { return (F)_mm512_maskz_scalef_ps(0xffff, (__m512)v, (__m512)n); }
WL_INLINE F roundEven(F v) {
  return (F)_mm512_maskz_roundscale_ps(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#endif

// The fold of all lanes by Fold::step, in one fixed order, in every lane.
template <class Fold>
WL_INLINE F foldLanes(F v) {
#if WL_LANES == 16
  v = Fold::step(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  v = Fold::step(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
  v = Fold::step(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
  return Fold::step(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
#elif WL_LANES == 8
  v = Fold::step(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3));
  v = Fold::step(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5));
  return Fold::step(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6));
#else
  v = Fold::step(v, __builtin_shufflevector(v, v, 2, 3, 0, 1));
  return Fold::step(v, __builtin_shufflevector(v, v, 1, 0, 3, 2));
#endif
}

struct Plus {
  WL_INLINE F step(F a, F b) { return a + b; }
};
WL_INLINE float sumLanes(F v) { return foldLanes<Plus>(v)[0]; }
