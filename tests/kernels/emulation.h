// Runs CUDA kernels on the CPU: the same source, compiled as C++, with this header before it.
//
// A grid's blocks follow one another. The threads of a block are fibers that take turns: one runs until it waits at a barrier
// or a shuffle, or ends. The order of turns is a parameter, so that a missing barrier shows as a result that depends on it.
// Shared memory is filled with NaN before every block. A barrier that not all threads of a block reach, or a shuffle that not
// all lanes of a warp reach, ends the program with a message.
#pragma once

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <utility>

struct dim3 {
  unsigned x, y, z;
};

static dim3 threadIdx, blockIdx, blockDim, gridDim;

#define __global__
#define __device__ static
// A section of its own, so that all shared variables can be filled before a block runs.
#define __shared__ static __attribute__((section("shared_memory")))
#define __restrict__
#define __forceinline__
#define __launch_bounds__(...)

extern "C" {
extern char __start_shared_memory[] __attribute__((visibility("hidden"), weak));
extern char __stop_shared_memory[] __attribute__((visibility("hidden"), weak));
}

namespace emulation {

constexpr unsigned MOST_THREADS = 1024, LANES = 32, STACK_BYTES = 256 << 10;

struct Fiber {
  ucontext_t start;
  jmp_buf place;
  char *stack;
  bool is_begun, is_done;
};

struct Barrier {
  unsigned arrived, generation;
};

struct Warp {
  Barrier barrier;
  unsigned char values[LANES][8];
  unsigned fragments[LANES][6];
};

static Fiber fibers[MOST_THREADS];
static Warp warps[MOST_THREADS / LANES];
static Barrier block_barrier;
static jmp_buf scheduler;
static unsigned running, threads, order;
static unsigned long progress;
static void (*body)(void **);
static void **arguments;
static const char *kernel_name;

[[noreturn]] static void fail(const char *what) {
  fprintf(stderr, "emulation of kernel %s: %s (block %u, %u)\n", kernel_name, what, blockIdx.x, blockIdx.y);
  abort();
}

/// Back to the scheduler, until it is this fiber's turn again.
static void take_turns() {
  if (_setjmp(fibers[running].place) == 0) _longjmp(scheduler, 1);
}

/// What a fiber does: the kernel, once for every block that it takes part in.
static void live() {
  for (;;) {
    body(arguments);
    fibers[running].is_done = true;
    ++progress;
    take_turns();
  }
}

static void wait(Barrier &barrier, unsigned members) {
  ++progress;
  if (++barrier.arrived == members) {
    barrier.arrived = 0;
    ++barrier.generation;
    return;
  }
  for (const unsigned generation = barrier.generation; barrier.generation == generation;) take_turns();
}

static unsigned lane() { return running % LANES; }
static Warp &warp() { return warps[running / LANES]; }
static void wait_warp() {
  const unsigned first = running / LANES * LANES;
  wait(warp().barrier, threads - first < LANES ? threads - first : LANES);
}

/// Shows every lane's value to all lanes of the warp and answers that of one of them.
template <class T>
static T exchange(unsigned mask, T value, unsigned source) {
  static_assert(sizeof(T) <= sizeof(warp().values[0]), "a shuffle of at most eight bytes");
  if (mask != 0xffffffffu) fail("a shuffle of part of a warp");
  memcpy(warp().values[lane()], &value, sizeof(T));
  wait_warp();
  memcpy(&value, warp().values[source % LANES], sizeof(T));
  wait_warp();
  return value;
}

/// Lets a fiber run until it waits or ends.
static void resume(unsigned thread) {
  Fiber &fiber = fibers[thread];
  running = thread;
  threadIdx = {thread, 0, 0};
  if (_setjmp(scheduler) != 0) return;
  if (fiber.is_begun) _longjmp(fiber.place, 1);
  fiber.is_begun = true;
  fiber.stack = fiber.stack ? fiber.stack : (char *)malloc(STACK_BYTES);
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = fiber.stack;
  fiber.start.uc_stack.ss_size = STACK_BYTES;
  fiber.start.uc_link = nullptr;
  makecontext(&fiber.start, live, 0);
  setcontext(&fiber.start);
}

/// The thread whose turn is the `i`-th: forwards, backwards, or in strides.
static unsigned turn(unsigned i) {
  switch (order) {
    case 0: return i;
    case 1: return threads - 1 - i;
    default: return (unsigned)((i * 37ul + 11) % threads);
  }
}

static void run_block() {
  memset(__start_shared_memory, 0xff, __stop_shared_memory - __start_shared_memory);
  block_barrier = {0, 0};
  for (unsigned i = 0; i < threads; ++i) fibers[i].is_done = false;
  for (Warp &warp : warps) warp.barrier = {0, 0};
  for (unsigned left = threads; left > 0;) {
    const unsigned long before = progress;
    for (unsigned i = 0; i < threads; ++i) {
      const unsigned thread = turn(i);
      if (fibers[thread].is_done) continue;
      resume(thread);
      left -= fibers[thread].is_done;
    }
    if (left > 0 && progress == before) fail("threads wait for others that have ended or wait elsewhere");
  }
}

/// A kernel's call with arguments by their addresses, as the driver takes them.
template <auto kernel>
struct Call;
template <class... A, void (*kernel)(A...)>
struct Call<kernel> {
  template <size_t... I>
  static void unpack(void **arguments, std::index_sequence<I...>) {
    kernel(*(std::remove_cv_t<A> *)arguments[I]...);
  }
  static void call(void **arguments) { unpack(arguments, std::index_sequence_for<A...>{}); }
};

struct Entry {
  const char *name;
  void (*call)(void **);
};

/// Runs a kernel of the table `entries` over a grid; answers 0, or 1 where there is no such kernel.
static int launch(const Entry *entries, unsigned count, const char *name, unsigned x, unsigned y, unsigned block_threads,
                  unsigned turns, void **values) {
  for (unsigned i = 0; i < count; ++i) {
    if (strcmp(entries[i].name, name) != 0) continue;
    kernel_name = entries[i].name;
    body = entries[i].call;
    arguments = values;
    threads = block_threads;
    order = turns;
    blockDim = {block_threads, 1, 1};
    gridDim = {x, y, 1};
    if (threads == 0 || threads > MOST_THREADS || threads % LANES != 0) fail("a block of a size that is not foreseen");
    if (x == 0 || y == 0 || y > 65535) fail("a grid of a size that a device refuses");
    for (unsigned b = 0; b < y; ++b)
      for (unsigned a = 0; a < x; ++a) {
        blockIdx = {a, b, 0};
        run_block();
      }
    return 0;
  }
  return 1;
}

}  // namespace emulation

