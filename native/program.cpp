#include "program.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>

#include "arena.h"

namespace wl {
namespace {

// Small enough for sums and products of sizes within a kernel to stay within int64.
constexpr int64_t kMaxElements = int64_t(1) << 40;

// Brings the axes of views of one shape into the order of the first view's strides, largest first, drops axes of size
// 1 and merges neighbours that chain in every view.
void simplify(View* views, int32_t count) {
  const View& lead = views[0];
  int32_t order[kMaxRank];
  int32_t rank = 0;
  for (int32_t k = 0; k < lead.rank; ++k)
    if (lead.shape[k] != 1) order[rank++] = k;
  for (int32_t i = 1; i < rank; ++i)
    for (int32_t j = i; j > 0 && lead.strides[order[j - 1]] < lead.strides[order[j]]; --j)
      std::swap(order[j - 1], order[j]);

  const auto chains = [&](int32_t outer, int32_t inner) {
    for (int32_t v = 0; v < count; ++v)
      if (views[v].strides[outer] != views[v].strides[inner] * views[v].shape[inner]) return false;
    return true;
  };
  int32_t groupEnd[kMaxRank];
  int32_t groups = 0;
  for (int32_t i = 0; i < rank; ++i) {
    if (i + 1 < rank && chains(order[i], order[i + 1])) continue;
    groupEnd[groups++] = i;
  }
  for (int32_t v = 0; v < count; ++v) {
    const View old = views[v];
    int32_t i = 0;
    for (int32_t g = 0; g < groups; ++g) {
      int64_t size = 1;
      for (; i <= groupEnd[g]; ++i) size *= old.shape[order[i]];
      views[v].shape[g] = size;
      views[v].strides[g] = old.strides[order[groupEnd[g]]];
    }
    views[v].rank = groups;
  }
}

bool sameShape(const View& a, const View& b) {
  return a.rank == b.rank && std::equal(a.shape, a.shape + a.rank, b.shape);
}

int64_t countOf(const View& view) {
  int64_t n = 1;
  for (int32_t k = 0; k < view.rank; ++k) n *= view.shape[k];
  return n;
}

// In nanoseconds, from what a core of about 3 GHz with 8 or 16 lanes does.
double costOf(const char* kernel, const Call& call) {
  constexpr double kPerElement = 0.15, kPerProduct = 0.02, kSmall = 4096;
  double elements = 0, volume = 1;
  for (int32_t v = 0; v < call.outCount + call.inCount; ++v) {
    const double n = static_cast<double>(countOf(call.outs[v]));
    elements += n;
    if (v < 3) volume *= n;
  }
  if (elements < kSmall || call.outCount + call.inCount < 3) return elements * kPerElement;
  const View& y = call.outs[0];
  // Three faces of a box of products for each product of the batch; the window of a convolution is mostly 3x3.
  double products = 0;
  if (std::strcmp(kernel, "matmul") == 0) {
    const double face = static_cast<double>(y.shape[y.rank - 2] * y.shape[y.rank - 1]);
    products = std::sqrt(volume * face / (static_cast<double>(countOf(y)) + 1));
  } else if (std::strncmp(kernel, "conv2d", 6) == 0) {
    products = 3 * std::sqrt(volume / static_cast<double>(y.shape[0] + 1));
  } else if (std::strncmp(kernel, "generate", 8) == 0) {
    const View &code = call.ins[0], &basis = call.ins[1];
    const double weights = static_cast<double>(basis.shape[1] * basis.shape[2]);
    products = weights * static_cast<double>(countOf(code) + call.ins[2].shape[0]) * call.outCount;
  } else if (std::strncmp(kernel, "ragged", 6) == 0) {
    products = std::sqrt(volume / static_cast<double>(call.ins[2].shape[0] + 1));
  }
  return elements * kPerElement + products * kPerProduct;
}

}  // namespace

bool Program::load(const Table& table, const int32_t* words, size_t count, const double* slotBytes, size_t slots) {
  steps_.clear(), views_.clear(), places_.clear(), attrs_.clear(), bound_.clear(), error_.clear();
  failed_ = -1, cost_ = 0;
  slotBytes_.assign(slotBytes, slotBytes + slots);
  const int32_t* at = words;
  const int32_t* const end = words + count;
  bool good = true;
  while (good && at < end) good = decodeCall(table, at, end);
  for (Step& step : steps_) attach(step);
  return good;
}

bool Program::refuse(const std::string& why) {
  failed_ = calls();
  error_ = why;
  return false;
}

void Program::attach(Step& step) {
  step.call.outs = views_.data() + step.firstView;
  step.call.ins = step.call.outs + step.call.outCount;
  step.call.attrs = attrs_.data() + step.firstAttr;
}

bool Program::decodeCall(const Table& table, const int32_t*& at, const int32_t* end) {
  if (end - at < 4) return refuse("call: header is cut off");
  const int32_t kernel = at[0], outs = at[1], ins = at[2], attrs = at[3];
  at += 4;
  if (kernel < 0 || kernel >= table.entryCount) return refuse("call: no such kernel");
  if (outs < 0 || ins < 0 || attrs < 0) return refuse("call: negative count");
  Step step{table.entries + kernel, {nullptr, outs, nullptr, ins, nullptr, attrs}, views_.size(), attrs_.size()};
  for (int64_t v = 0; v < int64_t(outs) + ins; ++v)
    if (!decodeView(at, end)) return false;
  if (end - at < attrs) return refuse("call: attributes are cut off");
  attrs_.insert(attrs_.end(), at, at + attrs);
  at += attrs;
  attach(step);
  if (const char* why = step.entry->check(step.call)) return refuse(why);
  cost_ += costOf(step.entry->name, step.call);
  View* views = views_.data() + step.firstView;
  bool oneShape = step.entry->pointwise;
  for (int32_t v = 1; v < outs + ins; ++v) oneShape = oneShape && sameShape(views[0], views[v]);
  if (oneShape) simplify(views, outs + ins);
  steps_.push_back(step);
  return true;
}

bool Program::decodeView(const int32_t*& at, const int32_t* end) {
  if (end - at < 3) return refuse("view: header is cut off");
  const int32_t slot = at[0], offset = at[1], rank = at[2];
  at += 3;
  if (slot < 0 || static_cast<size_t>(slot) >= slotBytes_.size()) return refuse("view: no such slot");
  if (rank < 0 || rank > kMaxRank) return refuse("view: rank " + std::to_string(rank) + " is not within 0..8");
  if (end - at < 2 * rank) return refuse("view: shape or strides are cut off");
  View view;
  std::memset(&view, 0, sizeof(view));
  view.rank = rank;
  int64_t low = offset, high = offset;
  int64_t elements = 1;
  for (int32_t k = 0; k < rank; ++k) {
    const int64_t size = view.shape[k] = at[k], stride = view.strides[k] = at[rank + k];
    if (size < 0) return refuse("view: negative size");
    if (size > 0) (stride < 0 ? low : high) += (size - 1) * stride;
    elements *= size;
    if (elements > kMaxElements || low < -kMaxElements || high > kMaxElements) return refuse("view: too large");
  }
  at += 2 * rank;
  if (elements > 0 && (low < 0 || double(high + 1) * 4 > slotBytes_[slot]))
    return refuse("view: elements " + std::to_string(low) + ".." + std::to_string(high) + " are not within a slot of " +
                  std::to_string(int64_t(slotBytes_[slot])) + " bytes");
  views_.push_back(view);
  places_.push_back({static_cast<uint32_t>(slot), int64_t(offset) * 4});
  return true;
}

void Program::bind(const double* bases) {
  if (bound_.size() == slotBytes_.size() && std::equal(bound_.begin(), bound_.end(), bases)) return;
  bound_.assign(bases, bases + slotBytes_.size());
  for (size_t i = 0; i < views_.size(); ++i)
    views_[i].data = reinterpret_cast<char*>(static_cast<uintptr_t>(bases[places_[i].slot])) + places_[i].offset;
}

int32_t Program::run(int32_t begin, int32_t end, const double* bases) {
  bind(bases);
  for (int32_t i = begin; i < end; ++i) {
    const Step& step = steps_[static_cast<size_t>(i)];
    try {
      const ScratchScope scope;
      step.entry->run(step.call);
    } catch (const std::exception& error) {
      error_ = error.what();
      return i;
    }
  }
  return -1;
}

}  // namespace wl
