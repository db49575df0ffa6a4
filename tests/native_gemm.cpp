// Checks the kernels of matmul, conv2d, pool and ragged against naive loops over random shapes and strides, and
// measures them. Built once per vector width (-DWL_LANES=4, 8 or 16) by nativeGemm.test.ts with sanitizers:
//   g++ -std=c++17 -O1 -fsanitize=address,undefined -DWL_LANES=16 tests/native_gemm.cpp -o check && ./check
//   g++ -std=c++17 -O3 -DWL_LANES=16 tests/native_gemm.cpp -o bench && ./bench bench [ABCEF]
// The letters are workloads: square products, projections, per-task layers, a meta-training step, convolutions.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <initializer_list>
#include <memory>
#include <vector>

#include "../native/isa/prelude.h"

namespace wl {
// Pieces run in reverse order and every request for scratch is an allocation of its own, filled with NaN: a kernel
// that reads what it has not written, or what another piece should have written, fails the comparison.
struct Free {
  void operator()(void* p) const { free(p); }
};
static std::vector<std::unique_ptr<void, Free>> blocks;
static size_t held = 0;  // of the blocks that stay
static bool hostile = true;
void parallelFor(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
  for (int64_t piece = (count + grain - 1) / grain - 1; piece >= 0; --piece) {
    const size_t before = hostile ? blocks.size() : held;
    body(context, piece * grain, (piece + 1) * grain < count ? (piece + 1) * grain : count);
    if (hostile)
      blocks.resize(before);
    else
      held = before;
  }
}
void* scratch(size_t bytes) {
  void* at = nullptr;
  if (hostile) {  // of exactly this size, so that the sanitizer sees every overrun
    if (posix_memalign(&at, 64, bytes) != 0) abort();
    memset(at, 0xff, bytes);
    blocks.emplace_back(at);
    return at;
  }
  static std::vector<size_t> sizes;  // for measuring: blocks that stay, in the order of the requests
  if (held == blocks.size()) blocks.emplace_back(), sizes.push_back(0);
  if (bytes > sizes[held]) {
    if (posix_memalign(&at, 64, bytes) != 0) abort();
    blocks[held].reset(at), sizes[held] = bytes;
  }
  return blocks[held++].get();
}
}  // namespace wl

#pragma GCC push_options
#if WL_LANES == 16
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,prefer-vector-width=512,tune=haswell")
#elif WL_LANES == 8
#pragma GCC target("avx2,fma,tune=haswell")
#endif
namespace wl {
namespace {
#include "../native/simd.h"

#include "../native/kernels/views.inc"

#include "../native/kernels/expr.inc"
#include "../native/kernels/elementwise.inc"
#include "../native/kernels/gemm.inc"

#include "../native/kernels/epilogue.inc"
#include "../native/kernels/projection.inc"
#include "../native/kernels/matmul.inc"
#include "../native/kernels/conv2d.inc"
#include "../native/kernels/prologue.inc"
#include "../native/kernels/pool.inc"
#include "../native/kernels/ragged.inc"
#include "../native/kernels/generate.inc"

float burst(int64_t n) {
  F a[12];
  for (int i = 0; i < 12; ++i) a[i] = splat(float(i));
  const F m = splat(.999f), c = splat(.001f);
  for (int64_t i = 0; i < n; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) a[j] = fma(a[j], m, c);
  }
  for (int i = 1; i < 12; ++i) a[0] = a[0] + a[i];
  return sumLanes(a[0]);
}
}  // namespace
}  // namespace wl
#pragma GCC pop_options

using namespace wl;
using Shape = std::vector<int64_t>;

static uint64_t state = 1;
static uint32_t next() {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<uint32_t>(state >> 33);
}
static int64_t pick(int64_t low, int64_t high) { return low + next() % (high - low + 1); }
static bool chance(int percent) { return static_cast<int>(next() % 100) < percent; }

constexpr float kGuard = 12345.f;

// A view with memory of exactly its extent. Elements that the view does not reach hold kGuard.
struct Array {
  std::vector<float> memory;
  View view;

