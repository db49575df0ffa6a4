// Checks the native side without Node: kernels of every instruction set this machine runs against plain loops,
// refusal of damaged command lists, scratch, and the thread pool. Built by native.test.ts with sanitizers; with
// -DPOOL_ONLY it holds the pool's part alone, with -DRACES_ONLY what runs on several threads, for the thread sanitizer.
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../native/arena.h"
#include "../native/pool.h"
#ifndef POOL_ONLY
#include "../native/executor.h"
#include "../native/program.h"
#else
#include "../native/kernel.h"
#endif

namespace {

int failures = 0;
const char* isa = "";
void expect(bool good, const char* what) {
  if (good) return;
  if (++failures <= 20) std::printf("FAILED: %s %s\n", isa, what);
}

// ---- pool and scratch

void testPool() {
  struct Sums {
    std::vector<double> value = std::vector<double>(1000, 0);
    std::vector<int> visits = std::vector<int>(1000, 0);
  };
  const auto body = [](void* context, int64_t begin, int64_t end) {
    Sums& s = *static_cast<Sums*>(context);
    double* block = static_cast<double*>(wl::scratch(64 * sizeof(double)));
    for (int64_t i = begin; i < end; ++i) {
      for (int k = 0; k < 64; ++k) block[k] = static_cast<double>(i * k);
      for (int k = 0; k < 64; ++k) s.value[static_cast<size_t>(i)] += block[k];
      ++s.visits[static_cast<size_t>(i)];
    }
  };
  const auto check = [&](const Sums& s, const char* what) {
    for (size_t i = 0; i < 1000; ++i) expect(s.visits[i] == 1 && s.value[i] == static_cast<double>(i) * 2016, what);
  };
  for (int threads : {1, 2, 3, 4}) {
    wl::setThreads(threads);
    for (int round = 0; round < 200; ++round) {
      Sums s;
      wl::parallelFor(1000, 1 + round % 7 * 50, body, &s);
      check(s, "every index once");
    }
  }
  // Idle long enough for the workers to sleep, then wake them.
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    Sums s;
    wl::parallelFor(1000, 10, body, &s);
    check(s, "after sleeping");
  }
  // Callers on several threads share the pool, as Node's worker threads do.
  std::vector<std::thread> callers;
  std::vector<Sums> results(4);
  for (size_t t = 0; t < 4; ++t)
    callers.emplace_back([&, t] {
      wl::setThreads(3);
      for (int round = 0; round < 100; ++round) {
        results[t] = Sums();
        wl::parallelFor(1000, 20, body, &results[t]);
      }
    });
  for (std::thread& caller : callers) caller.join();
  for (const Sums& s : results) check(s, "callers on four threads");
  // A parallelFor inside a body runs in its place.
  wl::setThreads(3);
  std::vector<Sums> nested(6);
  wl::parallelFor(
      6, 1,
      [](void* context, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          wl::parallelFor(
              1000, 100,
              [](void* inner, int64_t b, int64_t e) {
                Sums& s = *static_cast<Sums*>(inner);
                for (int64_t k = b; k < e; ++k)
                  s.value[static_cast<size_t>(k)] = static_cast<double>(k) * 2016, ++s.visits[static_cast<size_t>(k)];
              },
              &(*static_cast<std::vector<Sums>*>(context))[static_cast<size_t>(i)]);
      },
      &nested);
  for (const Sums& s : nested) check(s, "nested");
  // What a body throws reaches the caller, and the pool goes on.
  for (int round = 0; round < 20; ++round) {
    bool caught = false;
    try {
      wl::parallelFor(
          1000, 10,
          [](void*, int64_t begin, int64_t) {
            if (begin == 500) throw std::runtime_error("no");
          },
          nullptr);
    } catch (const std::runtime_error&) {
      caught = true;
    }
    expect(caught, "pool: exception is passed on");
    Sums s;
    wl::parallelFor(1000, 10, body, &s);
    check(s, "after an exception");
  }
}

