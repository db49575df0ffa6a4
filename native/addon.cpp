// The door to JavaScript: the only file that knows Node. Calls made once per flush or step use the C interface.
#include <napi.h>

#include <memory>
#include <string>

#include "arena.h"
#include "dispatch.h"
#include "executor.h"
#include "pool.h"
#include "program.h"

namespace {

// One per environment, so that the addon can be loaded by any number of worker threads.
struct Instance {
  std::shared_ptr<wl::Program> eager = std::make_shared<wl::Program>();
  std::string error;
  std::unique_ptr<wl::Executor> executor;
  napi_threadsafe_function settled = nullptr;
};

// Work that takes more nanoseconds than this must not hold up the event loop.
constexpr double kLong = 1e7;

Instance& instanceOf(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return *static_cast<Instance*>(data);
}

struct Span {
  void* data = nullptr;
  size_t length = 0;
};

// False and an exception if `value` is not a typed array of `type`.
bool typedArray(napi_env env, napi_value value, napi_typedarray_type type, Span& span) {
  napi_typedarray_type actual = napi_int8_array;
  if (napi_get_typedarray_info(env, value, &actual, &span.length, &span.data, nullptr, nullptr) == napi_ok &&
      actual == type)
    return true;
  napi_throw_type_error(env, nullptr, "native: argument is not the typed array it should be");
  return false;
}

bool fail(napi_env env, const char* why) {
  napi_throw_type_error(env, nullptr, why);
  return false;
}

template <int Count>
bool arguments(napi_env env, napi_callback_info info, napi_value (&values)[Count]) {
  size_t count = Count;
  napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
  return count >= Count || fail(env, "native: too few arguments");
}

// Slots reach the addon as pairs (address, bytes) that address() gave for buffers the caller keeps alive.
bool validBases(napi_env env, const double* bases, size_t count) {
  for (size_t i = 0; i < count; ++i)
    if (!(bases[i] >= 4096)) return fail(env, "native: a slot has no memory");
  return true;
}

napi_value number(napi_env env, int32_t value) {
  napi_value result = nullptr;
  napi_create_int32(env, value, &result);
  return result;
}

// run(words: Int32Array, count, bases: Float64Array, bytes: Float64Array, slots, threads): -1 or the index of the
// call that failed; message() then says why, and the calls before it have run. Long work, and all work while there is
// some on the executor, goes to the executor: then -1 less the number of the job.
napi_value run(napi_env env, napi_callback_info info) {
  napi_value args[6];
  Span words, bases, bytes;
  uint32_t count = 0, slots = 0;
  int32_t threads = 1;
  if (!arguments(env, info, args) || !typedArray(env, args[0], napi_int32_array, words) ||
      !typedArray(env, args[2], napi_float64_array, bases) || !typedArray(env, args[3], napi_float64_array, bytes))
    return nullptr;
  napi_get_value_uint32(env, args[1], &count);
  napi_get_value_uint32(env, args[4], &slots);
  napi_get_value_int32(env, args[5], &threads);
  if (count > words.length || slots > bases.length || slots > bytes.length) {
    fail(env, "native: count exceeds its array");
    return nullptr;
  }
  const double* base = static_cast<const double*>(bases.data);
  if (!validBases(env, base, slots)) return nullptr;
  Instance& instance = instanceOf(env);
  try {
    wl::Program& program = *instance.eager;
    program.load(wl::table(), static_cast<const int32_t*>(words.data), count, static_cast<const double*>(bytes.data),
                 slots);
    const int32_t refused = program.failed();
    if (refused >= 0) instance.error = program.error();
    if (instance.executor) {
      if (refused >= 0)
        instance.executor->wait();
      else if (instance.executor->busy() || program.cost() > kLong * threads) {
        const int64_t job = instance.executor->submit(instance.eager, 0, program.calls(), base, threads);
        instance.eager = std::make_shared<wl::Program>();
        return number(env, static_cast<int32_t>(-1 - job));
      }
    }
    wl::setThreads(threads);
    const int32_t failed = program.run(0, program.calls(), base);
    if (failed >= 0) instance.error = program.error();
    return number(env, failed >= 0 ? failed : refused);
  } catch (const std::exception& error) {
    fail(env, error.what());
    return nullptr;
  }
}

// A kept list of calls and the addresses of its slots: a Float64Array of the caller's that is read at every run.
struct Prepared {
  std::shared_ptr<wl::Program> program = std::make_shared<wl::Program>();
  const double* bases = nullptr;
  Napi::Reference<Napi::Float64Array> owner;
};

// The arguments (program, begin, end, threads), checked; null and an exception if they are not such.
struct Range {
  int32_t begin = 0, end = 0, threads = 1;
};
Prepared* preparedRange(napi_env env, napi_callback_info info, Range& range) {
  napi_value args[4];
  void* data = nullptr;
  if (!arguments(env, info, args)) return nullptr;
  if (napi_get_value_external(env, args[0], &data) != napi_ok) {
    fail(env, "native: not a program");
    return nullptr;
  }
  Prepared* prepared = static_cast<Prepared*>(data);
  napi_get_value_int32(env, args[1], &range.begin);
  napi_get_value_int32(env, args[2], &range.end);
  napi_get_value_int32(env, args[3], &range.threads);
  if (range.begin < 0 || range.end > prepared->program->calls() || range.begin > range.end) {
    fail(env, "native: the program has no such calls");
    return nullptr;
  }
  return validBases(env, prepared->bases, prepared->program->slots()) ? prepared : nullptr;
}

// execute(program, begin, end, threads): -1 or the index of the call that failed. The executor must be idle.
napi_value execute(napi_env env, napi_callback_info info) {
  Range range;
  Prepared* prepared = preparedRange(env, info, range);
  if (!prepared) return nullptr;
  wl::setThreads(range.threads);
  const int32_t failed = prepared->program->run(range.begin, range.end, prepared->bases);
  if (failed >= 0) instanceOf(env).error = prepared->program->error();
  return number(env, failed);
}

// submit(program, begin, end, threads): the number of the executor's job that runs these calls.
napi_value submit(napi_env env, napi_callback_info info) {
  Range range;
  Prepared* prepared = preparedRange(env, info, range);
  wl::Executor* executor = instanceOf(env).executor.get();
  if (!prepared || (!executor && !fail(env, "native: there is no executor"))) return nullptr;
  try {
    const int64_t job = executor->submit(prepared->program, range.begin, range.end, prepared->bases, range.threads);
    return number(env, static_cast<int32_t>(job));
  } catch (const std::exception& error) {
    fail(env, error.what());
    return nullptr;
  }
}

// isLong(program, threads): true if a run must not hold up the event loop.
Napi::Value isLong(const Napi::CallbackInfo& info) {
  const Prepared& prepared = *info[0].As<Napi::External<Prepared>>().Data();
  const double threads = info[1].As<Napi::Number>().DoubleValue();
  return Napi::Boolean::New(info.Env(), prepared.program->cost() > kLong * threads);
}

void endExecutor(void* data) {
  Instance& instance = *static_cast<Instance*>(data);
  instance.executor.reset();
  if (instance.settled) napi_release_threadsafe_function(instance.settled, napi_tsfn_release);
  instance.settled = nullptr;
}

// startExecutor(settled: () => void): makes the executor, which calls `settled` after each job.
void startExecutor(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Instance& instance = instanceOf(env);
  if (instance.executor) {
    napi_remove_env_cleanup_hook(env, endExecutor, &instance);
    endExecutor(&instance);
  }
  const Napi::String name = Napi::String::New(env, "weightloom");
  if (napi_create_threadsafe_function(env, info[0], nullptr, name, 0, 1, nullptr, nullptr, nullptr, nullptr,
                                      &instance.settled) != napi_ok)
    throw Napi::TypeError::New(env, "native: not a function");
  napi_unref_threadsafe_function(env, instance.settled);
  const napi_threadsafe_function settled = instance.settled;
  instance.executor = std::make_unique<wl::Executor>(
      [settled] { napi_call_threadsafe_function(settled, nullptr, napi_tsfn_nonblocking); });
  // Hooks run in reverse order: the executor's thread ends before the function it calls.
  napi_add_env_cleanup_hook(env, endExecutor, &instance);
}

// holdLoop(on: boolean): whether the event loop lives on for the executor's sake.
void holdLoop(const Napi::CallbackInfo& info) {
  const napi_threadsafe_function settled = instanceOf(info.Env()).settled;
  (info[0].As<Napi::Boolean>().Value() ? napi_ref_threadsafe_function : napi_unref_threadsafe_function)(info.Env(),
                                                                                                        settled);
}

// done(): the number of the executor's last job that is done. wait(job): returns when that one is.
Napi::Value done(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(instanceOf(info.Env()).executor->done()));
}
void wait(const Napi::CallbackInfo& info) {
  instanceOf(info.Env()).executor->wait(info[0].As<Napi::Number>().Int64Value());
}