  template <class... Index>
  float& at(Index... index) {
    const int64_t places[] = {index...};
    int64_t offset = 0;
    for (size_t i = 0; i < sizeof...(index); ++i) offset += places[i] * view.strides[i];
    return static_cast<float*>(view.data)[offset];
  }
  void each(const std::function<void(float&)>& visit) {
    std::function<void(int32_t, int64_t)> walk = [&](int32_t axis, int64_t offset) {
      if (axis == view.rank) return visit(static_cast<float*>(view.data)[offset]);
      for (int64_t i = 0; i < view.shape[axis]; ++i) walk(axis + 1, offset + i * view.strides[axis]);
    };
    walk(0, 0);
  }
};

enum Layout { kDense, kAny, kBroadcast };

// `kAny`: axes in any order, with gaps. `kBroadcast`: and some strides 0.
static std::unique_ptr<Array> make(const Shape& shape, Layout layout, bool fill = true) {
  auto array = std::make_unique<Array>();
  View& v = array->view;
  v = {};
  v.rank = static_cast<int32_t>(shape.size());
  std::vector<int32_t> order;
  for (int32_t i = 0; i < v.rank; ++i) order.push_back(v.rank - 1 - i);
  const bool any = layout != kDense && chance(60);
  if (any && chance(70))
    for (int32_t i = 0; i < v.rank; ++i) std::swap(order[i], order[pick(0, v.rank - 1)]);
  int64_t chain = any && chance(20) ? 2 : 1;
  for (int32_t axis : order) {
    v.shape[axis] = shape[axis];
    v.strides[axis] = chain;
    chain *= shape[axis] > 0 ? shape[axis] : 1;
    if (any && chance(20)) chain += pick(1, 3);
  }
  if (layout == kBroadcast && chance(30)) v.strides[pick(0, v.rank - 1)] = 0;
  int64_t extent = 1;
  for (int32_t i = 0; i < v.rank; ++i) {
    extent += (v.shape[i] - 1) * v.strides[i];
    if (v.shape[i] == 0) extent = 0;
    if (extent <= 0) break;
  }
  const int64_t before = chance(50) ? 0 : pick(1, 5);
  array->memory.assign((extent > 0 ? extent : 0) + before, kGuard);
  array->memory.shrink_to_fit();
  v.data = array->memory.data() + before;
  // Multiples of 1/64 from -1 to 1: products and their sums need fewer bits than f32 has, so no order of sums rounds.
  if (fill) array->each([](float& f) { f = static_cast<float>(next() % 129) / 64.f - 1.f; });
  return array;
}

static int failures = 0;
static const char* current = "";
static int64_t compared = 0;

static void fail(const char* what, double got, double want) {
  if (++failures <= 20) printf("FAIL %s: %s got %.9g want %.9g\n", current, what, got, want);
}
static void expectSame(float got, double want) {
  ++compared;
  if (got != want) fail("value", got, want);
}
// For what rounds. `scale`: the sum of the absolute values of what was added.
static void expect(float got, double want, double scale) {
  ++compared;
  const double bound = 1e-6 * scale + 1e-6;
  if (!(std::fabs(got - want) <= bound)) fail("value", got, want);
}
// Overwrites all elements of an output with kGuard: whatever differs now was written outside the view.
static void expectGuarded(Array& y) {
  y.each([](float& f) { f = kGuard; });
  for (float f : y.memory)
    if (f != kGuard) return fail("written outside the output", f, kGuard);
}
static void call(void (*kernel)(const Call&), const char* (*check)(const Call&), const std::vector<Array*>& outs,
                 const std::vector<Array*>& ins, const std::vector<int32_t>& attrs) {
  std::vector<View> o, i;
  for (Array* a : outs) o.push_back(a->view);
  for (Array* a : ins) i.push_back(a->view);
  const Call c = {o.data(),     static_cast<int32_t>(o.size()),    i.data(), static_cast<int32_t>(i.size()),
                  attrs.data(), static_cast<int32_t>(attrs.size())};
  if (const char* wrong = check(c)) {
    printf("FAIL %s: refused: %s\n", current, wrong);
    ++failures;
    return;
  }
  kernel(c);
  blocks.clear();
}

