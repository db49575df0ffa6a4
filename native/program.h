// Lists of kernel calls: decoding, checking and running them.
//
// A list is int32 words, one call after the other:
//   kernel (index into Table::entries), outs, ins, attribute words; the views of outs, then ins; the attributes.
// A view is: slot, offset in elements, rank, shape, strides. A slot is a piece of memory given beside the words.
// Decoding refuses any view that reaches outside its slot and any call its kernel's check refuses.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "dispatch.h"

namespace wl {

// A checked list, ready to run any number of times. Not to be used by two threads at once.
class Program {
 public:
  // Replaces the list. `slotBytes[i]` is the size of slot i. False if a call is refused: then failed() says which,
  // error() why, and the calls before it stand.
  bool load(const Table& table, const int32_t* words, size_t count, const double* slotBytes, size_t slots);

  const std::string& error() const { return error_; }
  int32_t failed() const { return failed_; }
  int32_t calls() const { return static_cast<int32_t>(steps_.size()); }
  size_t slots() const { return slotBytes_.size(); }
  double slotBytes(size_t slot) const { return slotBytes_[slot]; }
  // About how many nanoseconds of one thread a run takes: right within a factor of a few.
  double cost() const { return cost_; }

  // Runs calls [begin, end) on memory at `bases`, one address per slot. Returns -1, or the call that failed (error()).
  int32_t run(int32_t begin, int32_t end, const double* bases);

 private:
  struct Step {
    const Entry* entry;
    Call call;
    size_t firstView;
    size_t firstAttr;
  };
  struct Place {
    uint32_t slot;
    int64_t offset;
  };

  bool decodeCall(const Table& table, const int32_t*& at, const int32_t* end);
  bool decodeView(const int32_t*& at, const int32_t* end);
  bool refuse(const std::string& why);
  void attach(Step& step);
  void bind(const double* bases);

  std::vector<Step> steps_;
  std::vector<View> views_;
  std::vector<Place> places_;
  std::vector<int32_t> attrs_;
  std::vector<double> slotBytes_;
  std::vector<double> bound_;
  std::string error_;
  int32_t failed_ = -1;
  double cost_ = 0;
};

}  // namespace wl