// failures(): [job, why] of each job that has failed since this was last asked.
Napi::Value failures(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Array all = Napi::Array::New(env);
  for (const wl::Executor::Failure& failure : instanceOf(env).executor->takeFailures()) {
    Napi::Array one = Napi::Array::New(env, 2);
    one[0u] = static_cast<double>(failure.job);
    one[1u] = failure.why;
    all[all.Length()] = one;
  }
  return all;
}

// prepare(words: Int32Array, bytes: Float64Array, bases: Float64Array): a program. Throws if a call is refused.
Napi::Value prepare(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Span words, bytes, bases;
  if (!typedArray(env, info[0], napi_int32_array, words) || !typedArray(env, info[1], napi_float64_array, bytes) ||
      !typedArray(env, info[2], napi_float64_array, bases))
    return env.Undefined();
  if (bases.length < bytes.length) throw Napi::TypeError::New(env, "native: there are fewer addresses than slots");
  auto prepared = std::make_unique<Prepared>();
  wl::Program& program = *prepared->program;
  if (!program.load(wl::table(), static_cast<const int32_t*>(words.data), words.length,
                    static_cast<const double*>(bytes.data), bytes.length))
    throw Napi::Error::New(env, "call " + std::to_string(program.failed()) + ": " + program.error());
  prepared->bases = static_cast<const double*>(bases.data);
  prepared->owner = Napi::Persistent(info[2].As<Napi::Float64Array>());
  return Napi::External<Prepared>::New(env, prepared.release(), [](Napi::Env, Prepared* p) { delete p; });
}