static int32_t opcode(const char* name) {
  for (int32_t i = 0; i < kScalarCount; ++i)
    if (strcmp(kScalars[i], name) == 0) return i;
  abort();
}

static int64_t size(int64_t high) {
  if (chance(4)) return 0;
  if (chance(15)) return 1;
  return pick(2, high);
}

#include "native_product.inc"

// `wide`: shapes and layouts of which many suit winograd.inc.
static void checkConvs(int rounds, bool wide) {
  int suited = 0;
  for (int round = 0; round < rounds; ++round) {
    const int64_t T = pick(1, 2), N = pick(wide, 3);
    const int64_t C = wide ? pick(15, 34) : chance(30) ? 1 : pick(1, 9);
    const int64_t O = wide ? pick(15, 34) : chance(10) ? 1 : pick(1, 70);
    const int64_t KH = wide ? 3 : pick(1, 3), KW = wide ? 3 : pick(1, 4);
    const int32_t sh = wide ? 1 : static_cast<int32_t>(pick(1, 3)), sw = wide ? 1 : static_cast<int32_t>(pick(1, 3));
    const int32_t top = static_cast<int32_t>(pick(0, 3)), left = static_cast<int32_t>(pick(0, 3));
    const int64_t H = pick(1, 9), W = pick(1, 9), OH = pick(1, wide ? 13 : 6), OW = pick(1, wide ? 13 : 6);
    const std::vector<int32_t> attrs = {sh, sw, top, left};
    const bool dense = wide && chance(80);
    const Layout in = dense ? kDense : kBroadcast, out = dense ? kDense : kAny;
    auto x = make({T, N, H, W, C}, in), w = make({T, KH, KW, C, O}, wide && chance(50) ? in : kBroadcast);
    auto g = make({T, N, OH, OW, O}, in);
    auto y = make({T, N, OH, OW, O}, out, false), dx = make({T, N, H, W, C}, out, false);
    auto dw = make({T, KH, KW, C, O}, wide && chance(50) ? out : kAny, false);
    suited += winogradSuits(readConv(x->view, w->view, y->view, attrs.data()));
    std::vector<double> ys(T * N * OH * OW * O), yScale(ys.size()), dxs(T * N * H * W * C), dxScale(dxs.size());
    std::vector<double> dws(T * KH * KW * C * O), dwScale(dws.size());
    for (int64_t t = 0; t < T; ++t)
      for (int64_t n = 0; n < N; ++n)
        for (int64_t p = 0; p < OH; ++p)
          for (int64_t q = 0; q < OW; ++q)
            for (int64_t i = 0; i < KH; ++i)
              for (int64_t j = 0; j < KW; ++j) {
                const int64_t h = p * sh + i - top, v = q * sw + j - left;
                if (h < 0 || h >= H || v < 0 || v >= W) continue;
                for (int64_t c = 0; c < C; ++c)
                  for (int64_t o = 0; o < O; ++o) {
                    const size_t iy = (((t * N + n) * OH + p) * OW + q) * O + o;
                    const size_t ix = (((t * N + n) * H + h) * W + v) * C + c;
                    const size_t iw = (((t * KH + i) * KW + j) * C + c) * O + o;
                    const double xv = x->at(t, n, h, v, c), wv = w->at(t, i, j, c, o), gv = g->at(t, n, p, q, o);
                    ys[iy] += xv * wv, yScale[iy] += std::fabs(xv * wv);
                    dxs[ix] += gv * wv, dxScale[ix] += std::fabs(gv * wv);
                    dws[iw] += gv * xv, dwScale[iw] += std::fabs(gv * xv);
                  }
              }
    // Winograd rounds, and the error of one element may be that of its whole tile.
    const auto check = [wide](float got, double want, double scale) {
      wide ? expect(got, want, scale) : expectSame(got, want);
    };
    if (wide)
      for (auto* scale : {&yScale, &dxScale, &dwScale})
        std::fill(scale->begin(), scale->end(), 3 * *std::max_element(scale->begin(), scale->end()));
    current = "conv2d";
    const Suffix kind = Suffix(pick(0, 3));
    auto e = makeExtra({T, N, OH, OW, O});
    std::vector<int32_t> words = attrs;
    for (int32_t word : ending(kind)) words.push_back(word);
    if (kind == kPlain)
      call(conv2d, checkConv2d, {y.get()}, {x.get(), w.get()}, words);
    else
      call(conv2d, checkConv2d, {y.get()}, {x.get(), w.get(), e.get()}, words);
    size_t at = 0;
    std::vector<float> extra;
    e->each([&](float& f) { extra.push_back(f); });
    y->each([&](float& f) { check(f, ended(kind, ys[at], extra[at]), 4 * yScale[at] + 1), ++at; });
    expectGuarded(*y);
    current = "conv2dInput";
    call(conv2dInput, checkConv2dInput, {dx.get()}, {g.get(), w.get()}, attrs);
    at = 0;
    dx->each([&](float& f) { check(f, dxs[at], dxScale[at]), ++at; });
    expectGuarded(*dx);
    current = "conv2dFilter";
    call(conv2dFilter, checkConv2dFilter, {dw.get()}, {x.get(), g.get()}, attrs);
    at = 0;
    dw->each([&](float& f) { check(f, dws[at], dwScale[at]), ++at; });
    expectGuarded(*dw);
  }
  if (wide && suited < rounds / 4) fail("rounds that suit Winograd", static_cast<float>(suited), rounds / 4);
}