static inline void __syncthreads() { emulation::wait(emulation::block_barrier, emulation::threads); }
static inline void __syncwarp(unsigned mask = 0xffffffffu) {
  if (mask != 0xffffffffu) emulation::fail("a barrier of part of a warp");
  emulation::wait_warp();
}

template <class T>
static T __shfl_sync(unsigned mask, T value, int source) {
  return emulation::exchange(mask, value, (unsigned)source);
}
template <class T>
static T __shfl_xor_sync(unsigned mask, T value, int distance) {
  return emulation::exchange(mask, value, emulation::lane() ^ (unsigned)distance);
}
template <class T>
static T __shfl_up_sync(unsigned mask, T value, unsigned distance) {
  const unsigned lane = emulation::lane();
  return emulation::exchange(mask, value, lane >= distance ? lane - distance : lane);
}
template <class T>
static T __shfl_down_sync(unsigned mask, T value, unsigned distance) {
  const unsigned lane = emulation::lane();
  return emulation::exchange(mask, value, lane + distance < emulation::LANES ? lane + distance : lane);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate) {
  unsigned ballot = 0;
  for (unsigned lane = 0; lane < emulation::LANES; ++lane)
    ballot |= (unsigned)(emulation::exchange(mask, predicate != 0, lane)) << lane;
  return ballot;
}

/// One bf16 number of two in a word.
static inline float half_of(unsigned word, int which) {
  const unsigned bits = which == 0 ? word << 16 : word & 0xffff0000u;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/// `sums += a b` for a 16 x 16 matrix `a` and a 16 x 8 matrix `b` of bf16 numbers, spread over the lanes of a warp as the PTX
/// ISA has it for mma.m16n8k16. An element of `a` is with lane `4 (row % 8) + column % 8 / 2`, in its word
/// `row / 8 + 2 (column / 8)`; one of `b` with lane `4 column + row % 8 / 2`, in its word `row / 8`.
static void mma_m16n8k16(float *sums, const unsigned *a, const unsigned *b) {
  using emulation::warp;
  const unsigned lane = emulation::lane();
  memcpy(warp().fragments[lane], a, 4 * sizeof *a);
  memcpy(warp().fragments[lane] + 4, b, 2 * sizeof *b);
  emulation::wait_warp();
  for (unsigned e = 0; e < 4; ++e) {
    const unsigned row = lane / 4 + e / 2 * 8, column = lane % 4 * 2 + e % 2;
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned left = warp().fragments[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
      const unsigned right = warp().fragments[column * 4 + k % 8 / 2][4 + k / 8];
      sums[e] += half_of(left, k % 2) * half_of(right, k % 2);
    }
  }
  emulation::wait_warp();
}

static inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
static inline unsigned __float_as_uint(float value) {
  unsigned bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
static inline float __uint_as_float(unsigned bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