void testScratch() {
  const wl::ScratchScope outer;
  char* first = static_cast<char*>(wl::scratch(100));
  std::memset(first, 1, 100);
  {
    const wl::ScratchScope inner;
    char* second = static_cast<char*>(wl::scratch(3 << 20));
    std::memset(second, 2, 3 << 20);
    expect(reinterpret_cast<uintptr_t>(second) % 64 == 0, "scratch is aligned");
  }
  char* third = static_cast<char*>(wl::scratch(1 << 20));
  std::memset(third, 3, 1 << 20);
  expect(first[0] == 1 && first[99] == 1, "scratch of an outer scope stays");
}

void testScratchReturned() {
  std::thread([] {
    const auto use = [](size_t bytes) {
      const wl::ScratchScope scope;
      std::memset(wl::scratch(bytes), 1, bytes);
    };
    for (size_t mega : {1, 3, 9}) use(mega << 20);
    expect(wl::scratchBytes() >= 9 << 20, "scratch is kept for the next call");
    for (int i = 0; i < 9000; ++i) use(i % 100 ? 1000 : 8 << 20);
    expect(wl::scratchBytes() >= 8 << 20, "scratch that is needed now and then is kept");
    for (int i = 0; i < 9000; ++i) use(1000);
    expect(wl::scratchBytes() <= 1 << 20, "scratch that nobody needs is given back");
  }).join();
}

#ifndef POOL_ONLY

// ---- command lists

struct Random {
  uint64_t state;
  uint32_t next() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state >> 33);
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(next()) % n; }
  float noise() { return static_cast<float>(next() & 0xffff) / 32768.f - 1.f; }
};
Random rng{42};

// A view with memory of exactly the extent it needs, so that a sanitizer sees any step beyond.
struct Tensor {
  std::vector<int64_t> shape, strides;
  int64_t offset = 0;
  std::vector<float> data;

  int64_t count() const {
    int64_t n = 1;
    for (int64_t size : shape) n *= size;
    return n;
  }
  // Position in memory of the i-th element in row-major order.
  size_t at(int64_t i) const {
    int64_t p = offset;
    for (size_t k = shape.size(); k-- > 0; i /= shape[k]) p += i % shape[k] * strides[k];
    return static_cast<size_t>(p);
  }
  float operator[](int64_t i) const { return data[at(i)]; }
  int32_t whole(int64_t i) const {
    int32_t v;
    std::memcpy(&v, &data[at(i)], 4);
    return v;
  }
  void setWhole(int64_t i, int32_t v) { std::memcpy(&data[at(i)], &v, 4); }
};

Tensor make(std::vector<int64_t> shape, bool broadcast) {
  Tensor t;
  t.shape = shape;
  t.strides.assign(shape.size(), 0);
  std::vector<size_t> order;
  for (size_t k = 0; k < shape.size(); ++k) order.insert(order.begin() + rng.below(static_cast<int64_t>(k) + 1), k);
  const bool plain = rng.below(3) == 0;
  if (plain)
    for (size_t k = 0; k < shape.size(); ++k) order[k] = shape.size() - 1 - k;
  int64_t next = 1;
  for (size_t k : order) {
    if (broadcast && !plain && rng.below(4) == 0) continue;
    t.strides[k] = plain ? next : next * (1 + (rng.below(5) == 0));
    next = t.strides[k] * (shape[k] > 0 ? shape[k] : 1);
  }
  t.offset = plain ? 0 : rng.below(4);
  int64_t last = t.offset;
  bool empty = false;
  for (size_t k = 0; k < shape.size(); ++k) empty |= shape[k] == 0, last += (shape[k] - 1) * t.strides[k];
  t.data.resize(empty ? 0 : static_cast<size_t>(last + 1));
  for (float& v : t.data) v = rng.noise();
  return t;
}
std::vector<int64_t> randomShape(int maxRank, int64_t maxSize) {
  std::vector<int64_t> shape(static_cast<size_t>(rng.below(maxRank + 1)));
  for (int64_t& size : shape) size = rng.below(20) == 0 ? 0 : 1 + rng.below(maxSize);
  return shape;
}

struct List {
  std::vector<int32_t> words;
  std::vector<double> bases, bytes;