// Pictures large and many enough for bands, groups, pieces and parts: the three kernels against the identity
// <conv(x, w), g> = <x, convInput(g, w)> = <w, convFilter(x, g)>, and the first against sampled sums.
static void checkLargeConv(int64_t N, int64_t side, int64_t C, int64_t O, int32_t stride) {
  current = "large conv2d";
  const int64_t out = (side + 2 - 3) / stride + 1;
  auto x = make({1, N, side, side, C}, kDense), w = make({1, 3, 3, C, O}, kDense),
       g = make({1, N, out, out, O}, kDense);
  auto y = make({1, N, out, out, O}, kDense, false), dx = make({1, N, side, side, C}, kDense, false);
  auto dw = make({1, 3, 3, C, O}, kDense, false);
  const std::vector<int32_t> attrs = {stride, stride, 1, 1};
  call(conv2d, checkConv2d, {y.get()}, {x.get(), w.get()}, attrs);
  call(conv2dInput, checkConv2dInput, {dx.get()}, {g.get(), w.get()}, attrs);
  call(conv2dFilter, checkConv2dFilter, {dw.get()}, {x.get(), g.get()}, attrs);
  const auto dot = [](Array& a, Array& b) {
    std::vector<float> left;
    a.each([&](float& f) { left.push_back(f); });
    double sum = 0;
    size_t at = 0;
    b.each([&](float& f) { sum += double(f) * left[at++]; });
    return sum;
  };
  // Rounding errors of the elements are independent; a tap left out somewhere changes the sum by far more.
  const double inner = dot(*y, *g), scale = 0.1 * std::sqrt(double(y->memory.size())) * 9 * C;
  expect(static_cast<float>(dot(*x, *dx)), inner, scale);
  expect(static_cast<float>(dot(*w, *dw)), inner, scale);
  for (int sample = 0; sample < 500; ++sample) {
    const int64_t n = pick(0, N - 1), p = pick(0, out - 1), q = pick(0, out - 1), o = pick(0, O - 1);
    double sum = 0;
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t j = 0; j < 3; ++j) {
        const int64_t h = p * stride + i - 1, v = q * stride + j - 1;
        if (h < 0 || h >= side || v < 0 || v >= side) continue;
        for (int64_t c = 0; c < C; ++c) sum += double(x->at(0, n, h, v, c)) * w->at(0, i, j, c, o);
      }
    expect(y->at(0, n, p, q, o), sum, 9. * C);
  }
}

static int32_t& word(float& f) { return *reinterpret_cast<int32_t*>(&f); }