// address(buffer: ArrayBuffer): where its memory begins. Valid while the buffer is alive and not detached.
Napi::Value address(const Napi::CallbackInfo& info) {
  if (!info[0].IsArrayBuffer()) throw Napi::TypeError::New(info.Env(), "native: not an ArrayBuffer");
  return Napi::Number::New(info.Env(),
                           static_cast<double>(reinterpret_cast<uintptr_t>(info[0].As<Napi::ArrayBuffer>().Data())));
}

// adviseHuge(buffer: ArrayBuffer): asks for huge pages behind it, before it is first written.
void adviseHuge(const Napi::CallbackInfo& info) {
  if (!info[0].IsArrayBuffer()) throw Napi::TypeError::New(info.Env(), "native: not an ArrayBuffer");
  auto buffer = info[0].As<Napi::ArrayBuffer>();
  wl::adviseHuge(buffer.Data(), buffer.ByteLength());
}

Napi::Value message(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), instanceOf(info.Env()).error);
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  const wl::Table& table = wl::table();
  napi_set_instance_data(
      env, new Instance, [](napi_env, void* data, void*) { delete static_cast<Instance*>(data); }, nullptr);
  Napi::Array kernels = Napi::Array::New(env, static_cast<size_t>(table.entryCount));
  for (int32_t i = 0; i < table.entryCount; ++i) kernels[static_cast<uint32_t>(i)] = table.entries[i].name;
  Napi::Array scalars = Napi::Array::New(env, static_cast<size_t>(table.scalarCount));
  for (int32_t i = 0; i < table.scalarCount; ++i) scalars[static_cast<uint32_t>(i)] = table.scalars[i];
  Napi::Array isas = Napi::Array::New(env);
  for (const char* isa : wl::kIsaNames)
    if (wl::findTable(isa)) isas[isas.Length()] = isa;
  exports["isa"] = table.isa;
  exports["isas"] = isas;
  exports["kernels"] = kernels;
  exports["scalars"] = scalars;
  exports["availableThreads"] = wl::availableThreads();
  exports["prepare"] = Napi::Function::New(env, prepare);
  exports["address"] = Napi::Function::New(env, address);
  exports["adviseHuge"] = Napi::Function::New(env, adviseHuge);
  exports["message"] = Napi::Function::New(env, message);
  exports["isLong"] = Napi::Function::New(env, isLong);
  exports["startExecutor"] = Napi::Function::New(env, startExecutor);
  exports["holdLoop"] = Napi::Function::New(env, holdLoop);
  exports["done"] = Napi::Function::New(env, done);
  exports["wait"] = Napi::Function::New(env, wait);
  exports["failures"] = Napi::Function::New(env, failures);
  const napi_property_descriptor hot[] = {
      {"run", nullptr, run, nullptr, nullptr, nullptr, napi_default, nullptr},
      {"execute", nullptr, execute, nullptr, nullptr, nullptr, napi_default, nullptr},
      {"submit", nullptr, submit, nullptr, nullptr, nullptr, napi_default, nullptr},
  };
  napi_define_properties(env, exports, 3, hot);
  return exports;
}

}  // namespace

NODE_API_MODULE(weightloom, init)