  void call(const wl::Table& table, const char* kernel, std::vector<Tensor*> outs, std::vector<Tensor*> ins,
            std::vector<int32_t> attrs) {
    int32_t id = 0;
    while (id < table.entryCount && std::strcmp(table.entries[id].name, kernel) != 0) ++id;
    words.insert(words.end(), {id, static_cast<int32_t>(outs.size()), static_cast<int32_t>(ins.size()),
                               static_cast<int32_t>(attrs.size())});
    outs.insert(outs.end(), ins.begin(), ins.end());
    for (Tensor* t : outs) {
      words.insert(words.end(), {static_cast<int32_t>(bases.size()), static_cast<int32_t>(t->offset),
                                 static_cast<int32_t>(t->shape.size())});
      for (int64_t size : t->shape) words.push_back(static_cast<int32_t>(size));
      for (int64_t stride : t->strides) words.push_back(static_cast<int32_t>(stride));
      bases.push_back(static_cast<double>(reinterpret_cast<uintptr_t>(t->data.data())));
      bytes.push_back(static_cast<double>(t->data.size() * 4));
    }
    words.insert(words.end(), attrs.begin(), attrs.end());
  }
  // Empty if all went well.
  std::string run(const wl::Table& table, wl::Program& program) {
    if (!program.load(table, words.data(), words.size(), bytes.data(), bytes.size())) return program.error();
    return program.run(0, program.calls(), bases.data()) < 0 ? "" : program.error();
  }
};

int32_t opcode(const wl::Table& table, const char* scalar) {
  for (int32_t i = 0; i < table.scalarCount; ++i)
    if (std::strcmp(table.scalars[i], scalar) == 0) return i;
  return -1;
}

// out 0 = a * b + 0.5, out 1 = max(a * b, b), by one temporary.
std::vector<int32_t> twoOuts(const wl::Table& table) {
  const float half = 0.5f;
  int32_t bits;
  std::memcpy(&bits, &half, 4);
  // Operands: 0 a, 1 b, 2 immediate, 3 temporary, 4 and 5 outs.
  std::vector<int32_t> code = {2, 1, 1, 2, 3, bits, 0, 2, 1, 2};
  code.insert(code.end(), {opcode(table, "mul"), 3, 0, 1, 0, 0, 0});
  code.insert(code.end(), {opcode(table, "add"), 4, 3, 2, 0, 0, 0});
  code.insert(code.end(), {opcode(table, "max"), 5, 3, 1, 0, 0, 0});
  return code;
}

// The sum of a * b over the trailing axes.
std::vector<int32_t> reducedProduct(const wl::Table& table, int32_t reduced, int32_t column = -1) {
  return {0, reduced, column, 2, 0, 0, 1, 1, 0, 0, 0, opcode(table, "mul"), 2, 0, 1, 0, 0, 0};
}

void check(const wl::Table& table, const char* kernel, std::vector<Tensor*> outs, std::vector<Tensor*> ins,
           std::vector<int32_t> attrs, const std::function<void()>& verify) {
  wl::Program program;
  List list;
  list.call(table, kernel, outs, ins, attrs);
  const std::string error = list.run(table, program);
  expect(error.empty(), (std::string(kernel) + ": " + error).c_str());
  if (error.empty()) verify();
}
void near(float got, double want, double tolerance, const char* what) {
  expect(std::fabs(got - want) <= tolerance * (1 + std::fabs(want)), what);
}