static void checkPools(int rounds) {
  for (int round = 0; round < rounds; ++round) {
    const int64_t N = pick(0, 3), H = pick(1, 9), W = pick(1, 9), C = chance(40) ? 16 * pick(1, 3) : pick(1, 40);
    const int32_t kh = static_cast<int32_t>(pick(1, 4)), kw = static_cast<int32_t>(pick(1, 4));
    const int32_t sh = static_cast<int32_t>(pick(1, 3)), sw = static_cast<int32_t>(pick(1, 3));
    const int32_t top = static_cast<int32_t>(pick(0, kh - 1)), left = static_cast<int32_t>(pick(0, kw - 1));
    const int64_t OH = (H + top - 1) / sh + 1, OW = (W + left - 1) / sw + 1;
    const std::vector<int32_t> attrs = {kh, kw, sh, sw, top, left};
    const Shape full = {N, H, W, C}, pooled = {N, OH, OW, C};
    const auto in = chance(50) ? kDense : kBroadcast, out = chance(50) ? kDense : kAny;
    auto x = make(full, in), g = make(pooled, in);
    auto y = make(pooled, out, false), index = make(pooled, out, false), dx = make(full, out, false);
    auto taken = make(pooled, kAny, false), sums = make(pooled, kAny, false), spread = make(full, kAny, false);
    x->each([](float& f) {
      f = std::round(f * 3);  // ties
      if (chance(3)) f = NAN;
      if (chance(3)) f = -INFINITY;
    });
    auto finite = make(full, kBroadcast);
    std::vector<double> dxs(N * H * W * C), spreads(dxs.size()), sumWanted;
    std::vector<float> maxWanted;
    std::vector<int32_t> indexWanted;
    for (int64_t n = 0; n < N; ++n)
      for (int64_t p = 0; p < OH; ++p)
        for (int64_t q = 0; q < OW; ++q)
          for (int64_t c = 0; c < C; ++c) {
            float best = -INFINITY;
            int32_t where = -1;
            double sum = 0;
            for (int64_t h = p * sh - top; h < p * sh - top + kh; ++h)
              for (int64_t v = q * sw - left; v < q * sw - left + kw; ++v) {
                if (h < 0 || h >= H || v < 0 || v >= W) continue;
                const float f = x->at(n, h, v, c);
                if (where < 0 || f > best || (std::isnan(f) && !std::isnan(best))) {
                  best = f;
                  where = static_cast<int32_t>(h * W + v);
                }
                sum += finite->at(n, h, v, c);
                spreads[((n * H + h) * W + v) * C + c] += g->at(n, p, q, c);
              }
            maxWanted.push_back(best), indexWanted.push_back(where), sumWanted.push_back(sum);
            if (where >= 0) dxs[(n * H * W + where) * C + c] += g->at(n, p, q, c);
          }
    current = "maxPool";
    call(maxPool, checkMaxPool, {y.get(), index.get()}, {x.get()}, attrs);
    current = "maxPoolScatter";
    call(maxPoolScatter, checkMaxPoolScatter, {dx.get()}, {g.get(), index.get()}, attrs);
    current = "maxPoolTake";
    call(maxPoolTake, checkMaxPoolTake, {taken.get()}, {x.get(), index.get()}, {});
    size_t at = 0;
    const auto same = [&](float& f) {
      ++compared;
      const float want = maxWanted[at++];
      if (memcmp(&f, &want, 4) != 0 && !(std::isnan(f) && std::isnan(want))) fail("maximum", f, want);
    };
    y->each(same);
    at = 0;
    for (int32_t& where : indexWanted)
      if (where < 0) maxWanted[&where - indexWanted.data()] = NAN;  // an empty window takes nothing
    taken->each(same);
    at = 0;
    index->each([&](float& f) {
      ++compared;
      if (word(f) != indexWanted[at]) fail("index", word(f), indexWanted[at]);
      ++at;
    });
    at = 0;
    dx->each([&](float& f) { expectSame(f, dxs[at++]); });
    current = "sumPool";
    call(sumPool, checkSumPool, {sums.get()}, {finite.get()}, attrs);
    at = 0;
    sums->each([&](float& f) { expectSame(f, sumWanted[at++]); });
    current = "sumPoolSpread";
    call(sumPoolSpread, checkSumPoolSpread, {spread.get()}, {g.get()}, attrs);
    at = 0;
    spread->each([&](float& f) { expectSame(f, spreads[at++]); });
    for (Array* out : {y.get(), index.get(), dx.get(), taken.get(), sums.get(), spread.get()}) expectGuarded(*out);
  }
}