void testKernels(const wl::Table& table) {
  for (int round = 0; round < 100; ++round) {
    const std::vector<int64_t> shape = rng.below(6) ? randomShape(4, 9) : randomShape(2, 300);
    Tensor a = make(shape, true), b = make(shape, true), y = make(shape, false), z = make(shape, false);
    check(table, "elementwise", {&y, &z}, {&a, &b}, twoOuts(table), [&] {
      for (int64_t i = 0; i < y.count(); ++i) {
        expect(y[i] == a[i] * b[i] + 0.5f, "elementwise, out 0");
        expect(z[i] == std::fmax(a[i] * b[i], b[i]), "elementwise, out 1");
      }
    });
    check(table, "copy", {&y}, {&a}, {}, [&] {
      for (int64_t i = 0; i < y.count(); ++i) expect(y[i] == a[i], "copy");
    });
    check(table, "cast", {&y}, {&a}, {1, 0}, [&] {
      for (int64_t i = 0; i < y.count(); ++i) expect(y.whole(i) == static_cast<int32_t>(a[i]), "cast");
    });

    const size_t keep = static_cast<size_t>(rng.below(static_cast<int64_t>(shape.size()) + 1));
    const std::vector<int64_t> kept(shape.begin(), shape.begin() + static_cast<int64_t>(keep));
    Tensor sums = make(kept, false), tops = make(kept, false);
    const int64_t n = sums.count() ? a.count() / sums.count() : 0;
    const int32_t reduced = static_cast<int32_t>(shape.size() - keep);
    check(table, "reduce", {&sums}, {&a}, {0, reduced, -1}, [&] {
      for (int64_t i = 0; i < sums.count(); ++i) {
        double total = 0;
        for (int64_t j = 0; j < n; ++j) total += a[i * n + j];
        near(sums[i], total, 3e-4, "sum");
      }
    });
    check(table, "reduce", {&sums}, {&a, &b}, reducedProduct(table, reduced), [&] {
      for (int64_t i = 0; i < sums.count(); ++i) {
        double total = 0;
        for (int64_t j = 0; j < n; ++j) total += a[i * n + j] * b[i * n + j];
        near(sums[i], total, 3e-4, "sum of products");
      }
    });
    check(table, "reduce", {&tops}, {&a}, {1, reduced, -1}, [&] {
      for (int64_t i = 0; i < tops.count(); ++i) {
        float top = -INFINITY;
        for (int64_t j = 0; j < n; ++j) top = std::fmax(top, a[i * n + j]);
        expect(tops[i] == top, "max");
      }
    });

    const float eps = 1e-3f;
    int32_t epsBits;
    std::memcpy(&epsBits, &eps, 4);
    check(table, "normalise", {&z, &sums}, {&a}, {epsBits, reduced}, [&] {
      for (int64_t i = 0; i < sums.count(); ++i) {
        double mean = 0, squares = 0;
        for (int64_t j = 0; j < n; ++j) mean += a[i * n + j] / static_cast<double>(n);
        for (int64_t j = 0; j < n; ++j) squares += (a[i * n + j] - mean) * (a[i * n + j] - mean);
        const double inverse = 1 / std::sqrt(squares / static_cast<double>(n) + static_cast<double>(eps));
        if (n > 0) near(sums[i], inverse, 1e-4, "normalise: inverse");
        for (int64_t j = 0; j < n; ++j) near(z[i * n + j], (a[i * n + j] - mean) * inverse, 1e-4, "normalise");
      }
    });

    if (shape.empty() || shape.back() == 0) continue;
    check(table, "softmax", {&y}, {&a}, {}, [&] {
      const int64_t width = shape.back();
      for (int64_t i = 0; i < y.count(); ++i) {
        double total = 0;
        for (int64_t j = 0; j < width; ++j) total += std::exp(a[i / width * width + j]);
        near(y[i], std::exp(a[i]) / total, 1e-6, "softmax");
      }
    });
    const std::vector<int64_t> rows(shape.begin(), shape.end() - 1);
    Tensor where = make(rows, false);
    check(table, "argmax", {&where}, {&a}, {}, [&] {
      const int64_t width = shape.back();
      for (int64_t i = 0; i < where.count(); ++i) {
        int64_t best = 0;
        for (int64_t j = 1; j < width; ++j)
          if (a[i * width + j] > a[i * width + best]) best = j;
        expect(where.whole(i) == best, "argmax");
      }
    });

    // Axis 0, one axis of indices, some out of range.
    const int64_t places = shape[0];
    int64_t inner = 1;
    for (size_t k = 1; k < shape.size(); ++k) inner *= shape[k];
    Tensor index = make({1 + rng.below(6)}, false);
    for (int64_t i = 0; i < index.count(); ++i) index.setWhole(i, static_cast<int32_t>(rng.below(places + 2)) - 1);
    std::vector<int64_t> takenShape = shape;
    takenShape[0] = index.count();
    Tensor taken = make(takenShape, false), whole = make(shape, false);
    check(table, "take", {&taken}, {&a, &index}, {0}, [&] {
      for (int64_t i = 0; i < taken.count(); ++i) {
        const int64_t p = index.whole(i / inner);
        if (p < 0 || p >= places)
          expect(std::isnan(taken[i]), "take, out of range");
        else
          expect(taken[i] == a[p * inner + i % inner], "take");
      }
    });
    for (float& v : taken.data) v = rng.noise();
    check(table, "scatterAdd", {&whole}, {&taken, &index}, {0}, [&] {
      for (int64_t i = 0; i < whole.count(); ++i) {
        float total = 0;
        for (int64_t k = 0; k < index.count(); ++k)
          if (index.whole(k) == i / inner) total += taken[k * inner + i % inner];
        expect(whole[i] == total, "scatterAdd");
      }
    });
  }

  // Random123's known answer for key 0 and counter 0.
  Tensor key = make({2}, false), bits = make({2}, false);
  key.strides = bits.strides = {1}, key.offset = bits.offset = 0;
  key.data.assign(2, 0.f), bits.data.assign(2, 0.f);
  check(table, "random", {&bits}, {&key}, {2, 0}, [&] {
    expect(static_cast<uint32_t>(bits.whole(0)) == 0x6b200159u && static_cast<uint32_t>(bits.whole(1)) == 0x99ba4efeu,
           "random");
  });
  const char* modes[] = {"fma", "read", "write", "copy", "writeAround", "copyAround"};
  for (int32_t mode = 0; mode < 6; ++mode)
    for (int32_t pieces : {1, 3}) {
      Tensor x = make({}, false), y = x;
      x.shape = y.shape = {384}, x.strides = y.strides = {1}, x.offset = y.offset = 0;
      x.data.assign(384, 2.f), y.data.assign(384, -1.f);
      check(table, "machine", {&y}, {&x}, {mode, 3, pieces}, [&] {
        double sum = 0;
        for (float v : y.data) sum += v;
        const bool all = mode >= 2;
        for (float v : y.data) expect(!all || v == (mode % 2 ? 2.f : 1.f), modes[mode]);
        // Reading leaves the sums of the lanes in front of each piece and nothing behind them.
        const double lanes = (sum + 384 - 3 * 384 * 2) / pieces;
        if (mode == 1) expect(lanes == 4 || lanes == 8 || lanes == 16, modes[mode]);
        if (mode == 0) expect(y[0] != -1.f && std::isfinite(y[0]), modes[mode]);
      });
    }
}