static void checkRagged(int rounds) {
  for (int round = 0; round < rounds; ++round) {
    const bool many = round % 10 == 0;  // enough rows for several pieces
    const int64_t T = pick(1, 9), I = many ? 64 : size(40), O = many ? 80 : size(80);
    std::vector<int32_t> offsets = {0};
    for (int64_t t = 0; t < T; ++t)
      offsets.push_back(offsets.back() + static_cast<int32_t>(chance(30) ? 0 : pick(1, many ? 200 : 30)));
    const int64_t N = offsets.back();
    auto x = make({N, I}, kBroadcast), w = make({T, I, O}, kBroadcast), g = make({N, O}, kBroadcast);
    auto y = make({N, O}, kAny, false), dw = make({T, I, O}, kAny, false), starts = make({T + 1}, kDense);
    for (int64_t t = 0; t <= T; ++t) word(starts->at(t)) = offsets[t];
    current = "raggedMatmul";
    call(raggedMatmul, checkRaggedMatmul, {y.get()}, {x.get(), w.get(), starts.get()}, {});
    current = "raggedOuter";
    call(raggedOuter, checkRaggedOuter, {dw.get()}, {x.get(), g.get(), starts.get()}, {});
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t r = offsets[t]; r < offsets[t + 1]; ++r)
        for (int64_t o = 0; o < O; ++o) {
          double sum = 0;
          for (int64_t i = 0; i < I; ++i) sum += double(x->at(r, i)) * w->at(t, i, o);
          expectSame(y->at(r, o), sum);
        }
      for (int64_t i = 0; i < I; ++i)
        for (int64_t o = 0; o < O; ++o) {
          double sum = 0;
          for (int64_t r = offsets[t]; r < offsets[t + 1]; ++r) sum += double(x->at(r, i)) * g->at(r, o);
          expectSame(dw->at(t, i, o), sum);
        }
    }
    expectGuarded(*y);
    expectGuarded(*dw);
  }
}

#include "native_generate.inc"

static int checkAll() {
  checkMatmuls(400);
  for (int ta = 0; ta < 2; ++ta)
    for (int tb = 0; tb < 2; ++tb) checkLargeMatmul(401, 523, 331, ta, tb);
  for (int i = 0; i < 3; ++i) checkLargeMatmul(401, 300, 700, false, false);
  checkLargeMatmul(1, 700, 900, false, true);
  checkLargeMatmul(8, 2000, 961, false, true);
  checkLargeMatmul(8, 400, 131, false, true);
  checkLargeMatmul(1500, 700, 1, false, false);
  checkLargeMatmul(700, 3, 1200, true, false);
  checkProjections();
  checkConvs(80, false);
  checkConvs(60, true);
  checkLargeConv(2, 28, 19, 64, 1);
  checkLargeConv(40, 7, 15, 33, 1);
  checkLargeConv(70, 7, 16, 33, 1);
  checkLargeConv(3, 62, 19, 16, 1);
  checkLargeConv(70, 10, 5, 64, 2);
  checkPools(60);
  checkRagged(60);
  checkGenerated(60);
  printf("%lld values compared, %d failures\n", static_cast<long long>(compared), failures);
  return failures > 0;
}

#include "native_gemm_bench.inc"

int main(int argc, char** argv) {
#if WL_LANES == 16
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512vl")) return 77;
#elif WL_LANES == 8
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 77;
#endif
  return argc > 1 && strcmp(argv[1], "bench") == 0 ? bench(argc > 2 ? argv[2] : "ABCEF") : checkAll();
}