#include "native_math.inc"
#include "native_paths.inc"

// Whatever happens to the words, a list is refused or runs within its slots.
void testDamage(const wl::Table& table) {
  wl::Program program;
  int refused = 0, ran = 0;
  for (int round = 0; round < 1000; ++round) {
    Tensor a = make({3, 4, 5}, true), b = make({3, 4, 5}, false);
    Tensor y = make({3, 4, 5}, false), z = make({3, 4, 5}, false);
    Tensor s = make({3, 4}, false), w = make({3, 5, 6}, false), p = make({3, 4, 6}, false), index = make({2}, false);
    Tensor taken = make({2, 4, 5}, false);
    for (int64_t i = 0; i < 2; ++i) index.setWhole(i, static_cast<int32_t>(rng.below(5)) - 1);
    List list;
    list.call(table, "elementwise", {&y, &z}, {&a, &b}, twoOuts(table));
    list.call(table, "copy", {&z}, {&a}, {});
    list.call(table, "reduce", {&s}, {&b}, {0, 1, -1});
    list.call(table, "reduce", {&s}, {&a, &b}, reducedProduct(table, 1));
    list.call(table, "softmax", {&y}, {&b}, {});
    list.call(table, "take", {&taken}, {&b, &index}, {0});
    list.call(table, "scatterAdd", {&y}, {&taken, &index}, {0});
    list.call(table, "matmul", {&p}, {&b, &w}, {});
    const int damages = 1 + static_cast<int>(rng.below(3));
    for (int i = 0; i < damages; ++i) {
      int32_t& word = list.words[static_cast<size_t>(rng.below(static_cast<int64_t>(list.words.size())))];
      word = rng.below(10) == 0 ? static_cast<int32_t>(rng.next() << 1) : static_cast<int32_t>(rng.below(12)) - 2;
    }
    if (rng.below(10) == 0) list.words.resize(static_cast<size_t>(rng.below(static_cast<int64_t>(list.words.size()))));
    (list.run(table, program).empty() ? ran : refused)++;
  }
  expect(refused > 300 && ran > 30, "damage: some lists are refused and some are not");
}

// Kernels on operands large enough to be split. `indices` not 0: the last input holds that many places in rising order.
struct Large {
  const char* kernel;
  std::vector<std::vector<int64_t>> outs, ins;
  std::vector<int32_t> attrs;
  int64_t indices = 0;
};
std::vector<Large> largeCalls(const wl::Table& table) {
  const std::vector<int64_t> x = {64, 3000}, image = {4, 30, 30, 24}, pooled = {4, 15, 15, 24};
  const std::vector<int64_t> images = {1, 6, 20, 20, 24}, filter = {1, 3, 3, 24, 40}, maps = {1, 6, 20, 20, 40};
  const std::vector<int32_t> conv = {1, 1, 1, 1}, pool = {2, 2, 2, 2, 0, 0};
  return {
      {"elementwise", {x, x}, {x, x}, twoOuts(table)},
      {"copy", {{300, 500}}, {{300, 500}}, {}},
      {"reduce", {{}}, {x}, {0, 2, -1}},
      {"reduce", {{64}}, {x}, {0, 1, -1}},
      {"reduce", {{}}, {x, x}, reducedProduct(table, 2)},
      {"argmax", {{64}}, {x}, {}},
      {"softmax", {x}, {x}, {}},
      {"logSoftmax", {{3000, 64}}, {{3000, 64}}, {}},
      {"crossEntropy", {{9000}}, {{9000, 20}, {9000}}, {0}, 20},
      {"crossEntropyGradient", {{9000, 20}}, {{9000, 20}, {9000}, {9000}}, {0x3dcccccd}},
      {"crossEntropyGradient", {x}, {x, {64}, {64}}, {0x3dcccccd}},
      {"normalise", {x, {64}}, {x}, {0, 1}},
      {"normalise", {x, {}}, {x}, {0, 2}},
      {"normalise", {{64, 2000}, {64}}, {{64, 2000}}, {0, 1}},
      {"take", {{5000, 40}}, {{99, 40}, {5000}}, {0}, 99},
      {"scatterAdd", {{99, 40}}, {{5000, 40}, {5000}}, {0}, 99},
      {"matmul", {{401, 523}}, {{401, 331}, {331, 523}}, {}},
      {"matmul", {{60, 30, 64}}, {{60, 30, 90}, {60, 90, 64}}, {}},
      {"matmul", {{1500, 1}}, {{1500, 700}, {700, 1}}, {}},
      {"matmul", {{12, 9000}}, {{12, 40}, {40, 9000}}, {}},
      {"conv2d", {maps}, {images, filter}, conv},
      {"conv2dInput", {images}, {maps, filter}, conv},
      {"conv2dFilter", {filter}, {images, maps}, conv},
      {"maxPool", {pooled, pooled}, {image}, pool},
      {"maxPoolScatter", {image}, {pooled, pooled}, pool, 900},
      {"maxPoolTake", {pooled}, {image, pooled}, {}, 900},
      {"sumPool", {pooled}, {image}, pool},
      {"sumPoolSpread", {image}, {pooled}, pool},
      {"raggedMatmul", {{900, 50}}, {{900, 60}, {9, 60, 50}, {10}}, {}, 900},
      {"raggedOuter", {{9, 60, 50}}, {{900, 60}, {900, 50}, {10}}, {}, 900},
      {"generateApply", {{2100, 50}}, {{2100, 5}, {5, 30, 50}, {2100, 30}}, {0, 0}},
      {"generateApply", {{2100, 50}}, {{300, 5}, {5, 30, 50}, {2100, 30}}, {0, 0}},
      {"generateGradients",
       {{2100, 5}, {5, 30, 50}, {2100, 30}},
       {{2100, 5}, {5, 30, 50}, {2100, 30}, {2100, 50}},
       {0, 0, 7}},
      {"generateGradients",
       {{300, 5}, {5, 30, 50}, {2100, 30}},
       {{300, 5}, {5, 30, 50}, {2100, 30}, {2100, 50}},
       {0, 0, 7}},
  };
}

// A call gives the same bits with any number of threads.
void testDeterminism(const wl::Table& table) {
  for (const Large& large : largeCalls(table)) {
    std::vector<Tensor> ins;
    for (const auto& shape : large.ins) ins.push_back(make(shape, false));
    if (large.indices) {
      Tensor& last = ins.back();
      if (last.shape.size() == 1) last.strides = {1};
      for (int64_t i = 0; i < last.count(); ++i)
        last.setWhole(i, static_cast<int32_t>(i * large.indices / (last.count() - 1)));
    }
    std::vector<Tensor> outs;
    for (const auto& shape : large.outs) outs.push_back(make(shape, false));
    std::vector<Tensor> first;
    for (int threads : {1, 2, 4}) {
      std::vector<Tensor> mine = outs;
      std::vector<Tensor*> to, from;
      for (Tensor& t : mine) to.push_back(&t);
      for (Tensor& t : ins) from.push_back(&t);
      wl::setThreads(threads);
      check(table, large.kernel, to, from, large.attrs, [] {});
      if (threads == 1) first = mine;
      for (size_t k = 0; k < mine.size(); ++k)
        expect(std::memcmp(mine[k].data.data(), first[k].data.data(), mine[k].data.size() * 4) == 0, large.kernel);
    }
  }
}

// Jobs run in the order given; one that fails is told by its number and keeps none from running.
void testExecutor() {
  const auto count = [](const wl::Call& call) {
    int32_t& counter = *static_cast<int32_t*>(call.outs[0].data);
    if (counter++ != call.attrs[0]) throw std::runtime_error("out of order");
  };
  const auto any = [](const wl::Call&) -> const char* { return nullptr; };
  const wl::Entry entries[] = {{"count", count, any, false}};
  const wl::Table table = {"test", entries, 1, nullptr, 0};
  std::atomic<int> settled{0};
  Tensor counter = make({}, false);
  counter.setWhole(0, 0);
  {
    wl::Executor executor([&] { ++settled; });
    expect(!executor.busy() && executor.done() == 0, "executor: idle at first");
    for (int32_t i = 0; i < 100; ++i) {
      List list;
      list.call(table, "count", {&counter}, {}, {i == 7 ? -1 : i});
      auto program = std::make_shared<wl::Program>();
      expect(program->load(table, list.words.data(), list.words.size(), list.bytes.data(), 1), "executor: loads");
      expect(executor.submit(program, 0, 1, list.bases.data(), 2) == i + 1, "executor: numbers jobs");
    }
    executor.wait(50);
    expect(executor.done() >= 50, "executor: waits for a job");
    executor.wait();
    expect(!executor.busy() && counter.whole(0) == 100, "executor: waits for all");
    const auto failed = executor.takeFailures();
    expect(failed.size() == 1 && failed[0].job == 8 && failed[0].why == "out of order", "executor: tells what failed");
    expect(executor.takeFailures().empty(), "executor: tells it once");
  }
  expect(settled == 100, "executor: tells of each job");
}

#endif

}  // namespace

int main() {
  testPool();
  testScratch();
  testScratchReturned();
#ifndef POOL_ONLY
  int tables = 0;
  for (const char* name : wl::kIsaNames) {
    const wl::Table* table = wl::findTable(name);
    if (!table) continue;
    ++tables;
    isa = name;
    wl::setThreads(3);
#ifndef RACES_ONLY
    testKernels(*table);
    testMath(*table, 39989);
    testNormEpilogue(*table);
    testPaths(*table);
    testDamage(*table);
#endif
    testDeterminism(*table);
  }
  isa = "";
  testExecutor();
  std::printf("instruction sets checked: %d\n", tables);
#endif
  std::printf(failures ? "%d FAILED\n" : "ok\n", failures);
  return failures ? 1 : 0;
}
